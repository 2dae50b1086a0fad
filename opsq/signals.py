"""Signals: something happens, those who connected are told. Their names and arguments are Celery's.

A receiver that raises is logged and does not disturb the others. Who sends checks `receivers` first, so that a signal
without receivers costs nothing.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from opsq import _state

logger = logging.getLogger("opsq.signals")

Receiver = Callable[..., Any]

#: Whether anybody listens to a signal that is sent around each run of a task: asked once a run, not once a signal.
around_runs = False
#: The same for what is sent around each call.
around_calls = False


class Signal:
    """One kind of event; `receivers` is empty when nobody listens."""

    def __init__(self, providing_args: Iterable[str] | None = None, use_caching: bool = False, name: str = "") -> None:
        """`providing_args`: the names of what receivers are told, for who reads it; `use_caching` is Celery's."""
        self.name, self.providing_args, self.use_caching = name, frozenset(providing_args or ()), use_caching
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
        mine = (None, _sender_key(sender))
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

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether somebody would be told of what this sender sends."""
        mine = (None, _sender_key(sender))
        return any(wanted in mine and reference() is not None for _key, wanted, reference in self.receivers)

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"


def _identity(receiver: Any) -> Any:
    function = getattr(receiver, "__func__", None)
    return (id(receiver.__self__), id(function)) if function is not None else id(receiver)


def _sender_key(sender: Any) -> Any:
    """Tasks go by their names: the same one is another object in each app, and a shared one in none."""
    if sender is None or isinstance(sender, str):
        return sender
    if isinstance(sender, _state.Proxy):
        sender = sender._get_current_object()
    name = getattr(sender, "name", None)
    return name if name and hasattr(sender, "apply_async") else id(sender)


def _reference(receiver: Any) -> Callable[[], Receiver | None]:
    return weakref.WeakMethod(receiver) if hasattr(receiver, "__func__") else weakref.ref(receiver)


def _signal(name: str, *arguments: str) -> Signal:
    return Signal(arguments, name=name)


#: Tasks, where they are sent.
before_task_publish = _signal(
    "before_task_publish",
    *("body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"),
)
after_task_publish = _signal("after_task_publish", "body", "exchange", "routing_key", "headers")
#: Celery's old name of `after_task_publish`, with other arguments.
task_sent = _signal("task_sent", "task_id", "task", "args", "kwargs", "eta", "taskset")

#: Tasks, where they run.
task_received = _signal("task_received", "request")
task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
#: `runtime`: seconds.
task_success = _signal("task_success", "result", "runtime")
task_failure = _signal("task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_unknown = _signal("task_unknown", "message", "exc", "name", "id")
task_revoked = _signal("task_revoked", "request", "terminated", "signum", "expired")
#: A message that cannot be taken for a task: `message` is its envelope, or its bytes if it cannot be read.
task_rejected = _signal("task_rejected", "message", "exc")
task_internal_error = _signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"
)

#: The worker. `options`: the flags of its command.
celeryd_init = _signal("celeryd_init", "instance", "conf", "options")
celeryd_after_setup = _signal("celeryd_after_setup", "instance", "conf")
import_modules = _signal("import_modules")
worker_init = _signal("worker_init")
#: In the process that is about to fork one that runs tasks.
worker_before_create_process = _signal("worker_before_create_process")
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown", "pid", "exitcode")
worker_ready = _signal("worker_ready")
#: `sig`: the name of the signal, `how`: Warm or Cold.
worker_shutting_down = _signal("worker_shutting_down", "sig", "how", "exitcode")
worker_shutdown = _signal("worker_shutdown")
#: Redis has taken a sign of life of this worker.
heartbeat_sent = _signal("heartbeat_sent")

#: The pool `eventlet`.
eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target", "args", "kwargs")

#: The beat.
beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")

#: Logs.
setup_logging = _signal("setup_logging", "loglevel", "logfile", "format", "colorize")
after_setup_logger = _signal("after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize")
after_setup_task_logger = _signal("after_setup_task_logger", "logger", "loglevel", "logfile", "format", "colorize")

#: Commands that take an app.
user_preload_options = _signal("user_preload_options", "app", "options")

_AROUND_RUNS = (task_received, task_prerun, task_postrun, task_success, task_failure, task_retry)
_AROUND_CALLS = (before_task_publish, after_task_publish, task_sent)


def _look_who_listens() -> None:
    global around_runs, around_calls
    around_runs = any(signal.receivers for signal in _AROUND_RUNS)
    around_calls = any(signal.receivers for signal in _AROUND_CALLS)
