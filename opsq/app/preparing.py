"""All about a call that its options decide: looked up once for the calls of one kind, and shared by them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from opsq.app import security, unique
from opsq.app.routes import Destination, Routes
from opsq.protocol.envelope import NO_EMBED
from opsq.protocol.form import Form

if TYPE_CHECKING:
    from opsq.app.base import App

#: Options that become arguments of `writing.build` under the same name.
_SAME_NAME = (
    *("expires", "retries", "shadow", "ignore_result", "argsrepr", "kwargsrepr"),
    *("reply_to", "replaced_task_nesting", "stamped_headers", "headers", "origin"),
)
_EMBEDDED = {"callbacks": "link", "errbacks": "link_error", "chain": "chain", "chord": "chord"}
#: Options in which calls that are prepared alike may differ, besides ids and arguments; and their values in a call.
Lineage = tuple[str | None, int | None, str | None, str | None]
_ALONE: Lineage = (None, None, None, None)
_VARYING = frozenset(("group_id", "group_index", "root_id", "parent_id"))
#: All options that are no properties of the message. Those of Celery that concern connections and exchanges have no
#: meaning here.
_KNOWN = frozenset(
    (
        *(*_SAME_NAME, *_EMBEDDED.values(), *_VARYING, "countdown", "eta", "time_limit", "soft_time_limit"),
        *("serializer", "compression", "priority", "retry", "retry_policy", "unique_key", "unique_for", "debounce"),
        *("queue", "exchange", "routing_key", "exchange_type", "route_name"),
        *(
            "producer",
            "publisher",
            "connection",
            "router",
            "result_cls",
            "add_to_parent",
            "declare",
            "event_dispatcher",
        ),
        *("immediate", "mandatory", "delivery_mode", "timeout", "confirm_timeout"),
    )
)
_EARLIEST_S = -2147483648
#: Kinds of calls (a task, and its options) that are kept prepared.
PREPARED = 1000


class Prepared(NamedTuple):
    """All about a call that does not change from one to the next.

    `call`: arguments for `writing.build`; `embed`: what follows it; `policy`: how its publish is retried; `shared`:
    whether it holds for all calls of its kind; `form`: its message with ids and arguments left open; `claims`: the
    call's options, if it is unique.
    """

    place: Destination
    call: dict[str, Any]
    embed: Mapping[str, Any]
    due_ms: int | None
    policy: Mapping[str, Any] | None
    shared: bool = False
    form: Form | None = None
    claims: Mapping[str, Any] | None = None


class Preparation:
    """Prepares the calls of an app, as its settings are; in one process."""

    def __init__(self, app: App) -> None:
        conf = app.conf
        conf.load()
        security.use_shared_key(conf)
        self._app = app
        self._version, self._process = conf.version, os.getpid()
        self._routes = Routes(conf)
        self._known: dict[Any, Prepared] = {}
        self._serializer, self._compression = conf.task_serializer, conf.task_compression
        self._origin = f"gen{self._process}@{socket.gethostname()}"
        self._retry_policy: Mapping[str, Any] = conf.task_publish_retry_policy
        self._default_policy = self._retry_policy if conf.task_publish_retry else None
        self._priority = int(conf.task_default_priority or 0)
        self._inherits_priority = bool(conf.task_inherit_parent_priority)

    @property
    def is_stale(self) -> bool:
        """Whether the settings have changed since, or this is a child of the process."""
        return self._version != self._app.conf.version or self._process != os.getpid()

    def of(self, name: str, args: Any, kwargs: Any, task: Any, options: Mapping[str, Any]) -> Prepared:
        """What holds for a call. `task`: None when it is not known here."""
        kind = None if task is None else _kind(name, options)
        try:
            found = None if kind is None else self._known.get(kind)
        except TypeError:  # options that cannot be compared
            found = kind = None
        return self._prepare(name, args, kwargs, task, options, kind) if found is None else found

    def priority_under(self, parent: Any) -> int:
        """The priority of a call that names none; `parent`: the request of the task that sends it."""
        found = (parent.delivery_info or {}).get("priority") if parent is not None and self._inherits_priority else None
        return self._priority if found is None else int(found)

    def _prepare(self, name: str, args: Any, kwargs: Any, task: Any, options: Mapping[str, Any], kind: Any) -> Prepared:
        shared = kind is not None and self._routes.fixed
        if task is not None:
            options = {**task.call_options, **options}
        place = self._routes.route(options.get("route_name") or name, options, args, kwargs, task)
        if place.options:
            options = {**place.options, **{key: value for key, value in options.items() if value is not None}}
        claims = options if unique.is_unique(task, options) else None
        shared = shared and (kind == name or not unique.may_claim(task, options))
        if claims is not None and options.get("debounce"):
            if options.get("countdown") or options.get("eta"):
                raise ValueError("debounce says when the call is due: no countdown, no eta")
            options = {**options, "countdown": options["debounce"]}
        call, due_ms = self._call(options)
        call.update(queue=place.queue, exchange=place.exchange, routing_key=place.routing_key)
        shared = shared and due_ms is None and "expiration" not in call
        how = Prepared(place, call, _embed(options), due_ms, self._policy(options), shared, claims=claims)
        if shared:
            how = how._replace(form=None if claims is not None else self._form(name, how))
            if len(self._known) >= PREPARED:
                self._known = {}
            self._known[kind] = how
        return how

    def _form(self, name: str, how: Prepared) -> Form | None:
        """The form of a call; its priority is known then, unless a parent's is inherited."""
        if how.call["priority"] is None:
            how.call["priority"] = None if self._inherits_priority else self._priority
        call = {**how.call, "task": name, "priority": how.call["priority"] or 0}
        return Form.of(how.embed, call) if how.call["priority"] is not None else None

    def _call(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """Arguments for `writing.build`, and when the message is due (Unix ms)."""
        call = {key: options[key] for key in _SAME_NAME if key in options}
        call["origin"] = call.get("origin") or self._origin
        call["serializer"] = options.get("serializer") or self._serializer
        call["compress"] = options.get("compression") or self._compression
        call["timelimit"] = (options.get("time_limit"), options.get("soft_time_limit"))
        call["priority"] = options.get("priority")
        call["properties"] = _properties(options)
        stamped = call.get("stamped_headers")
        if stamped:
            call["stamps"] = {key: options[key] for key in stamped if key in options}
        due_ms = None
        if options.get("countdown") or options.get("eta"):
            call["eta"], due_ms = self._eta(options)
        if call.get("expires") is not None:
            call["expires"], call["expiration"] = self._expires(call["expires"])
            if due_ms is not None:  # what expires before it is due is looked at when it expires
                due_ms = min(due_ms, int(time.time() * 1000) + int(call["expiration"]) + 1)
        return call, due_ms

    def _eta(self, options: Mapping[str, Any]) -> tuple[str, int]:
        """When a call is due, as the message says it and in Unix ms."""
        due: Any = options.get("eta")
        if options.get("countdown"):
            due = self._after(options["countdown"], "countdown")
        moment = _moment(due, "eta")
        aware = moment if moment.tzinfo else moment.replace(tzinfo=self._app.timezone)
        return due if isinstance(due, str) else due.isoformat(), int(aware.timestamp() * 1000)

    def _expires(self, expires: Any) -> tuple[str, str]:
        """When a call expires, as the message says it, and in how many ms (a text, as kombu writes it)."""
        said = self._after(expires, "expires") if isinstance(expires, int | float) else expires
        aware = _moment(said, "expires")
        text = said if isinstance(said, str) else said.isoformat()
        aware = aware if aware.tzinfo else aware.replace(tzinfo=self._app.timezone)
        left = (aware - self._app.now()).total_seconds()
        return text, str(int(max(left, 0) * 1000))

    def _after(self, seconds: float, what: str) -> datetime:
        if seconds < _EARLIEST_S:
            raise ValueError(f"{what} is out of range: {seconds!r}")
        return self._app.now() + timedelta(seconds=seconds)

    def _policy(self, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """How the publish of a call is retried; None: not at all."""
        retry, policy = options.get("retry"), options.get("retry_policy")
        if retry is None and policy is None:
            return self._default_policy
        if retry is False or (retry is None and self._default_policy is None):
            return None
        return {**self._retry_policy, **(policy or {})}


def _moment(said: Any, what: str) -> datetime:
    if isinstance(said, str):
        return datetime.fromisoformat(said)
    if not isinstance(said, datetime):
        raise TypeError(f"{what} is a datetime or its ISO text, not a {type(said).__name__}: {said!r}")
    return said


def lineage_of(options: Mapping[str, Any]) -> Lineage:
    """The ids of a call's group, its place in it, the ids of its root and its parent."""
    if not options or _VARYING.isdisjoint(options):
        return _ALONE
    get = options.get
    return get("group_id"), get("group_index"), get("root_id"), get("parent_id")


def ignores_result(task: Any, options: Mapping[str, Any]) -> bool:
    """Whether nobody wants the result of a call: it says so, or its task does."""
    ignored = options.get("ignore_result")
    return bool(task.ignore_result if ignored is None and task is not None else ignored)


def _kind(name: str, options: Mapping[str, Any]) -> Any:
    """What calls have in common that are prepared alike."""
    return (name, *[item for item in options.items() if item[0] not in _VARYING]) if options else name


def _embed(options: Mapping[str, Any]) -> Mapping[str, Any]:
    if not any(options.get(option) for option in _EMBEDDED.values()):
        return NO_EMBED
    embed = {key: options.get(option) for key, option in _EMBEDDED.items()}
    for key in ("callbacks", "errbacks"):
        if embed[key] is not None and not isinstance(embed[key], list | tuple):
            embed[key] = [embed[key]]
    return embed


def _properties(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that nobody knows are kept as properties of the message, as Celery does."""
    stamps = options.get("stamped_headers") or ()
    return {key: value for key, value in options.items() if key not in _KNOWN and key not in stamps}
