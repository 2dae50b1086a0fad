"""The limits that tasks and settings say, read and checked; and the keys by which messages of a task are told apart."""

from __future__ import annotations

import hashlib
import inspect
import logging
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsq.app.signatures import by_name
from opsq.broker.limits import BAR, Circuit, Limits, rate_per_second
from opsq.exceptions import ImproperlyConfigured

logger = logging.getLogger("opsq.worker")

#: The longest key that is used as it is; of a longer one its beginning and its hash.
KEY_LENGTH = 64
SCOPES = ("worker", "cluster")
#: Of a built-in function that does not tell its parameters: any.
_NONE_TOLD = inspect.signature(lambda *_args, **_kwargs: None)


@dataclass(frozen=True, slots=True)
class Said:
    """What a task says of its limits; a key in words, None where it has none."""

    limits: Limits
    rate_key: str | None = None
    places_key: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are used, in words."""
        pairs = ((self.limits.rate, self.rate_key), (self.limits.places, self.places_key))
        return tuple(key for limit, key in pairs if limit and key is not None)


@dataclass(frozen=True, slots=True)
class Ruling:
    """All limits of an app, as plain data.

    `own`: of each task, limited or not, whether its rate counts for each worker alone; `no_rates`: the setting
    `worker_disable_rate_limits`; `made`: when it was read (monotonic seconds of this host): of two the newer one
    counts for what waits.
    """

    tasks: dict[str, Said]
    queues: dict[str, Limits]
    own: dict[str, bool]
    no_rates: bool = False
    made: float = 0.0

    @classmethod
    def read(cls, tasks: Mapping[str, Any], queue_limits: Mapping[str, Any] | None, no_rates: bool = False) -> Ruling:
        """`queue_limits`: as the setting has them. Raises ImproperlyConfigured."""
        said = {name: found for name, task in tasks.items() if (found := _of_task(task))}
        queues = {name: _of_queue(name, wish) for name, wish in (queue_limits or {}).items()}
        return cls(said, queues, {name: _is_own(task) for name, task in tasks.items()}, no_rates, time.monotonic())


def limits_differ(old: Ruling, new: Ruling) -> set[str]:
    """The tasks and queues that both know, and whose limits are others now."""
    tasks = {name for name in old.own.keys() & new.own.keys() if old.tasks.get(name) != new.tasks.get(name)}
    queues = {name for name in old.queues.keys() | new.queues.keys() if old.queues.get(name) != new.queues.get(name)}
    return tasks | {f"the queue {name}" for name in queues}


def keys_of(tasks: Mapping[str, Any], said: Said, name: str) -> list[Key]:
    """The keys of a task that are used, in the order of `Said.keys`."""
    task = tasks[name]
    found = []
    if said.limits.rate and said.rate_key is not None:
        found.append(Key(task, "rate_limit_key", task.rate_limit_key))
    if said.limits.places and said.places_key is not None:
        found.append(Key(task, "concurrency_key", task.concurrency_key))
    return found


class Key:
    """What messages of a task are told apart by: a text with the names of its arguments in braces, or a function."""

    def __init__(self, task: Any, option: str, wish: Any) -> None:
        self._task, self._option, self._wish = task.name, option, wish
        self._parameters = task.parameters or _NONE_TOLD
        self._told = False
        if not callable(wish):
            self._check()

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The key of a call; "?" for one that has none."""
        try:
            found = self._wish(*args, **kwargs) if callable(self._wish) else self._formatted(args, kwargs)
        except Exception as error:  # code and arguments of the app
            if not self._told:
                logger.error("%s of %s cannot be told: %s: %s", self._option, self._task, type(error).__name__, error)
            self._told = True
            return "?"
        return _as_key(str(found))

    def _formatted(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        return str(self._wish).format(*args, **by_name(self._parameters, args, kwargs))

    def _check(self) -> None:
        wrong = f"cannot use {self._option} = {self._wish!r} of the task {self._task}"
        if not isinstance(self._wish, str):
            raise ImproperlyConfigured(wrong, why="it is neither a text nor a function")
        parameters = self._parameters.parameters
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
            return
        try:
            names = [name for _text, name, _spec, _how in string.Formatter().parse(self._wish) if name is not None]
        except ValueError as error:
            raise ImproperlyConfigured(wrong, why=str(error)) from None
        for name in names:
            first = name.partition(".")[0].partition("[")[0]
            if first and not first.isdigit() and first not in parameters:
                raise ImproperlyConfigured(wrong, why=f"the task has no argument {first!r}")


def _in_words(key: Any) -> str | None:
    return getattr(key, "__name__", repr(key)) if callable(key) else key


def _of_task(task: Any) -> Said | None:
    where = f"of the task {task.name}"
    for option in ("rate_limit_key", "concurrency_key"):
        if getattr(task, option) is not None:
            Key(task, option, getattr(task, option))
    limits = Limits(
        rate=_rate(task.rate_limit, where),
        own=_is_own(task),
        places=_places(task.max_concurrency, where),
        circuit=_circuit(task.circuit_breaker, where),
    )
    if limits and BAR in task.name:
        raise ImproperlyConfigured(f"cannot limit the task {task.name}", why=f"its name has {BAR!r} in it")
    return Said(limits, _in_words(task.rate_limit_key), _in_words(task.concurrency_key)) if limits else None


def _is_own(task: Any) -> bool:
    return _scope(task) == "worker" and task.rate_limit_key is None


def _of_queue(name: str, wish: Any) -> Limits:
    where = f"in queue_limits of {name}"
    if not isinstance(wish, Mapping) or set(wish) - {"rate_limit", "max_concurrency"}:
        why = "a queue has rate_limit and max_concurrency"
        raise ImproperlyConfigured(f"cannot use {wish!r} {where}", why=why)
    return Limits(rate=_rate(wish.get("rate_limit"), where), places=_places(wish.get("max_concurrency"), where))


def _scope(task: Any) -> str:
    scope = task.rate_limit_scope
    if scope not in SCOPES:
        what = f"cannot use rate_limit_scope = {scope!r} of the task {task.name}"
        raise ImproperlyConfigured(what, why='it is "worker" or "cluster"')
    return str(scope)


def _rate(said: Any, where: str) -> float:
    try:
        return rate_per_second(said)
    except (ValueError, TypeError):
        what = f"cannot use rate_limit = {said!r} {where}"
        raise ImproperlyConfigured(what, why='a rate is "100/s", "10/m", "1/h" or a number a second') from None


def _places(said: Any, where: str) -> int:
    if said is None:
        return 0
    if isinstance(said, bool) or not isinstance(said, int) or said < 0:
        raise ImproperlyConfigured(f"cannot use max_concurrency = {said!r} {where}", why="it is no whole number")
    return said


def _circuit(said: Any, where: str) -> Circuit | None:
    if not said:
        return None
    wish = said if isinstance(said, Mapping) else {"fail_max": said}
    known = {"fail_max": 5, "reset_timeout": 30.0, "reset_timeout_max": 600.0}
    values = {**known, **wish}
    wrong = set(wish) - set(known) or [
        name for name, value in values.items() if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    if wrong or not all(value > 0 for value in values.values()):
        why = "it is a number of failures, or fail_max, reset_timeout, reset_timeout_max (seconds)"
        raise ImproperlyConfigured(f"cannot use circuit_breaker = {said!r} {where}", why=why)
    return Circuit(int(values["fail_max"]), float(values["reset_timeout"]), float(values["reset_timeout_max"]))


def _as_key(text: str) -> str:
    text = text.encode(errors="replace").decode().replace(BAR, "/")
    if len(text) > KEY_LENGTH:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]
        text = f"{text[: KEY_LENGTH - 17]}~{digest}"
    return text
