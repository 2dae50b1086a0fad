"""A web process of a Django project, with whatever Django: it runs what it is given. Run in the project's folder."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the answering side
from support.peer import Peer, serve


class DjangoClient(Peer):
    """The asking side."""

    def __init__(self, python: Path, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__([python, __file__], cwd=folder, env=environment)

    def do(self, source: str, **values: Any) -> Any:
        """Run statements with these names defined; what they put into `answer`. PeerError names what they raise."""
        return self.ask("do", textwrap.dedent(source), values)


def _serve() -> None:
    import django

    django.setup()

    def do(source: str, values: dict[str, Any]) -> Any:
        names: dict[str, Any] = {"answer": None, **values}
        try:
            with redirect_stdout(sys.stderr):  # standard output has the answers
                exec(compile(source, "<test>", "exec"), names)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            raise
        return names["answer"]

    serve({"do": do})


if __name__ == "__main__":
    _serve()
