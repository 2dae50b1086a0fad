"""What follows a task, as the app would send it: its messages are gathered, and the turn of the task sends them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opsq.backends.base import Backend
from opsq.broker.broker import Outgoing
from opsq.broker.gathering import Gathered, gather
from opsq.canvas.signatures import maybe_signature
from opsq.datastore.trouble import TROUBLE
from opsq.execution.context import Context
from opsq.execution.outcome import ChordPart, FollowUp, Record

if TYPE_CHECKING:
    from opsq.app.base import App

logger = logging.getLogger("opsq.worker")


class CanvasFollowing:
    """Makes messages of signatures, in the name of one app. What it returns is not sent yet."""

    def __init__(self, app: App) -> None:
        self.app = app

    @property
    def _backend(self) -> Backend:
        backend: Backend = self.app.backend
        return backend

    def unfold(self, signature: Mapping[str, Any], args: Sequence[Any], **options: Any) -> Sequence[FollowUp | Record]:
        """What a call comes to: messages, and what their workflow needs among the results."""
        with gather(records=True) as held:
            maybe_signature(signature, app=self.app, clone=True).apply_async(args, **options)
        return self.follow_ups(held)

    def follow_ups(self, held: Gathered) -> Sequence[FollowUp | Record]:
        """What was gathered, as data."""
        messages = held.messages
        if any(message.address is not None for message in messages):
            messages = self.app.broker.spread(messages)
        return [*(Record(*record) for record in held.records or ()), *map(self._follow_up, messages)]

    def _follow_up(self, message: Outgoing) -> FollowUp:
        if message.channel:
            return FollowUp("", message.raw, channel=message.channel)
        try:
            self.app.broker.make_known(message.queue, message.priority)
        except TROUBLE as error:
            logger.debug("cannot make the queue %s known: %s", message.queue, error)
        return FollowUp(message.queue, message.raw, message.priority, message.due_ms)

    def unfold_errbacks(self, errbacks: Mapping[str, Any], args: Sequence[Any]) -> Sequence[FollowUp | Record]:
        """What a group of errbacks comes to; they are no children of the task."""
        return self.unfold(errbacks, args, add_to_parent=False)

    def send(self, follows: Sequence[FollowUp | Record | ChordPart]) -> None:
        """Send and store at once what follows, where there is no turn that does it."""
        app, backend = self.app, self._backend
        records = [(each.key, each.ttl_s, each.data) for each in follows if isinstance(each, Record)]
        if records:
            backend.store_records(records)
        for each in follows:
            if isinstance(each, FollowUp):
                to_send = Outgoing(each.queue, each.raw, each.priority, each.due_ms, channel=each.channel)
                app.broker.publish_many([to_send])
        parts = [each for each in follows if isinstance(each, ChordPart)]
        if parts:
            backend.count_parts(parts)

    def member(self, task_id: str, state: str, value: Any) -> bytes:
        """A part of a chord as it is kept. Raises EncodeError."""
        return self._backend.chord_member(task_id, state, value)

    def failed(
        self, task_id: str, group_id: str | None, state: str, error: BaseException, text: str | None
    ) -> Record | None:
        """The record of a task that will never run; None when none are kept."""
        backend = self._backend
        if not backend.keeps_results:
            return None
        request = Context(id=task_id, group=group_id, parent_id=None)
        key, data, ttl_s = backend.writes(request, state, error, text)
        return Record(key, ttl_s, data)


class EagerFollowing:
    """What follows a task that runs in its caller's process: it is called at once."""

    def __init__(self, app: App) -> None:
        self.app = app

    def unfold(self, signature: Mapping[str, Any], args: Sequence[Any], **options: Any) -> Sequence[FollowUp | Record]:
        """Call it: a message, or under `task_always_eager` a run here."""
        maybe_signature(signature, app=self.app, clone=True).apply_async(args, **options)
        return ()

    def unfold_errbacks(self, errbacks: Mapping[str, Any], args: Sequence[Any]) -> Sequence[FollowUp | Record]:
        """Run them here."""
        maybe_signature(errbacks, app=self.app, clone=True).apply(args)
        return ()

    def member(self, task_id: str, state: str, value: Any) -> bytes:  # noqa: ARG002
        """Nothing is counted."""
        return b""

    def failed(self, task_id: str, group_id: str | None, state: str, error: BaseException, text: str | None) -> None:
        """Nothing is stored."""
