"""The pools there are, and what those that run many tasks in one process have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from opsq.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class Pool:
    """A kind of pool. `many`: one process runs many tasks; `library`: what it needs installed; `size`: how many at once
    when nobody says it, 0 = as many as there are CPUs.
    """

    name: str
    many: bool = False
    library: str = ""
    size: int = 0


POOLS = {
    pool.name: pool
    for pool in (
        Pool("prefork"),
        Pool("solo", size=1),
        Pool("threads", many=True),
        Pool("asyncio", many=True, size=100),
        Pool("gevent", many=True, library="gevent"),
        Pool("eventlet", many=True, library="eventlet"),
    )
}
#: Other names of theirs: Celery's, and short ones.
ALIASES = {"processes": "prefork", "thread": "threads", "aio": "asyncio"}


def pool_named(name: str) -> Pool:
    """A pool by its name, an alias, or the path of Celery's class. Raises ImproperlyConfigured."""
    short = name
    if name.startswith("celery.concurrency."):
        short = name.removeprefix("celery.concurrency.").partition(":")[0].partition(".")[0]
    if name == "custom" and (wanted := os.environ.get("CELERY_CUSTOM_WORKER_POOL")):
        return pool_named(wanted)
    pool = POOLS.get(ALIASES.get(short, short))
    if pool is None:
        raise ImproperlyConfigured(f"there is no pool {name!r}", why=f"the pools are {', '.join(POOLS)}")
    return pool


class Interrupts(Protocol):
    """Raises an error inside code that runs somewhere else, as far as that can be done."""

    def interrupt(self, job: Any, error: type[BaseException]) -> None:
        """Raise it in the code of this job, if that still runs there."""


class HardLimit(BaseException):
    """The hard time limit of a task has passed; not an Exception, so that no task takes it for one of its own."""


class Job(Protocol):
    """Something that is run; `place` is where."""

    place: Interrupts
    #: What is to be raised in place of HardLimit, and of a value that comes after it.
    verdict: BaseException | None

    @property
    def is_coroutine(self) -> bool:
        """Whether it can be run in a loop; known once it has begun."""


class Work(Protocol):
    """What an executor runs, from any of its threads. Nothing of this raises what a job raises."""

    @property
    def begins_slowly(self) -> bool:
        """Whether something is waited for, maybe for long, when a job begins."""

    def take(self) -> Any:
        """The next job, in its turn; None when there is none."""

    def begin(self, job: Any) -> bool:
        """A job that was taken begins, none of its own code yet; false when that was all."""

    def finish(self, job: Any) -> None:
        """Run it to its end, here."""

    def run(self, job: Any) -> None:
        """Begin it and run it to its end, here."""

    def run_in_loop(self, job: Any) -> Coroutine[Any, Any, None]:
        """What runs it to its end in a loop, if it is a coroutine."""

    def ended(self) -> None:
        """Nothing was found, or one has ended that was waited for."""


class Executor(Protocol):
    """Runs jobs, several at once. It asks for them itself, since they must be taken in their order."""

    def call(self, count: int = 1) -> bool:
        """Have so many more runners look for jobs; false when there are no more."""

    @property
    def awake(self) -> int:
        """Runners that run something or look for it."""

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a task, made so that it can be interrupted where it runs."""

    def serve(self, work: Callable[[], None]) -> None:
        """Do the work of the process (not a job) until it ends."""

    def end(self) -> None:
        """No more jobs come."""
