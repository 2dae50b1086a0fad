"""Which limits messages are under: of their tasks, by the settings, by key, and of their queues."""

from __future__ import annotations

import hashlib
import inspect
import logging
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opsq.broker.limits import BAR, QUEUE_LANE, Circuit, Gate, Limits, is_rate, lane_facts, rate_per_second
from opsq.datastore.keys import PRIORITIES, Priorities
from opsq.exceptions import ContentDisallowed, DecodeError, ImproperlyConfigured
from opsq.protocol.envelope import Envelope

logger = logging.getLogger("opsq.worker")

#: The longest key that is used as it is; of a longer one its beginning and its hash.
KEY_LENGTH = 64
SCOPES = ("worker", "cluster")
#: How many lanes are remembered with their facts.
_REMEMBERED = 1000


class Key:
    """What messages of a task are told apart by: a text with the names of its arguments in braces, or a function."""

    def __init__(self, task: Any, option: str, wish: Any) -> None:
        self._task, self._option, self._wish = task.name, option, wish
        self._signature = _signature(task)
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
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = dict(bound.arguments)
        for parameter in self._signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                values.update(values.pop(parameter.name))
        return str(self._wish).format(*args, **values)

    def _check(self) -> None:
        wrong = f"cannot use {self._option} = {self._wish!r} of the task {self._task}"
        if not isinstance(self._wish, str):
            raise ImproperlyConfigured(wrong, why="it is neither a text nor a function")
        parameters = self._signature.parameters
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


@dataclass(frozen=True, slots=True)
class Limited:
    """The limits of a task, and what it tells its messages apart by."""

    limits: Limits
    rate_key: Key | None = None
    places_key: Key | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """Those that are used."""
        pairs = ((self.limits.rate, self.rate_key), (self.limits.places, self.places_key))
        return tuple(key for limit, key in pairs if limit and key is not None)


class Policy:
    """The limits of the tasks and queues of one worker."""

    def __init__(
        self,
        tasks: Mapping[str, Any],
        queue_limits: Mapping[str, Any] | None = None,
        prefix: str = "",
        priorities: Priorities = PRIORITIES,
        no_rates: bool = False,
    ) -> None:
        """`queue_limits`: as the setting has them; `no_rates`: `worker_disable_rate_limits`. ImproperlyConfigured."""
        self._prefix, self._priorities, self._no_rates = prefix, priorities, no_rates
        self._tasks = tasks
        self._said = {name: found for name, task in tasks.items() if (found := _of_task(task))}
        self._queues = {name: _of_queue(name, wish) for name, wish in (queue_limits or {}).items()}
        self.set_rates({}, {})

    @property
    def on(self) -> bool:
        """Whether there is any limit."""
        return bool(self._by_task or self._by_queue)

    def set_rates(self, cluster: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Rates that were set by command: for the tasks with the scope of the cluster, and for this worker alone."""
        by_task = dict(self._said)
        for rates, is_own in ((cluster, False), (own, True)):
            for name, text in rates.items():
                if name in self._tasks and self.is_own(name) is is_own and is_rate(text):
                    found = by_task.get(name) or Limited(Limits(own=is_own))
                    by_task[name] = replace(found, limits=replace(found.limits, rate=rate_per_second(text)))
        if self._no_rates:
            by_task = {name: replace(each, limits=replace(each.limits, rate=0)) for name, each in by_task.items()}
        queues = self._queues
        if self._no_rates:
            queues = {name: replace(limits, rate=0) for name, limits in queues.items()}
        self._by_task = {name: each for name, each in by_task.items() if each.limits}
        self._by_queue = {name: limits for name, limits in queues.items() if limits}
        self._known: dict[tuple[str, str], str] = {}

    def is_own(self, task: str) -> bool:
        """Whether a task's rate counts for each worker alone."""
        return _scope(self._tasks[task]) == "worker" and self._tasks[task].rate_limit_key is None

    def lane(self, queue: str, message: Envelope, accept: frozenset[str]) -> str | None:
        """The lane of a message; None when it is under no limit, or cannot be read."""
        found = self._by_task.get(message.headers.task)
        if found is None:
            return QUEUE_LANE if queue in self._by_queue else None
        name = message.headers.task
        if not found.keys:
            return name
        try:
            args, kwargs, _embed = message.arguments(accept)
        except (DecodeError, ContentDisallowed):
            return None
        return BAR.join([name, *(key.of(args, kwargs) for key in found.keys)])

    def facts(self, queue: str, lane: str) -> str | None:
        """What the scripts are told of a lane; None of one whose task is not known here."""
        text = self._known.get((queue, lane))
        if text is None and (gates := self._gates(queue, lane)) is not None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            text = self._known[queue, lane] = lane_facts(self._prefix, queue, lane, gates, self._priorities)
        return text

    def _gates(self, queue: str, lane: str) -> list[Gate] | None:
        of_queue = self._by_queue.get(queue, Limits()).gates(self._prefix, f"queue:{queue}")
        name, *parts = lane.split(BAR)
        if name == QUEUE_LANE:
            return of_queue
        if name not in self._tasks:
            return None
        found = self._by_task.get(name)
        if found is None:
            return of_queue
        if len(parts) != len(found.keys):
            return None
        values: list[str | None] = [None, None]
        for place, key in enumerate((found.rate_key, found.places_key)):
            if key is not None and key in found.keys:
                values[place] = parts.pop(0)
        return [*found.limits.gates(self._prefix, f"task:{name}", *values), *of_queue]

    def registry(self) -> dict[str, dict[str, Any]]:
        """All limits as they are told to whoever asks: `task:<name>` and `queue:<name>`."""
        found = {f"queue:{name}": _told(limits) for name, limits in self._by_queue.items()}
        for name, each in self._by_task.items():
            task = self._tasks[name]
            found[f"task:{name}"] = {
                **_told(each.limits),
                "rate_key": _name_of(task.rate_limit_key),
                "concurrency_key": _name_of(task.concurrency_key),
            }
        return found

    def task_names(self) -> set[str]:
        """All tasks that are known here, limited or not."""
        return set(self._tasks)


def _told(limits: Limits) -> dict[str, Any]:
    circuit = limits.circuit
    return {
        "rate": limits.rate or None,
        "scope": ("worker" if limits.own else "cluster") if limits.rate else None,
        "max_concurrency": limits.places or None,
        "circuit_breaker": None
        if circuit is None
        else {
            "fail_max": circuit.fail_max,
            "reset_timeout": circuit.reset_s,
            "reset_timeout_max": circuit.longest_s,
        },
    }


def _name_of(key: Any) -> str | None:
    return getattr(key, "__name__", repr(key)) if callable(key) else key


def _of_task(task: Any) -> Limited | None:
    where = f"of the task {task.name}"
    rate_key = None if task.rate_limit_key is None else Key(task, "rate_limit_key", task.rate_limit_key)
    places_key = None if task.concurrency_key is None else Key(task, "concurrency_key", task.concurrency_key)
    limits = Limits(
        rate=_rate(task.rate_limit, where),
        own=_scope(task) == "worker" and rate_key is None,
        places=_places(task.max_concurrency, where),
        circuit=_circuit(task.circuit_breaker, where),
    )
    if limits and BAR in task.name:
        raise ImproperlyConfigured(f"cannot limit the task {task.name}", why=f"its name has {BAR!r} in it")
    return Limited(limits, rate_key, places_key) if limits else None


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


def _signature(task: Any) -> inspect.Signature:
    run: Callable[..., Any] = task.run
    return inspect.signature(run)


def _as_key(text: str) -> str:
    text = text.encode(errors="replace").decode().replace(BAR, "/")
    if len(text) > KEY_LENGTH:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]
        text = f"{text[: KEY_LENGTH - 17]}~{digest}"
    return text


def tell_changes(changed: Sequence[Any]) -> None:
    """What a turn has changed of circuits, for the log: task, word, ms, ..."""
    for task, word, ms in zip(changed[::3], changed[1::3], changed[2::3], strict=True):
        if word == b"open":
            logger.warning("the circuit of %s is open: it failed too often in a row, %s s", _text(task), int(ms) / 1000)
        else:
            logger.warning("the circuit of %s is closed: its probe went well", _text(task))


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
