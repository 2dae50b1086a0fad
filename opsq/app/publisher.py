"""A call becomes an envelope on a queue. What does not change from call to call is looked up once."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from opsq import _state, signals
from opsq.app import unique
from opsq.app.routes import Destination, Routes
from opsq.broker.outgoing import Claim, Outgoing
from opsq.events.dispatcher import Sender
from opsq.events.event import Channels, Wrapper
from opsq.exceptions import OperationalError
from opsq.execution.followups import next_try
from opsq.protocol import envelope
from opsq.protocol.envelope import NO_EMBED
from opsq.protocol.form import Form
from opsq.utils.ids import new_task_id

if TYPE_CHECKING:
    from opsq.app.base import App

#: Options of Celery that concern connections and exchanges: without meaning here.
_IGNORED = frozenset(
    (
        *("producer", "publisher", "connection", "router", "result_cls", "add_to_parent", "route_name", "declare"),
        *("immediate", "mandatory", "exchange_type", "delivery_mode", "timeout", "confirm_timeout", "event_dispatcher"),
        *("queue", "exchange", "routing_key"),
    )
)
#: Options that become arguments of `envelope.build` under the same name.
_SAME_NAME = (
    *("expires", "retries", "shadow", "ignore_result", "argsrepr", "kwargsrepr"),
    *("reply_to", "replaced_task_nesting", "stamped_headers", "headers", "origin"),
)
_EMBEDDED = {"callbacks": "link", "errbacks": "link_error", "chain": "chain", "chord": "chord"}
#: Options in which calls that are prepared alike may differ.
_VARYING = frozenset(("group_id", "group_index", "root_id", "parent_id"))
_ELSEWHERE = frozenset(
    (
        *(*_SAME_NAME, *_EMBEDDED.values(), *_VARYING, "countdown", "eta", "time_limit", "soft_time_limit"),
        *("serializer", "compression", "priority", "retry", "retry_policy", "unique_key", "unique_for", "debounce"),
    )
)


class Call(NamedTuple):
    """One call to be sent: as `Publisher.send` takes it. `task`: None when it is not known here."""

    name: str
    args: Any = None
    kwargs: Any = None
    task_id: str | None = None
    task: Any = None
    options: Mapping[str, Any] = {}


class _Prepared(NamedTuple):
    """All about a call that does not change from one to the next.

    `call`: arguments for `envelope.build`; `embed`: what follows it; `policy`: how its publish is retried; `form`:
    its message with ids and arguments left open; `claims`: the call's options, if it is unique.
    """

    place: Destination
    call: dict[str, Any]
    embed: Mapping[str, Any]
    due_ms: int | None
    policy: Mapping[str, Any] | None
    form: Form | None = None
    claims: Mapping[str, Any] | None = None


class _Made(NamedTuple):
    """A call that has become a message."""

    task_id: str
    message: Outgoing
    how: _Prepared
    told: tuple[Any, dict[str, Any]] | None


_EARLIEST_S = -2147483648
#: How long a unique call of a task that is not known here keeps its key at most (seconds).
UNIQUE_FOR_S = 86_400.0
#: The most calls, and about the most bytes, of one round trip of `send_many`.
SLICE = 500
SLICE_BYTES = 1 << 20
#: Kinds of calls (a task, and its options) that are kept prepared.
PREPARED = 1000


class Publisher:
    """Sends the calls of one app."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._version = -1
        self._process = self._clock = 0
        self._sent_events: tuple[Sender, str] | None = None

    def send(
        self, name: str, args: Any, kwargs: Any, task_id: str | None, task: Any, options: Mapping[str, Any]
    ) -> str:
        """Send a call of a task; returns its id, or that of an earlier call that stands for it (`unique`).

        Raises OperationalError when the broker does not take it, QueueFull.
        """
        return self._send(name, self._make(name, args, kwargs, task_id, task, options))

    def _send(self, name: str, made: _Made) -> str:
        first = self.app.broker.publish(made.message, made.how.policy)
        if first is not None:
            return first
        if self._sent_events is not None:
            self._tell_sent([(name, made)])
        if made.told is not None:
            self._tell_after(name, made)
        return made.task_id

    def send_many(self, calls: Iterable[Call]) -> list[str]:
        """Send calls in order, many in one round trip; returns their ids.

        Calls are taken as they are sent: `calls` may be a generator of millions. Raises OperationalError when the
        broker does not take them; its `sent` says how many calls, from the first one on, had gone before.
        """
        ids: list[str] = []
        batch: list[tuple[str, _Made]] = []
        size = 0
        for call in calls:
            made = self._make(*call)
            if made.message.claim is not None:
                batch, size = self._send_slice(batch, ids), 0
                self._send_one(call.name, made, ids)
                continue
            if batch and (made.how.policy is not batch[0][1].how.policy or size >= SLICE_BYTES or len(batch) >= SLICE):
                batch, size = self._send_slice(batch, ids), 0
            batch.append((call.name, made))
            size += len(made.message.raw)
        self._send_slice(batch, ids)
        return ids

    def _send_one(self, name: str, made: _Made, ids: list[str]) -> None:
        try:
            ids.append(self._send(name, made))
        except OperationalError as error:
            error.sent = len(ids)
            raise

    def _send_slice(self, batch: list[tuple[str, _Made]], ids: list[str]) -> list[tuple[str, _Made]]:
        """Send what was gathered and add its ids; returns an empty batch."""
        if not batch:
            return batch
        try:
            self.app.broker.publish_many([made.message for _, made in batch], batch[0][1].how.policy)
        except OperationalError as error:
            error.sent += len(ids)
            raise
        ids += [made.task_id for _, made in batch]
        if self._sent_events is not None:
            self._tell_sent(batch)
        for name, made in batch:
            if made.told is not None:
                self._tell_after(name, made)
        return []

    def _make(
        self, name: str, args: Any, kwargs: Any, task_id: str | None, task: Any, options: Mapping[str, Any]
    ) -> _Made:
        """The message of a call, and where it goes."""
        if self._version != self.app.conf.version or self._process != os.getpid():
            self._read_settings()
        args, kwargs = self._arguments(args, kwargs)
        how, kind = None, self._kind(name, options) if task is not None else None
        if kind is not None:
            how = self._prepared.get(kind)
        if how is None:
            how = self._prepare(name, args, kwargs, task, options, kind)
        task_id = str(task_id) if task_id else new_task_id()
        parent, told, claim = running_request(), None, None
        heard = signals.around_calls
        if how.form is None or heard or (parent is not None and self._inherit_priority):
            call = self._with_lineage(how.call, parent, options)
            claim = self._claim(name, task, args, kwargs, task_id, how, call)
            if heard:
                told = (args, kwargs, how.embed), call
                self._tell_before(name, task_id, told[0], how.place, call)
            raw = envelope.build(task=name, id=task_id, args=args, kwargs=kwargs, embed=how.embed, **call)
            priority = call["priority"]
        else:
            priority = how.call["priority"]
            root_id, parent_id = options.get("root_id"), options.get("parent_id")
            if parent is not None:
                root_id, parent_id = root_id or parent.root_id or parent.id, parent_id or parent.id
            group = options.get("group_id"), options.get("group_index")
            raw = how.form.fill(task_id, args, kwargs, root_id, parent_id, *group)
        place = how.place
        message = Outgoing(
            place.queue, raw, priority, how.due_ms, place.exchange, place.routing_key, claim, place.limit
        )
        return _Made(task_id, message, how, told)

    def send_again(self, request: Any, retry: Any) -> None:
        """Send the next try of a run at once (`retry(throw=False)`); the run itself goes on."""
        embed = {key: getattr(request, key, None) for key in NO_EMBED}
        follow = next_try(request, request.envelope, retry, embed)
        self.app.broker.publish(Outgoing(follow.queue, follow.raw, follow.priority, follow.due_ms))

    # -- looked up once ---------------------------------------------------------------------------------------------

    def _read_settings(self) -> None:
        conf = self.app.conf
        conf.load()
        version, self._process = conf.version, os.getpid()
        self.routes = Routes(conf)
        self._prepared: dict[Any, _Prepared] = {}
        self._serializer, self._compression = conf.task_serializer, conf.task_compression
        self._priority = int(conf.task_default_priority or 0)
        self._inherit_priority = bool(conf.task_inherit_parent_priority)
        self._policy: Mapping[str, Any] | None = conf.task_publish_retry_policy if conf.task_publish_retry else None
        self._sent_events = self._sender() if conf.task_send_sent_event else None
        self._version = version  # last: other threads may send meanwhile

    def _sender(self) -> tuple[Sender, str]:
        """Who tells of sent tasks, and on which channel."""
        conf, hostname = self.app.conf, f"gen{self._process}@{socket.gethostname()}"
        channels = Channels.of(self.app.broker.where.db, conf.broker_transport_options)
        wrapper = Wrapper(hostname, conf.event_exchange)
        return Sender(wrapper, hostname), channels.name(conf.event_exchange, "task.sent")

    def _tell_sent(self, sent: Iterable[tuple[str, _Made]]) -> None:
        """The events task-sent (the setting `task_send_sent_event`)."""
        assert self._sent_events is not None
        sender, channel = self._sent_events
        messages = []
        for name, made in sent:
            headers, place = json.loads(made.message.raw)["headers"], made.how.place
            same = ("root_id", "parent_id", "retries", "eta", "expires")
            told = {"uuid": headers["id"], **{key: headers[key] for key in same}, "name": name}
            told.update(args=headers["argsrepr"], kwargs=headers["kwargsrepr"])
            told.update(queue=place.queue, exchange=place.exchange, routing_key=place.routing_key)
            self._clock += 1
            messages.append(sender.message("task-sent", self._clock, **told)[1])
        self.app.broker.tell(channel, messages)

    @staticmethod
    def _claim(
        name: str, task: Any, args: Any, kwargs: Any, task_id: str, how: _Prepared, call: dict[str, Any]
    ) -> Claim | None:
        """What a unique or debounced call claims; the message of a unique one says so in a header."""
        options = how.claims
        if options is None:
            return None
        key = unique.key_of(name, task, args, kwargs, options)
        for_s = options.get("unique_for") or (task.unique_for if task is not None else UNIQUE_FOR_S)
        if how.due_ms is not None:
            for_s += max(how.due_ms / 1000 - time.time(), 0)
        if not options.get("debounce"):
            call["headers"] = {**(call.get("headers") or {}), envelope.UNIQUE: key}
            return Claim(key, task_id, for_s)
        tag = envelope.new_delivery_tag()
        call["properties"] = {**call["properties"], "delivery_tag": tag}
        return Claim(key, task_id, for_s, True, tag)

    # -- parts of a call --------------------------------------------------------------------------------------------

    @staticmethod
    def _arguments(args: Any, kwargs: Any) -> tuple[Any, Any]:
        args, kwargs = args or (), kwargs or {}
        if type(args) is not tuple and not isinstance(args, list | tuple):
            raise TypeError("task args must be a list or tuple")
        if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        return args, kwargs

    @staticmethod
    def _kind(name: str, options: Mapping[str, Any]) -> Any:
        """What calls have in common that are prepared alike; None for one whose options cannot be compared."""
        if not options:
            return name
        kind = (name, *[item for item in options.items() if item[0] not in _VARYING])
        try:
            hash(kind)
        except TypeError:
            return None
        return kind

    def _prepare(
        self, name: str, args: Any, kwargs: Any, task: Any, options: Mapping[str, Any], kind: Any
    ) -> _Prepared:
        """Everything about a call that its options decide; kept when it is the same for all of its kind."""
        kept = kind is not None and self.routes.fixed
        if task is not None:
            options = {**task.call_options, **options}
        place = self.routes.route(options.get("route_name") or name, options, args, kwargs, task)
        if place.options:
            options = {**place.options, **{key: value for key, value in options.items() if value is not None}}
        claims = options if unique.is_unique(task, options) else None
        kept = kept and (kind == name or not unique.may_claim(task, options))
        if claims is not None and options.get("debounce"):
            if options.get("countdown") or options.get("eta"):
                raise ValueError("debounce says when the call is due: no countdown, no eta")
            options = {**options, "countdown": options["debounce"]}
        call, due_ms = self._call(options)
        call.update(queue=place.queue, exchange=place.exchange, routing_key=place.routing_key)
        policy = self._retry_policy(options)
        how = _Prepared(place, call, self._embed(options), due_ms, policy, claims=claims)
        if kept and due_ms is None and "expiration" not in call:
            how = how._replace(form=None if claims is not None else self._form(name, how))
            if len(self._prepared) >= PREPARED:
                self._prepared = {}
            self._prepared[kind] = how
        return how

    def _form(self, name: str, how: _Prepared) -> Form | None:
        """The form of a call; its priority is known then, unless a parent's is inherited."""
        if how.call["priority"] is None:
            how.call["priority"] = self._priority if not self._inherit_priority else None
        call = {**how.call, "task": name, "priority": how.call["priority"] or 0}
        return Form.of(how.embed, call) if how.call["priority"] is not None else None

    def _call(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """Arguments for `envelope.build`, and when the message is due."""
        call = {key: options[key] for key in _SAME_NAME if key in options}
        call["origin"] = call.get("origin") or f"gen{self._process}@{socket.gethostname()}"
        call["serializer"] = options.get("serializer") or self._serializer
        call["compress"] = options.get("compression") or self._compression
        call["timelimit"] = (options.get("time_limit"), options.get("soft_time_limit"))
        call["priority"] = options.get("priority")
        call["properties"] = self._properties(options)
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

    def _with_lineage(self, call: Mapping[str, Any], parent: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """The same call as one of its group, and of the task that runs here, if one does."""
        call = {**call, "group": options.get("group_id")}
        call.update((name, options[name]) for name in ("group_index", "root_id", "parent_id") if name in options)
        if parent is not None:
            call["root_id"] = call.get("root_id") or parent.root_id or parent.id
            call["parent_id"] = call.get("parent_id") or parent.id
            if call["priority"] is None and self._inherit_priority:
                call["priority"] = (parent.delivery_info or {}).get("priority")
        if call["priority"] is None:
            call["priority"] = self._priority
        return call

    def _eta(self, options: Mapping[str, Any]) -> tuple[str, int]:
        """When a call is due, as the message says it and in Unix ms."""
        due: Any = options.get("eta")
        if options.get("countdown"):
            due = self._after(options["countdown"], "countdown")
        moment = datetime.fromisoformat(due) if isinstance(due, str) else due
        aware = moment if moment.tzinfo else moment.replace(tzinfo=self.app.timezone)
        return due if isinstance(due, str) else due.isoformat(), int(aware.timestamp() * 1000)

    def _expires(self, expires: Any) -> tuple[str, str]:
        """When a call expires, as the message says it, and in how many ms (a text, as kombu writes it)."""
        moment = self._after(expires, "expires") if isinstance(expires, int | float) else expires
        text = moment if isinstance(moment, str) else moment.isoformat()
        aware = datetime.fromisoformat(text)
        aware = aware if aware.tzinfo else aware.replace(tzinfo=self.app.timezone)
        left = (aware - self.app.now()).total_seconds()
        return text, str(int(max(left, 0) * 1000))

    def _after(self, seconds: float, what: str) -> datetime:
        if seconds < _EARLIEST_S:
            raise ValueError(f"{what} is out of range: {seconds!r}")
        return self.app.now() + timedelta(seconds=seconds)

    @staticmethod
    def _embed(options: Mapping[str, Any]) -> Mapping[str, Any]:
        if not any(options.get(option) for option in _EMBEDDED.values()):
            return NO_EMBED
        embed = {key: options.get(option) for key, option in _EMBEDDED.items()}
        for key in ("callbacks", "errbacks"):
            if embed[key] is not None and not isinstance(embed[key], list | tuple):
                embed[key] = [embed[key]]
        return embed

    @staticmethod
    def _properties(options: Mapping[str, Any]) -> dict[str, Any]:
        """Options that nobody knows are kept as properties of the message, as Celery does."""
        stamps = options.get("stamped_headers") or ()
        known = (_ELSEWHERE, _IGNORED, stamps)
        return {key: value for key, value in options.items() if not any(key in names for names in known)}

    def _retry_policy(self, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
        retry, policy = options.get("retry"), options.get("retry_policy")
        if retry is None and policy is None:
            return self._policy
        if retry is False or (retry is None and self._policy is None):
            return None
        return {**self.app.conf.task_publish_retry_policy, **(policy or {})}

    def _tell_before(self, name: str, task_id: str, body: Any, place: Destination, call: dict[str, Any]) -> None:
        """Receivers may change headers and properties."""
        headers = _headers(name, task_id, call)
        properties = {"correlation_id": task_id, "priority": call["priority"], **call["properties"]}
        told: dict[str, Any] = {
            "exchange": place.exchange,
            "routing_key": place.routing_key,
            "declare": [],
            "retry_policy": self._policy,
        }
        signals.before_task_publish.send(name, body=body, headers=headers, properties=properties, **told)
        call["headers"], call["properties"] = headers, properties

    @staticmethod
    def _tell_after(name: str, made: _Made) -> None:
        assert made.told is not None
        body, call = made.told
        where = {"exchange": made.how.place.exchange, "routing_key": made.how.place.routing_key}
        headers = _headers(name, made.task_id, call)
        signals.after_task_publish.send(name, body=body, headers=headers, **where)
        told = {"task": name, "args": body[0], "kwargs": body[1], "eta": call.get("eta"), "taskset": call.get("group")}
        signals.task_sent.send(name, task_id=made.task_id, **told)


def running_request() -> Any:
    """The request of the task that a worker (or `apply`) runs here; not of one that was called as a function."""
    request = _state.current_request()
    return None if request is None or request.called_directly else request


def _headers(name: str, task_id: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that a message is about to get, as signals tell them."""
    same = {
        key: call.get(key) for key in ("shadow", "eta", "expires", "group", "group_index", "parent_id", "ignore_result")
    }
    return {
        "lang": "py",
        "task": name,
        "id": task_id,
        **same,
        "retries": call.get("retries", 0),
        "timelimit": call["timelimit"],
        "root_id": call.get("root_id") or task_id,
        "origin": call["origin"],
        **(call.get("headers") or {}),
    }
