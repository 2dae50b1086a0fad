"""Log set-up of a process: Celery's line formats, JSON only when asked for, prints of tasks as log lines."""

from __future__ import annotations

import json
import logging
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from opsq._state import running_task

#: Celery's own formats (settings `worker_log_format`, `worker_task_log_format`).
FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"


#: Colours of levels, as Celery has them (of the terminal's eight): blue, yellow, red, magenta.
COLORS = {logging.DEBUG: 34, logging.WARNING: 33, logging.ERROR: 31, logging.CRITICAL: 35}


class Buffered:
    """A text stream that writes at once; while held, in one piece: when `write_out` is called or when it is large."""

    LARGE = 65_536

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._parts, self._size = stream, list[str](), 0
        self._lock = threading.RLock()
        self.held = False

    def write(self, text: str) -> int:
        """Take a piece of text."""
        with self._lock:
            self._parts.append(text)
            self._size += len(text)
            if not self.held or self._size > self.LARGE:
                self.write_out()
        return len(text)

    def flush(self) -> None:
        """What logging calls after each record: nothing is written out while held."""
        if not self.held:
            self.write_out()

    def write_out(self) -> None:
        """Write all that was taken."""
        with self._lock:
            if self._parts:
                text = "".join(self._parts)
                self._parts.clear()
                self._size = 0
                self._stream.write(text)
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor below."""
        return self._stream.fileno()


class TaskFormatter(logging.Formatter):
    """Celery's task format: the name and the id of the running task in each line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with `???` where no task runs."""
        name, task_id = running_task() or ("???", "???")
        record.__dict__.setdefault("task_name", name)
        record.__dict__.setdefault("task_id", task_id)
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (Unix seconds), level, process, message, and the task that runs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "process": record.processName,
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = record.__dict__
        task = (known["task_name"], known["task_id"]) if "task_name" in known else running_task()
        if task:
            line["task_name"], line["task_id"] = task
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class StreamToLog:
    """Standard output and error of tasks: each line a log record (setting `worker_redirect_stdouts`)."""

    encoding = "utf-8"
    errors = "replace"
    mode = "w"
    closed = False

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger, self._level = logger, level
        self._mine = threading.local()
        #: True when there is text without an end of line.
        self.pending = False

    def write(self, text: str) -> int:
        """Log each line that is complete. What logging itself prints while it logs is dropped: no circles."""
        mine = self._mine.__dict__
        if mine.get("busy") or not text:
            return 0
        before = mine.get("part", "")
        whole, newline, rest = (before + text).rpartition("\n")
        mine["part"], self.pending = rest, bool(rest)
        if newline:
            self._log(whole, None)
        if rest and not before:
            mine["task"] = running_task()
        return len(text)

    def _log(self, text: str, task: tuple[str, str] | None) -> None:
        """Each line; `task`: whose it is, when that is not the one that runs."""
        mine = self._mine.__dict__
        mine["busy"] = True
        extra = {"task_name": task[0], "task_id": task[1]} if task else None
        try:
            for line in text.splitlines():
                if line.strip():
                    self._logger.log(self._level, line.rstrip(), extra=extra)
        finally:
            mine["busy"] = False

    def writelines(self, lines: list[str]) -> None:
        """Each of them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what has no end of line yet, as a line of the task that wrote it."""
        mine = self._mine.__dict__
        if not mine.get("busy") and mine.get("part"):
            self.pending = False
            self._log(mine.pop("part"), mine.get("task"))

    def isatty(self) -> bool:
        """Nobody looks at it directly."""
        return False


@dataclass(frozen=True, slots=True)
class Look:
    """How lines look: Celery's formats for what a process and what tasks log, how times are written (None = as Python
    does), whether levels have their colours."""

    format: str = FORMAT
    task_format: str = TASK_FORMAT
    datefmt: str | None = None
    task_datefmt: str | None = None
    color: bool = False

    def formatters(self) -> tuple[logging.Formatter, logging.Formatter]:
        """For the root logger, and for loggers of tasks."""
        plain = logging.Formatter(self.format, self.datefmt)
        task = TaskFormatter(self.task_format, self.task_datefmt)
        return (Colored(plain), Colored(task)) if self.color else (plain, task)


class Colored(logging.Formatter):
    """Lines of another formatter in the colour that Celery gives their level."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The line between two codes of the terminal."""
        line, color = self._inner.format(record), COLORS.get(record.levelno)
        return f"\x1b[1;{color}m{line}\x1b[0m" if color else line


def set_up(
    level: int, look: Look = Look(), *, as_json: bool = False, logfile: str | None = None, hijack_root: bool = True
) -> Buffered:
    """Handlers for the root logger and for task loggers on one buffered stream; returns the stream.

    `hijack_root`: handlers that a program has given to these loggers go; else they stay, and nothing is added beside
    them. What is configured for other loggers (`celery`, a module's own) keeps receiving. Raises OSError.
    """
    buffer = Buffered(_opened(logfile))
    formatters = (JsonFormatter(), JsonFormatter()) if as_json else look.formatters()
    root, task_logger = logging.getLogger(), logging.getLogger("celery.task")
    for logger, formatter in zip((root, task_logger), formatters, strict=True):
        if hijack_root:
            logger.handlers.clear()
        if not logger.handlers:
            handler = logging.StreamHandler(buffer)
            handler.setFormatter(formatter)
            logger.addHandler(handler)
        logger.setLevel(level)
    task_logger.propagate = False
    logging.captureWarnings(True)
    return buffer


def _opened(logfile: str | None) -> TextIO:
    """The file, to be appended to, with the folder that it is in; standard error without one."""
    if not logfile:
        return sys.__stderr__  # type: ignore[return-value]
    Path(logfile).absolute().parent.mkdir(parents=True, exist_ok=True)
    return open(logfile, "a", buffering=1, encoding="utf-8")


def redirect_standard_streams(level: int) -> StreamToLog:
    """Prints become lines of the logger `celery.redirected`, in the task format."""
    logger = logging.getLogger("celery.redirected")
    logger.handlers[:] = logging.getLogger("celery.task").handlers
    logger.propagate = False
    logger.setLevel(level)
    stream = StreamToLog(logger, level)
    sys.stdout = sys.stderr = stream
    return stream


def level_number(name: str | int) -> int:
    """A level by name in any case, or by number. Raises ValueError."""
    if isinstance(name, int):
        return name
    if name.isdigit():
        return int(name)
    number = logging.getLevelNamesMapping().get(name.upper())
    if number is None:
        raise ValueError(f"{name!r} is no log level: use debug, info, warning, error or critical")
    return number
