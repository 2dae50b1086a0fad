"""Signals: something happens, those who connected are told. Their names and arguments are Celery's.

A receiver that raises is logged and does not disturb the others. Who sends checks `receivers` first, so that a signal
without receivers costs nothing.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("opsq.signals")

Receiver = Callable[..., Any]

#: Whether anybody listens to a signal that is sent around each run of a task: asked once a run, not once a signal.
around_runs = False


class Signal:
    """One kind of event; `receivers` is empty when nobody listens."""

    def __init__(self, name: str, arguments: tuple[str, ...] = ()) -> None:
        self.name, self.arguments = name, arguments
        self.receivers: list[tuple[Any, Any, Callable[[], Receiver | None]]] = []

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect a receiver; a decorator with or without arguments.

        `sender` limits it to one sender (or one name of a task), `weak=False` keeps the receiver alive,
        `dispatch_uid` makes a second connection under the same name replace the first.
        """
        if args and callable(args[0]):
            return self._connect(args[0], *args[1:], **kwargs)

        def decorate(receiver: Receiver) -> Receiver:
            return self._connect(receiver, *args, **kwargs)

        return decorate

    def _connect(
        self, receiver: Receiver, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, **_ignored: Any
    ) -> Receiver:
        key = dispatch_uid if dispatch_uid is not None else _identity(receiver)
        self.receivers = [entry for entry in self.receivers if (entry[0], entry[1]) != (key, _sender_key(sender))]
        self.receivers.append((key, _sender_key(sender), _reference(receiver) if weak else lambda: receiver))
        _look_who_listens()
        return receiver

    def disconnect(self, receiver: Receiver | None = None, sender: Any = None, dispatch_uid: Any = None) -> bool:
        """Forget a receiver; true when it was connected."""
        key = dispatch_uid if dispatch_uid is not None else _identity(receiver)
        before = len(self.receivers)
        self.receivers = [entry for entry in self.receivers if (entry[0], entry[1]) != (key, _sender_key(sender))]
        _look_who_listens()
        return len(self.receivers) < before

    def send(self, sender: Any, **named: Any) -> list[tuple[Receiver, Any]]:
        """Tell all receivers of this sender; returns (receiver, its answer or its exception) of each."""
        answers: list[tuple[Receiver, Any]] = []
        mine = (None, _sender_key(sender), getattr(sender, "name", sender))
        for _key, wanted, reference in list(self.receivers):
            receiver = reference()
            if receiver is None or wanted not in mine:
                continue
            try:
                answers.append((receiver, receiver(signal=self, sender=sender, **named)))
            except Exception as error:
                logger.exception("a receiver of the signal %s failed: %r", self.name, receiver)
                answers.append((receiver, error))
        return answers

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"


def _identity(receiver: Any) -> Any:
    function = getattr(receiver, "__func__", None)
    return (id(receiver.__self__), id(function)) if function is not None else id(receiver)


def _sender_key(sender: Any) -> Any:
    return sender if sender is None or isinstance(sender, str) else id(sender)


def _reference(receiver: Any) -> Callable[[], Receiver | None]:
    return weakref.WeakMethod(receiver) if hasattr(receiver, "__func__") else weakref.ref(receiver)


before_task_publish = Signal("before_task_publish", ("body", "exchange", "routing_key", "headers", "properties"))
after_task_publish = Signal("after_task_publish", ("body", "exchange", "routing_key"))
task_received = Signal("task_received", ("request",))
task_prerun = Signal("task_prerun", ("task_id", "task", "args", "kwargs"))
task_postrun = Signal("task_postrun", ("task_id", "task", "args", "kwargs", "retval"))
task_success = Signal("task_success", ("result",))
task_failure = Signal("task_failure", ("task_id", "exception", "args", "kwargs", "traceback", "einfo"))
task_retry = Signal("task_retry", ("request", "reason", "einfo"))
task_unknown = Signal("task_unknown", ("message", "exc", "name", "id"))
task_revoked = Signal("task_revoked", ("request", "terminated", "signum", "expired"))
#: A message that cannot be taken for a task: `message` is its envelope, or its bytes if it cannot be read.
task_rejected = Signal("task_rejected", ("message", "exc"))
task_internal_error = Signal(
    "task_internal_error", ("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo")
)
worker_init = Signal("worker_init")
worker_ready = Signal("worker_ready")
worker_process_init = Signal("worker_process_init")
worker_process_shutdown = Signal("worker_process_shutdown")
worker_shutting_down = Signal("worker_shutting_down")
worker_shutdown = Signal("worker_shutdown")
beat_init = Signal("beat_init")
beat_embedded_init = Signal("beat_embedded_init")
celeryd_init = Signal("celeryd_init", ("instance", "conf", "options"))
celeryd_after_setup = Signal("celeryd_after_setup", ("instance", "conf"))
setup_logging = Signal("setup_logging", ("loglevel", "logfile", "format", "colorize"))
after_setup_logger = Signal("after_setup_logger", ("logger", "loglevel", "logfile", "format", "colorize"))
after_setup_task_logger = Signal("after_setup_task_logger", ("logger", "loglevel", "logfile", "format", "colorize"))
import_modules = Signal("import_modules")

_AROUND_RUNS = (task_received, task_prerun, task_postrun, task_success, task_failure, task_retry)


def _look_who_listens() -> None:
    global around_runs
    around_runs = any(signal.receivers for signal in _AROUND_RUNS)
