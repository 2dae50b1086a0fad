"""The last word on a task that was killed, or whose process was lost: its handlers and `task_failure` are told, or
`task_revoked`.

They are code of the app, so they run in a fresh child of the template, after the message was settled: nothing waits for
them, and they may take a minute. What is to be told lies in a file that is taken away before anybody is told: at most
once, and not at all when this host goes down at that moment.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import msgspec

from opsq import _state, signals
from opsq.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from opsq.execution import telling, workflow
from opsq.execution.runner import Runner
from opsq.protocol.envelope import Envelope, parse
from opsq.worker.terms import Known

logger = logging.getLogger("opsq.worker")

#: How long handlers may take (seconds).
PATIENCE_S = 60
#: After this time it is too late to tell (seconds).
AGE_S = 86_400
_KINDS = {kind.__name__: kind for kind in (TimeLimitExceeded, WorkerLostError, Terminated)}


def wanted(runner: Runner, message: Envelope, error: BaseException) -> bool:
    """Whether anybody would be told."""
    plan = runner.plan(message.headers.task)
    if plan is None:
        return False
    if isinstance(plan.task, Known):  # its code is in the template, which then looks
        return True
    if isinstance(error, Terminated):
        return bool(signals.task_revoked.receivers)
    heard = {"on_failure", "after_return"} & plan.handlers
    if signals.task_failure.receivers or heard or plan.request_class is not None:
        return True
    errbacks = runner.request_of(message, plan).errbacks or ()
    return any(workflow.runs_inline(errback, runner.tasks) for errback in errbacks)


def write(folder: Path, raw: bytes, error: BaseException) -> Path:
    """Write down what is to be told: the message and its error."""
    return write_new(folder, ".epilogue", msgspec.msgpack.encode((raw, type(error).__name__, error.args)))


def write_new(folder: Path, suffix: str, data: bytes) -> Path:
    """A new file that nobody else may read."""
    path = folder / f"{os.urandom(8).hex()}{suffix}"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return path


def forget_old(folder: Path) -> None:
    """Take away what nobody has told for a day."""
    for path in (*folder.glob("*.epilogue"), *folder.glob("*.chord")):
        try:
            if time.time() - path.stat().st_mtime > AGE_S:
                path.unlink()
        except FileNotFoundError:  # another worker did it
            pass


def tell(path: Path, runner: Runner) -> None:
    """In the fresh child: take what was written down, and tell."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE_S)
    data = path.read_bytes()
    path.unlink()
    raw, kind, arguments = msgspec.msgpack.decode(data)
    error = _KINDS[kind](*arguments)
    message = parse(raw)
    plan = runner.plan(message.headers.task)
    if plan is None:
        return
    request = runner.request_of(message, plan)
    token = _state.push_request(request)
    try:
        if isinstance(error, Terminated):
            telling.revoked(plan, request, False, error.args[0])
        else:
            telling.failed(plan, request, error, request.args or [], request.kwargs or {})
            workflow.call_errbacks(runner.tasks, request, error, None)
    finally:
        _state.pop_request(token)
