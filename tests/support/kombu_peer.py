"""The real kombu in a process of its own: what it writes, and what it reads.

Run by the interpreter of the Celery environment, this file is the answering side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the answering side
from support.peer import Peer, serve


class Kombu(Peer):
    """The asking side. What kombu refuses raises PeerError with the name of its error's class."""

    def __init__(self, python: Path) -> None:
        super().__init__([python, __file__])

    def dumps(self, value: Any) -> str:
        """kombu's JSON of a value."""
        answer: str = self.ask("dumps", value)
        return answer

    def loads(self, data: bytes | str) -> Any:
        """The value that kombu reads from JSON."""
        return self.ask("loads", data)

    def encode(self, value: Any, serializer: str) -> tuple[str, str, bytes]:
        """What kombu's registry of serializers makes of a value."""
        answer: tuple[str, str, bytes] = self.ask("encode", value, serializer)
        return answer

    def decode(self, data: bytes, content_type: str, content_encoding: str) -> Any:
        """What kombu's registry of serializers reads, accepting everything."""
        return self.ask("decode", data, content_type, content_encoding)

    def compress(self, data: bytes, name: str) -> tuple[bytes, str]:
        answer: tuple[bytes, str] = self.ask("compress", data, name)
        return answer

    def decompress(self, data: bytes, name: str) -> bytes:
        answer: bytes = self.ask("decompress", data, name)
        return answer

    def topic_pattern(self, key: str) -> str:
        """The regular expression that kombu binds a topic's key with."""
        answer: str = self.ask("topic_pattern", key)
        return answer

    def homes(self, names: list[str]) -> dict[str, str]:
        """The modules of the exceptions that Celery and kombu have under these names."""
        answer: dict[str, str] = self.ask("homes", names)
        return answer

    def sweep(self, url: str) -> int:
        """Take away the bindings that are overdue, as consumers of kombu 5.7 do; how many exchanges were."""
        answer: int = self.ask("sweep", url)
        return answer

    def stored_failure(self, error: BaseException) -> dict[str, Any]:
        """What Celery's Redis backend stores of an exception."""
        answer: dict[str, Any] = self.ask("stored_failure", error)
        return answer


def _verbs() -> dict[str, Callable[..., Any]]:
    from celery import Celery
    from kombu import Connection, compression, serialization
    from kombu.transport.virtual.exchange import TopicExchange
    from kombu.utils import json

    def stored_failure(error: BaseException) -> Any:
        backend = Celery(backend="redis://localhost").backend
        return json.loads(backend.encode(backend.prepare_exception(error)))

    def sweep(url: str) -> int:
        with Connection(url) as connection:
            swept: int = connection.default_channel.sweep_bindings()
            return swept

    def homes(names: list[str]) -> dict[str, str]:
        import celery.exceptions
        import kombu.exceptions

        return {
            name: getattr(module, name).__module__
            for name in names
            for module in (kombu.exceptions, celery.exceptions)
            if hasattr(module, name)
        }

    return {
        "homes": homes,
        "sweep": sweep,
        "topic_pattern": TopicExchange(None).key_to_pattern,
        "dumps": json.dumps,
        "loads": json.loads,
        "encode": serialization.dumps,
        "decode": lambda *values: serialization.loads(*values, force=True),
        "compress": compression.compress,
        "decompress": compression.decompress,
        "stored_failure": stored_failure,
    }


if __name__ == "__main__":
    serve(_verbs())
