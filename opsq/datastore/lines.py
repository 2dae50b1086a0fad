"""Lines for threads that ask now and then: a third of the cost of taking a connection from a pool for each command."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from opsq.datastore.line import Line
from opsq.datastore.trouble import RedisError, ResponseError


class Lines:
    """One line for each thread of a process, made when it is first needed."""

    def __init__(self, url: str) -> None:
        self._url, self._own = url, threading.local()

    def ask(self, *command: Any) -> Any:
        """One command and its answer. A connection that the server has closed meanwhile is made anew first."""
        line = self._line()
        try:
            return line.ask(*command)
        except ResponseError:
            raise
        except BaseException:  # also an interrupt: its answer must not be taken for the next one's
            self._drop(line)
            raise

    def ask_all(self, commands: Sequence[tuple[Any, ...] | bytes]) -> list[Any]:
        """Commands (packed or not) in one write, and their answers; what the server refuses is an error among them."""
        line = self._line()
        answers: list[Any] = []
        try:
            line.send(*commands)
            while len(answers) < len(commands):
                try:
                    answers.append(line.receive())
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            self._drop(line)
            raise
        return answers

    def _drop(self, line: Line) -> None:
        self._own.__dict__.clear()
        line.close()

    def _line(self) -> Line:
        own = self._own.__dict__
        line: Line | None = own.get("line")
        if line is None or own["pid"] != os.getpid() or _is_stale(line):
            line = Line(self._url, protocol=2)
            line.connect()
            own.update(line=line, pid=os.getpid())
        return line


def _is_stale(line: Line) -> bool:
    """Whether something can be read although nothing was asked: its end, as a rule."""
    try:
        return line.readable(0)
    except (RedisError, OSError):
        return True
