"""The real supervisord in a virtual environment of its own, as the real Celery's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __package__:
    from . import celery_venv
else:  # run as a script, to install it ahead of the tests
    import celery_venv

REQUIREMENTS = ["supervisor==4.3.*"]


def bin() -> Path:
    """The folder with supervisord and supervisorctl; OPSQ_TEST_SUPERVISORD_BIN names another one."""
    given = os.environ.get("OPSQ_TEST_SUPERVISORD_BIN")
    if given:
        return Path(given)
    return celery_venv.made("tests-supervisord", REQUIREMENTS) / "bin"


if __name__ == "__main__":
    print(bin(), file=sys.stdout)
