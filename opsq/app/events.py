"""`app.events`: hear what all workers tell, keep their state, tell something oneself. Celery's names, without kombu."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from opsq.events.dispatcher import Sender
from opsq.events.event import Channels, Event, Wrapper
from opsq.events.receiver import Receiver as Ear
from opsq.events.state import State

if TYPE_CHECKING:
    from opsq.app.base import App

#: How often a receiver looks whether it is to end (seconds).
TICK_S = 0.5


class Receiver:
    """Hands each event to its handler: by its type, or under `*` those that have none."""

    def __init__(
        self,
        app: App,
        channel: Any = None,  # noqa: ARG002 (Celery's signature: the app's own broker is heard)
        handlers: Mapping[str, Callable[[Event], Any]] | None = None,
        routing_key: str = "#",  # noqa: ARG002
        **_options: Any,
    ) -> None:
        self.app, self.handlers = app, dict(handlers or {})
        #: Set it to end `capture`, from a handler or another thread.
        self.should_stop = False

    def process(self, type: str, event: Event) -> None:
        """Hand an event to its handler."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def itercapture(
        self,
        limit: int | None = None,
        timeout: float | None = None,
        wakeup: bool = True,  # noqa: ARG002 (workers are always called)
    ) -> Iterator[Event]:
        """Events as they come, each after its handler was called; TimeoutError after so many seconds of quiet."""
        app, count, heard_at = self.app, 0, time.monotonic()
        ear = Ear(app.broker.url, _channels(app), app.conf.event_exchange, app.conf.control_exchange)
        for batch in ear.listen(TICK_S if timeout is None else min(timeout, TICK_S)):
            for event in batch:
                self.process(str(event.get("type")), event)
                heard_at, count = time.monotonic(), count + 1
                yield event
                if self.should_stop or (limit is not None and count >= limit):
                    return
            if self.should_stop:
                return
            if timeout is not None and time.monotonic() - heard_at > timeout:
                raise TimeoutError(f"no event within {timeout:g} s")

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """The same, until `should_stop` is set, an error is raised, or so many have come."""
        for _event in self.itercapture(limit, timeout, wakeup):
            pass


class Dispatcher:
    """Tells events of a program's own."""

    def __init__(self, app: App, connection: Any = None, hostname: str | None = None, **_options: Any) -> None:  # noqa: ARG002
        self.app = app
        self._sender = Sender(Wrapper("", app.conf.event_exchange), hostname or socket.gethostname())
        self._clock = 0

    def send(self, type: str, **fields: Any) -> None:
        """Tell one, to who listens now."""
        self._clock += 1
        routing_key, message = self._sender.message(type, self._clock, **fields)
        broker = self.app.broker
        broker.client.publish(_channels(self.app).name(self.app.conf.event_exchange, routing_key), message)

    def close(self) -> None:
        """Nothing has to be given back."""

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Events:
    """What is bound to one app: `app.events`."""

    def __init__(self, app: App) -> None:
        self.app = app

    def Receiver(self, channel: Any = None, **options: Any) -> Receiver:
        """What hears events."""
        return Receiver(self.app, channel, **options)

    def Dispatcher(self, connection: Any = None, **options: Any) -> Dispatcher:
        """What tells events."""
        return Dispatcher(self.app, connection, **options)

    default_dispatcher = Dispatcher

    def State(self, **options: Any) -> State:
        """What the cluster is, as its events tell it: `state.event(event)` takes one in."""
        return State(**options)


def _channels(app: App) -> Channels:
    return Channels.of(app.broker.where.db, app.conf.broker_transport_options)
