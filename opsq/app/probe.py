"""`python -m opsq.app.probe [-A SPEC]`: import the app and say in one JSON line what it is and which broker it names.

`opsq up` asks it in a process of its own, because the supervisor imports no app.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from opsq.app.discovery import find_app, named_app
from opsq.config.broker import configured_broker
from opsq.datastore.keys import prefix_of
from opsq.datastore.priorities import Priorities
from opsq.exceptions import OpsqError


def main() -> int:
    """Print the line; 2 and a sentence on stderr when the user made a mistake."""
    parser = argparse.ArgumentParser(prog="opsq.app.probe")
    parser.add_argument("-A", "--app")
    parser.add_argument("--workdir")
    arguments = parser.parse_args()
    answer = os.dup(1)
    os.dup2(2, 1)  # what the app's modules print is no answer
    try:
        app = find_app(arguments.app, arguments.workdir)
        named = named_app(arguments.app)
        broker = configured_broker(app.conf)
    except OpsqError as error:
        print(error, file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2
    told = app.conf.broker_transport_options
    line = {
        "app": app.main,
        "spec": named[0] if named else None,
        "broker_url": broker.url,
        "source": broker.source,
        "key_prefix": prefix_of(told),
        "priorities": Priorities.of(told).to_options(),
    }
    sys.stdout.flush()
    os.write(answer, json.dumps(line).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
