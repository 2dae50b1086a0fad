"""A helper process that answers questions over its pipes, for programs that must not live in the tests' own process."""

from __future__ import annotations

import pickle
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class PeerError(Exception):
    """The helper raised an error; the name of its class is the argument."""


def _send(pipe: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value)
    pipe.write(struct.pack("!I", len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(4)
    return pickle.loads(pipe.read(struct.unpack("!I", head)[0])) if head else None


class Peer:
    """The asking side."""

    def __init__(self, argv: Sequence[str | Path], **options: Any) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)

    def ask(self, verb: str, *values: Any) -> Any:
        """What the function `verb` of the helper returns; PeerError if it raised, or did not answer within a minute."""
        assert self.process.stdin
        assert self.process.stdout
        _send(self.process.stdin, (verb, values))
        if not select.select([self.process.stdout], [], [], 60)[0]:
            self.process.kill()
            raise PeerError(f"{verb}: no answer")
        worked, answer = _receive(self.process.stdout)
        if not worked:
            raise PeerError(answer)
        return answer

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()
        self.process.wait(10)


def serve(verbs: Mapping[str, Callable[..., Any]]) -> None:
    """The answering side: call what is asked for until the asking side closes the pipe."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (question := _receive(source)) is not None:
        verb, values = question
        try:
            answer = (True, verbs[verb](*values))
        except Exception as error:
            answer = (False, type(error).__name__)
        _send(sink, answer)
