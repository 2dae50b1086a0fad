"""What `app.connection()` gives: the broker, as far as programs ask kombu's connection about it.

Health checks, the length of a queue, emptying one, commands of redis-py. Messages are sent and taken elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from opsq.broker.broker import Broker
from opsq.broker.moving import purge
from opsq.datastore.trouble import TROUBLE
from opsq.datastore.url import masked
from opsq.exceptions import OperationalError


class QueueDeclared(NamedTuple):
    """What kombu's `queue_declare` tells. Consumers are not counted by it."""

    queue: str
    message_count: int
    consumer_count: int


class Channel:
    """What kombu calls a channel: commands about queues. `client` is redis-py's, for all others."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.client: Any = broker.client

    def _lists(self, queue: str) -> list[str]:
        return [self._broker.key(name) for name in self._broker.priorities.lists(queue)]

    def _length(self, queue: str) -> int:
        return sum(int(self.client.llen(name)) for name in self._lists(queue))

    def queue_declare(self, queue: str, passive: bool = False, **_options: Any) -> QueueDeclared:  # noqa: ARG002
        """How many messages wait in a queue; Redis needs no declarations."""
        return QueueDeclared(queue, self._length(queue), 0)

    def queue_purge(self, queue: str, **_options: Any) -> int:
        """Remove what waits in a queue; how many messages that were."""
        return purge(self._broker, queue)

    def close(self) -> None:
        """It has nothing of its own."""


class Connection:
    """The broker of an app; it may be used as a context, and need not be closed."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.default_channel = Channel(broker)

    @property
    def connected(self) -> bool:
        """Whether the broker answers now."""
        try:
            return bool(self.default_channel.client.ping())
        except TROUBLE:
            return False

    def connect(self) -> Connection:
        """Ask whether the broker answers. Raises OperationalError."""
        try:
            self.default_channel.client.ping()
        except TROUBLE as error:
            raise OperationalError(f"cannot reach Redis at {self.as_uri()}", why=str(error)) from error
        return self

    def ensure_connection(self, errback: Callable[..., Any] | None = None, **_policy: Any) -> Connection:
        """The same: redis-py has tried as often as `broker_transport_options` say. `errback(error, 0)` is told."""
        try:
            return self.connect()
        except OperationalError as error:
            if errback is not None:
                errback(error, 0)
            raise

    def channel(self) -> Channel:
        """Commands about queues."""
        return self.default_channel

    def as_uri(self, include_password: bool = False) -> str:
        """The broker's URL, without its password unless it is asked for."""
        return self._broker.url if include_password else masked(self._broker.url)

    def release(self) -> None:
        """Nothing has to be given back."""

    close = release

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Connection: {self.as_uri()}>"


class Pool:
    """What kombu calls a pool of connections: redis-py has one below."""

    def __init__(self, make: Callable[[], Connection]) -> None:
        self._make = make

    @contextmanager
    def acquire(self, block: bool = False, timeout: float | None = None) -> Iterator[Connection]:  # noqa: ARG002
        """A connection, as a context."""
        yield self._make()
