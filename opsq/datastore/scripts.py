"""A `.lua` file as a callable: sent by its hash, and whole when the server does not know it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsq.datastore.trouble import NoScriptError

if TYPE_CHECKING:
    from redis import Redis


class Script:
    """One Lua script of a file; `run` evaluates it on a client."""

    def __init__(self, path: Path, *functions: Path) -> None:
        """`functions`: files of functions that it begins with."""
        self.name = path.stem
        self.text = "".join(each.read_text() for each in (*functions, path))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Redis, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Evaluate it; a server that has forgotten it gets its text."""
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *args)

    def ask(self, ask: Callable[..., Any], keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """The same on a line, by its `ask`."""
        try:
            return ask("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return ask("EVAL", self.text, len(keys), *keys, *args)
