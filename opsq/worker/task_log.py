"""What tasks log and print, kept in Redis line by line (`opsq logs --task`): a log handler, and a thread that writes.

A task never waits for it: lines are put aside, and written together some times a second. Of a child that is killed the
last ones are lost; so are the oldest ones when more is logged than it may write.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque

from opsq import _state
from opsq.broker import task_logs
from opsq.broker.task_logs import LogLine
from opsq.datastore.connection import client
from opsq.datastore.trouble import RedisError
from opsq.exceptions import OpsqError

logger = logging.getLogger("opsq.worker")

#: How long lines are gathered before they are written (seconds).
GATHER_S = 0.2
#: The most lines that wait to be written, and the most tasks whose lines are written at a time: at most a few percent
#: of a server's time.
WAITING = 2000
TASKS = 200
#: How many tasks are written in one step: a server does nothing else meanwhile.
STEP = 25
#: How long the end of a child waits for its last lines to be written (seconds).
LAST_S = 1.0
#: The loggers of tasks, besides the root, that hand nothing on to it.
_LOGGERS = ("celery.task", "celery.redirected")


class TaskLog(logging.Handler):
    """The lines of one child. Nothing is opened or started before a task logs something."""

    def __init__(self, url: str, key_prefix: str, most_bytes: int) -> None:
        """`most_bytes`: what the lines of all tasks may take in Redis together."""
        super().__init__()
        self._url, self._key_prefix, self._most_bytes = url, key_prefix, most_bytes
        self._waiting: deque[tuple[str, LogLine]] = deque(maxlen=WAITING)
        self._something, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def install(self) -> None:
        """Hear what is logged in this process from now on."""
        logging.getLogger().addHandler(self)
        for name in _LOGGERS:
            found = logging.getLogger(name)
            if not found.propagate and self not in found.handlers:
                found.addHandler(self)

    def handle(self, record: logging.LogRecord) -> bool:
        """Put a line of a task aside; whatever else is logged is not ours. Needs no lock: a deque is enough."""
        request = _state.first_request()
        task_id = record.__dict__.get("task_id") if request is None else request.id
        if not isinstance(task_id, str) or task_id == "???":
            return False
        self._waiting.append((task_id, LogLine(record.created, record.levelname, _message(record))))
        if not self._something.is_set():
            self._wake()
        return True

    def _wake(self) -> None:
        self._something.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="opsq-task-log", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """This child ends: write what is left, if that takes no longer than a moment."""
        self._ending.set()
        self._something.set()
        if self._thread is not None:
            self._thread.join(LAST_S)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._something.wait()
            self._ending.wait(GATHER_S)
            self._something.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        """Write what waits; when that cannot be done it is let go: lines are no reason to fill a memory."""
        lines: dict[str, bytearray] = {}  # by task, the one that logged first at the front
        for _ in range(len(self._waiting)):
            task_id, line = self._waiting.popleft()
            lines.setdefault(task_id, bytearray()).extend(line.encode())
        latest = list(lines.items())[-TASKS:]
        try:
            for at in range(0, len(latest), STEP):
                chosen = {task_id: bytes(text) for task_id, text in latest[at : at + STEP]}
                task_logs.keep(client(self._url), self._key_prefix, chosen, self._most_bytes)
        except (RedisError, OSError, OpsqError) as error:
            logger.debug("cannot keep the log lines of %d tasks: %s", len(latest), error)


def _message(record: logging.LogRecord) -> str:
    """What was logged, with the traceback if there is one. A message that cannot be made must not hurt its task."""
    try:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}\n{''.join(traceback.format_exception(record.exc_info[1])).rstrip()}"
    except Exception as error:
        return f"{record.msg!s:.1000} (cannot be shown: {error!r})"
    return text
