"""Every error there is: Celery's names and bases first, then opsq's own. Each class says whose fault it is.

An `OpsqError` that reaches a user is one line, "what: why", and a hint that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """A hint for a name that does not exist: the nearest three that do, or something else when none is near.

    Names are written as a shell takes them. `cutoff`: how alike they have to be (difflib's ratio).
    """
    import difflib  # these cost more than the rest of this module, and are wanted after a mistake only
    import shlex

    near = difflib.get_close_matches(name, list(known), 3, cutoff)
    return f"did you mean {' or '.join(map(shlex.quote, near))}?" if near else otherwise


class OpsqError(Exception):
    """The root of all errors of opsq (`CeleryError` is the same class).

    `what` could not be done, `why`, and `hint`: what to do about it. Celery's classes are also
    raised with arguments of their own, which `args` keeps.
    """

    why: str = ""
    hint: str = ""

    def __init__(self, *args: Any, why: str = "", hint: str = "") -> None:
        super().__init__(*args)
        if why:
            self.why = why
        if hint:
            self.hint = hint

    @property
    def what(self) -> str:
        """The sentence without its reason and its hint."""
        return Exception.__str__(self)

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


CeleryError = OpsqError


class UsageError(OpsqError):
    """The user asked for something that does not exist or makes no sense (exit code 2)."""


class ImproperlyConfigured(OpsqError):
    """A setting, a file or an app is wrong (exit code 2)."""


class BrokerError(OpsqError):
    """Redis, or the place of results, cannot be reached, or refused what it was asked (exit code 3)."""


class OperationalError(BrokerError):
    """A publish failed for good; Celery's (kombu's) name for what a caller of `delay` catches.

    `sent`: how many calls of a `send_many`, from the first one on, had gone before; of the others nothing is promised.
    """

    sent: int = 0


class QueueFull(OperationalError):
    """A queue that is limited in length takes no more, or took none for as long as the sender waits."""


class SupervisorError(OpsqError):
    """The supervisor cannot be reached, or refused what it was asked (exit code 3)."""


class HostsError(OpsqError):
    """No host can be reached, or none that was asked has answered (exit code 3)."""


class RefusedError(OpsqError):
    """Permission, policy or signature forbids it (exit code 4)."""


class SecurityError(OpsqError):
    """A signature or a certificate is wrong."""


class ContentDisallowed(OpsqError):
    """The message's content type is not among the accepted ones."""


class EncodeError(OpsqError, ValueError):
    """A value of ours cannot be written by the serializer."""


class DecodeError(OpsqError, ValueError):
    """Bytes of theirs cannot be read; the message goes to the dead letters."""


class TaskPredicate(OpsqError):
    """Raised inside a task to say something about it, not because it failed."""


class Retry(TaskPredicate):
    """The task is to be run again later.

    `call` says how, when it differs from this run: `args`, `kwargs` and options of `apply_async`.
    """

    call: Mapping[str, Any] = {}

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: Any = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        if isinstance(exc, str):
            self.exc: BaseException | None = None
            self.excs: str | None = exc
        else:
            self.exc, self.excs = exc, repr(exc) if exc is not None else None
        self.when, self.is_eager, self.sig = when, is_eager, sig
        super().__init__(exc, when, **kwargs)

    def humanize(self) -> str:
        """When it is tried again, in Celery's words ("in 1s" or "at TIME")."""
        if isinstance(self.when, int | float):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.message, self.exc, self.when)


class Ignore(TaskPredicate):
    """The task's state is not to be touched any more."""


class Reject(TaskPredicate):
    """The message is to be rejected: to the dead letters, or with `requeue` back to its queue."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason, self.requeue = reason, requeue
        super().__init__(reason, requeue)

    def __str__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"

    __repr__ = __str__  # as in Celery: handlers and errbacks write it down


class TaskError(OpsqError):
    """The root of what can be wrong with a task."""


class QueueNotFound(KeyError, TaskError):
    """A call goes to a queue that is not in `task_queues`, or to an exchange that no queue is bound to with its key."""

    # A KeyError would take no reason, and show itself in quotes.
    __init__ = TaskError.__init__
    __str__ = TaskError.__str__


class IncompleteStream(TaskError):
    """The end of a stream of data was not there."""


class NotRegistered(KeyError, TaskError):
    """No task of this name is known here."""

    def __repr__(self) -> str:
        return f"NotRegistered({self.args[0] if self.args else ''!r})"

    def __str__(self) -> str:
        return repr(self.args[0]) if self.args else ""


class AlreadyRegistered(TaskError):
    """A task of this name exists already."""


class TimeoutError(TaskError):  # Celery's public name
    """The result did not come in time."""


class MaxRetriesExceededError(TaskError):
    """The task has been retried as often as it may be."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The task was revoked, terminated or has expired; its result says so."""


class InvalidTaskError(TaskError):
    """A message is no valid task."""


class ChordError(TaskError):
    """A part of a chord failed."""


class WorkerLostError(Exception):
    """The process that ran the task has gone."""


class Terminated(Exception):
    """The process that ran the task was ended on request."""


class TimeLimitExceeded(Exception):
    """The hard time limit (seconds) has passed and the task was killed."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args!s}"


class SoftTimeLimitExceeded(Exception):
    """Raised inside a task when its soft time limit has passed; the task may clean up."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args!s}"


class BackendError(OpsqError):
    """The result backend failed."""


class BackendGetMetaError(BackendError):
    """A result could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.pop("task_id", "")
        super().__init__(*args, **kwargs)


class BackendStoreError(BackendError):
    """A result could not be written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.pop("state", "")
        self.task_id = kwargs.pop("task_id", "")
        super().__init__(*args, **kwargs)


class CeleryWarning(UserWarning):
    """The root of all warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """`send_task` does not care for `task_always_eager`."""


class DuplicateNodenameWarning(CeleryWarning):
    """Several workers go by the same node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two functions are tasks of one name."""


class SecurityWarning(CeleryWarning):
    """Something is open that should not be."""


class FixupWarning(CeleryWarning):
    """A framework's settings could not be adapted."""


class NotConfigured(CeleryWarning):
    """Celery found no configuration."""


class CDeprecationWarning(DeprecationWarning):
    """Something will not be there any more in a later version."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Something will be discouraged in a later version."""


class WorkerTerminate(SystemExit):
    """The worker is to end at once."""


class WorkerShutdown(SystemExit):
    """The worker is to end when what runs has ended."""
