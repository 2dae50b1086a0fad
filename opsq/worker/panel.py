"""The table of remote commands: name -> function. What they do: `control`, `inspection`; how they come: `remote`.

As in Celery, a function is added by a decorator and takes the state of the worker first, then the command's arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, overload

from opsq.datastore.connection import client
from opsq.worker import slots
from opsq.worker.commanded import AtOnce, OneChild

if TYPE_CHECKING:
    import redis

    from opsq.worker.calls import Calls
    from opsq.worker.children import Children
    from opsq.worker.leases import Leases
    from opsq.worker.pulse import Pulse
    from opsq.worker.record import Plan, Record
    from opsq.worker.sizing import Sizing

Function = Callable[..., Any]

#: What a command returns that gives no reply.
NO_REPLY = object()
#: How long a command waits for the parent to have done something (seconds): it answers whatever it is about.
PARENT_S = 5.0


class Info(NamedTuple):
    """What is known of a command (Celery's fields): for help, and for how its words on a command line are read."""

    alias: str | None
    type: str
    visible: bool
    default_timeout: float
    help: str
    signature: str | None
    args: list[tuple[str, Callable[[str], Any]]] | None
    variadic: str | None


class Panel:
    """All commands by name, aliases too."""

    data: dict[str, Function] = {}
    meta: dict[str, Info] = {}

    @classmethod
    def register(cls, function: Function | None = None, /, **options: Any) -> Any:
        """Add a function as a command: `@Panel.register` or `@Panel.register(type="inspect", ...)`."""
        if function is not None:
            return cls._add(function, **options)
        return lambda function: cls._add(function, **options)

    @classmethod
    def _add(
        cls,
        function: Function,
        name: str | None = None,
        alias: str | None = None,
        type: str = "control",
        visible: bool = True,
        default_timeout: float = 1.0,
        help: str | None = None,
        signature: str | None = None,
        args: list[tuple[str, Callable[[str], Any]]] | None = None,
        variadic: str | None = None,
    ) -> Function:
        name = name or function.__name__
        told = help or (function.__doc__ or "").strip().partition("\n")[0]
        cls.data[name] = function
        cls.meta[name] = Info(alias, type, visible, default_timeout, told, signature, args, variadic)
        if alias:
            cls.data[alias] = function
        return function


@overload
def control_command(function: Function, /) -> Function: ...
@overload
def control_command(**options: Any) -> Callable[[Function], Function]: ...
def control_command(function: Function | None = None, /, **options: Any) -> Any:
    """Add a command that changes something."""
    return Panel.register(function, type="control", **options)


@overload
def inspect_command(function: Function, /) -> Function: ...
@overload
def inspect_command(**options: Any) -> Callable[[Function], Function]: ...
def inspect_command(function: Function | None = None, /, **options: Any) -> Any:
    """Add a command that asks something."""
    return Panel.register(function, type="inspect", **options)


class Commanded(Protocol):
    """What commands may ask of any worker; the last two in its parent's thread."""

    app: Any
    hostname: str
    plan: Plan

    def set_time_limits(self, task: str, soft_s: float | None, hard_s: float | None) -> None:
        """Limits of all later runs of a task (seconds, None = none)."""

    def ask_to_stop(self, how: str) -> None:
        """Stop: `warm` or `cold`."""


class Parent(Commanded, Protocol):
    """What they may ask of one that has children besides; in its own thread, but for the queues."""

    sizing: Sizing

    @property
    def wanted_queues(self) -> list[str]:
        """The queues that it consumes, or will when what it was told has taken effect."""

    def reload(self) -> None:
        """Today's code and settings."""

    def consume(self, queue: str, wanted: bool) -> None:
        """Consume a queue besides, or no more."""


@dataclass(frozen=True, slots=True)
class State:
    """What a command is called with. It runs in a thread of its own: what belongs to the parent or to the thread of the
    leases is done there (`in_parent`, `in_lease_thread`), and answered before it is done.

    `accept`: content types that may be read.
    """

    worker: Commanded
    leases: Leases
    pulse: Pulse
    record: Record
    children: Children | OneChild
    calls: Calls | AtOnce
    accept: frozenset[str]

    @property
    def parent(self) -> Parent | None:
        """The worker, where it has children that can be replaced; None where it is one process."""
        return None if isinstance(self.children, OneChild) else cast("Parent", self.worker)

    @property
    def app(self) -> Any:
        """The app."""
        return self.worker.app

    @property
    def hostname(self) -> str:
        """The node name."""
        return self.worker.hostname

    @property
    def redis(self) -> redis.Redis:
        """A client of the broker."""
        return client(self.leases.post.url)

    def key(self, name: str) -> str:
        """A key's name with the global prefix."""
        return self.leases.post.key_prefix + name

    def in_parent(self, order: Callable[[], None]) -> None:
        """Have the worker's parent do something, soon."""
        self.calls.post(order)

    def wait_for_parent(self, order: Callable[[], None]) -> None:
        """Have the worker's parent do something, and wait until it is done: what is answered then holds."""
        done = threading.Event()

        def carry_out() -> None:
            order()
            done.set()

        self.calls.post(carry_out)
        done.wait(PARENT_S)

    def in_lease_thread(self, job: Callable[[], None]) -> None:
        """Have the thread of the leases do something, soon."""
        self.leases.submit(job)

    def tick(self, clock: int = 0) -> int:
        """The Lamport clock moves on, past another one's."""
        words = self.leases.table.words
        words[slots.CLOCK] = now = max(int(words[slots.CLOCK]), clock) + 1
        return now


def ok(value: Any) -> Mapping[str, Any]:
    """An answer that says that it went well."""
    return {"ok": value}


def nok(value: Any) -> Mapping[str, Any]:
    """An answer that says that it did not."""
    return {"error": value}
