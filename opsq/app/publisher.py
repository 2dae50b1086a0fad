"""A call becomes an envelope on a queue: one by one, or many in a round trip."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from opsq import _state, signals
from opsq.app import telling, unique
from opsq.app.preparing import Lineage, Preparation, Prepared, lineage_of
from opsq.broker import gathering
from opsq.broker.outgoing import Claim, Outgoing
from opsq.exceptions import OperationalError
from opsq.execution.followups import next_try
from opsq.protocol import envelope, writing
from opsq.protocol.delivery_tag import new_delivery_tag
from opsq.protocol.envelope import NO_EMBED
from opsq.utils.ids import new_task_id

if TYPE_CHECKING:
    from opsq.app.base import App

#: A call to be sent: the task's name, args, kwargs, its id (None: a new one), the task (None: not known here), options.
Call = tuple[str, Any, Any, str | None, Any, Mapping[str, Any]]
#: One of many calls of a task with the same options: its id, args, kwargs, index in the group, id of its root.
Member = tuple[str, Any, Any, int, str | None]

#: How long a unique call of a task that is not known here keeps its key at most (seconds).
UNIQUE_FOR_S = 86_400.0
#: The most calls, and about the most bytes, of one round trip of `send_many`.
SLICE = 500
SLICE_BYTES = 1 << 20


class _Made(msgspec.Struct, frozen=True, gc=False):
    """A call that has become a message; `told`: body and arguments of the envelope, if signals have receivers."""

    name: str
    task_id: str
    message: Outgoing
    how: Prepared
    told: tuple[Any, dict[str, Any]] | None = None


class Publisher:
    """Sends the calls of one app."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._preparation: Preparation | None = None
        self._sent_events: telling.SentEvents | None = None

    def send(
        self, name: str, args: Any, kwargs: Any, task_id: str | None, task: Any, options: Mapping[str, Any]
    ) -> str:
        """Send a call of a task; returns its id, or that of an earlier call that stands for it (`unique`).

        Raises OperationalError when the broker does not take it, QueueFull.
        """
        how = self._prepared().of(name, args, kwargs, task, options)
        return self._send(self._make(name, args, kwargs, task_id, task, how, lineage_of(options), running_request()))

    def send_many(self, calls: Iterable[Call]) -> list[str]:
        """Send calls in order, many in one round trip; returns their ids.

        Calls are taken as they are sent: `calls` may be a generator of millions. Raises OperationalError when the
        broker does not take them; its `sent` says how many calls, from the first one on, had gone before.
        """
        return self._send_all(self._make_many(calls))

    def send_members(self, name: str, task: Any, options: Mapping[str, Any], members: Iterable[Member]) -> None:
        """Send calls of one task with the same options, as `send_many` does."""
        self._send_all(self._make_members(name, task, options, members))

    def send_again(self, request: Any, retry: Any) -> None:
        """Send the next try of a run at once (`retry(throw=False)`); the run itself goes on."""
        embed = {key: getattr(request, key, None) for key in NO_EMBED}
        follow = next_try(request, request.envelope, retry, embed)
        self.app.broker.publish(Outgoing(follow.queue, follow.raw, follow.priority, follow.due_ms))

    # -- sending ----------------------------------------------------------------------------------------------------

    def _send(self, made: _Made) -> str:
        first = self.app.broker.publish(made.message, made.how.policy)
        if first is not None:
            return first
        self._tell([made])
        return made.task_id

    def _send_all(self, calls: Iterable[_Made]) -> list[str]:
        ids: list[str] = []
        batch: list[_Made] = []
        size = 0
        for made in calls:
            if made.message.claim is not None:
                batch, size = self._send_slice(batch, ids), 0
                self._send_one(made, ids)
                continue
            if batch and (size >= SLICE_BYTES or len(batch) >= SLICE or made.how.policy != batch[0].how.policy):
                batch, size = self._send_slice(batch, ids), 0
            batch.append(made)
            size += len(made.message.raw)
        self._send_slice(batch, ids)
        return ids

    def _send_one(self, made: _Made, ids: list[str]) -> None:
        try:
            ids.append(self._send(made))
        except OperationalError as error:
            error.sent = len(ids)
            raise

    def _send_slice(self, batch: list[_Made], ids: list[str]) -> list[_Made]:
        """Send what was gathered and add its ids; returns an empty batch."""
        if not batch:
            return batch
        try:
            self.app.broker.publish_many([made.message for made in batch], batch[0].how.policy)
        except OperationalError as error:
            error.sent += len(ids)
            raise
        ids += [made.task_id for made in batch]
        self._tell(batch)
        return []

    def _tell(self, sent: list[_Made]) -> None:
        if self._sent_events is not None:
            self._sent_events.tell([(made.name, made.message, made.how.place) for made in sent])
        for made in sent:
            if made.told is not None:
                telling.tell_after(made.name, made.task_id, made.told[0], made.how.place, made.told[1])

    # -- making messages --------------------------------------------------------------------------------------------

    def _prepared(self) -> Preparation:
        """What prepares calls as the settings are now."""
        found = self._preparation
        if found is None or found.is_stale:
            found = Preparation(self.app)
            self._sent_events = telling.SentEvents(self.app) if self.app.conf.task_send_sent_event else None
            self._preparation = found  # last: other threads may send meanwhile
        return found

    def _make_many(self, calls: Iterable[Call]) -> Iterator[_Made]:
        parent = running_request()
        for name, args, kwargs, task_id, task, options in calls:
            how = self._prepared().of(name, args, kwargs, task, options)
            yield self._make(name, args, kwargs, task_id, task, how, lineage_of(options), parent)

    def _make_members(
        self, name: str, task: Any, options: Mapping[str, Any], members: Iterable[Member]
    ) -> Iterator[_Made]:
        parent = running_request()
        group_id, _index, own_root, parent_id = lineage_of(options)
        how: Prepared | None = None
        for task_id, args, kwargs, index, root_id in members:
            if how is None or not how.shared:
                how = self._prepared().of(name, args, kwargs, task, options)
            lineage = (group_id, index, root_id or own_root, parent_id)
            yield self._make(name, args, kwargs, task_id, task, how, lineage, parent)

    def _make(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        task_id: str | None,
        task: Any,
        how: Prepared,
        lineage: Lineage,
        parent: Any,
    ) -> _Made:
        """The message of a call, and where it goes. `parent`: the request of the task that runs here."""
        args, kwargs = args or (), kwargs or {}
        if type(args) is not tuple and not isinstance(args, list | tuple):
            raise TypeError("task args must be a list or tuple")
        if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        task_id = str(task_id) if task_id else new_task_id()
        group_id, index, root_id, parent_id = lineage
        if parent is not None:
            root_id, parent_id = root_id or parent.root_id or parent.id, parent_id or parent.id
        heard = signals.around_calls
        if how.form is None or heard:
            call = {**how.call, "group": group_id, "group_index": index, "root_id": root_id, "parent_id": parent_id}
            return self._make_slowly(name, args, kwargs, task_id, task, how, call, parent, heard)
        raw = how.form.fill(task_id, args, kwargs, root_id, parent_id, group_id, index)
        place = how.place
        message = Outgoing(place.queue, raw, how.call["priority"], how.due_ms, None, place.limit, place.address)
        return _Made(name, task_id, message, how)

    def _make_slowly(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        task_id: str,
        task: Any,
        how: Prepared,
        call: dict[str, Any],
        parent: Any,
        heard: bool,
    ) -> _Made:
        """The same of a call that no form holds: its arguments for `writing.build`."""
        if call["priority"] is None:
            call["priority"] = self._prepared().priority_under(parent)
        claim = _claim(name, task, args, kwargs, task_id, how, call)
        told = ((args, kwargs, how.embed), call) if heard else None
        if told is not None:
            telling.tell_before(name, task_id, told[0], how.place, call, how.policy)
        raw = writing.build(task=name, id=task_id, args=args, kwargs=kwargs, embed=how.embed, **call)
        place = how.place
        message = Outgoing(place.queue, raw, call["priority"], how.due_ms, claim, place.limit, place.address)
        return _Made(name, task_id, message, how, told)


def _claim(
    name: str, task: Any, args: Any, kwargs: Any, task_id: str, how: Prepared, call: dict[str, Any]
) -> Claim | None:
    """What a unique or debounced call claims; the message of a unique one says so in a header."""
    options, held = how.claims, gathering.current()
    if options is None or (held is not None and held.follows):
        return None
    key = unique.key_of(name, task, args, kwargs, options)
    for_s = options.get("unique_for") or (task.unique_for if task is not None else UNIQUE_FOR_S)
    if how.due_ms is not None:
        for_s += max(how.due_ms / 1000 - time.time(), 0)
    if not options.get("debounce"):
        call["headers"] = {**(call.get("headers") or {}), envelope.UNIQUE: key}
        return Claim(key, task_id, for_s)
    tag = new_delivery_tag()
    call["properties"] = {**call["properties"], "delivery_tag": tag}
    return Claim(key, task_id, for_s, True, tag)


def running_request() -> Any:
    """The request of the task that a worker (or `apply`) runs here; not of one that was called as a function."""
    request = _state.current_request()
    return None if request is None or request.called_directly else request
