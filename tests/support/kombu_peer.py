"""The real kombu in a process of its own, asked over pipes: what it writes, and what it reads.

Run by the interpreter of the Celery environment, this file is the answering side.
"""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


class KombuError(Exception):
    """kombu raised an error; its class's name is the argument."""


def _send(pipe: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value)
    pipe.write(struct.pack("!I", len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(4)
    return pickle.loads(pipe.read(struct.unpack("!I", head)[0])) if head else None


class Kombu:
    """The asking side."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen([python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _ask(self, verb: str, *values: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        _send(self.process.stdin, (verb, values))
        worked, answer = _receive(self.process.stdout)
        if not worked:
            raise KombuError(answer)
        return answer

    def dumps(self, value: Any) -> str:
        """kombu's JSON of a value."""
        answer: str = self._ask("dumps", value)
        return answer

    def loads(self, data: bytes | str) -> Any:
        """The value that kombu reads from JSON."""
        return self._ask("loads", data)

    def encode(self, value: Any, serializer: str) -> tuple[str, str, bytes]:
        """What kombu's registry of serializers makes of a value."""
        answer: tuple[str, str, bytes] = self._ask("encode", value, serializer)
        return answer

    def decode(self, data: bytes, content_type: str, content_encoding: str) -> Any:
        """What kombu's registry of serializers reads, accepting everything."""
        return self._ask("decode", data, content_type, content_encoding)

    def compress(self, data: bytes, name: str) -> tuple[bytes, str]:
        answer: tuple[bytes, str] = self._ask("compress", data, name)
        return answer

    def decompress(self, data: bytes, name: str) -> bytes:
        answer: bytes = self._ask("decompress", data, name)
        return answer

    def stored_failure(self, error: BaseException) -> dict[str, Any]:
        """What Celery's Redis backend stores of an exception."""
        answer: dict[str, Any] = self._ask("stored_failure", error)
        return answer

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()
        self.process.wait(10)


def _verbs() -> dict[str, Callable[..., Any]]:
    from celery import Celery
    from kombu import compression, serialization
    from kombu.utils import json

    def stored_failure(error: BaseException) -> Any:
        backend = Celery(backend="redis://localhost").backend
        return json.loads(backend.encode(backend.prepare_exception(error)))

    return {
        "dumps": json.dumps,
        "loads": json.loads,
        "encode": serialization.dumps,
        "decode": lambda *values: serialization.loads(*values, force=True),
        "compress": compression.compress,
        "decompress": compression.decompress,
        "stored_failure": stored_failure,
    }


def _serve() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # for support.odd_values
    verbs = _verbs()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (question := _receive(source)) is not None:
        verb, values = question
        try:
            answer = (True, verbs[verb](*values))
        except Exception as error:
            answer = (False, type(error).__name__)
        _send(sink, answer)


if __name__ == "__main__":
    _serve()
