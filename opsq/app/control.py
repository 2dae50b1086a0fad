"""Control: how programs give orders to workers, opsq's and Celery's alike, in Celery's words and signatures.

What is revoked is also written down in Redis, so that workers that are down know it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opsq.app.inspect import Inspect, flatten_reply
from opsq.broker import moving, revoked
from opsq.broker.mailbox import Mailbox, Request
from opsq.datastore.connection import errors
from opsq.events.event import Channels
from opsq.protocol import codec

__all__ = ["Control", "Inspect", "flatten_reply"]

Replies = list[dict[str, Any]]


class Control:
    """Orders to workers. What they reply is returned with `reply=True`, else nothing is waited for."""

    def __init__(self, app: Any) -> None:
        self.app = app
        conf = app.conf
        channels = Channels.of(app.broker.where.db, conf.broker_transport_options)
        accept = codec.accepted(conf.accept_content)
        self.mailbox = Mailbox(app.broker, channels, conf.control_exchange, accept, conf.task_serializer)

    @property
    def inspect(self) -> type[Inspect]:
        """`app.control.inspect(...)`: questions of this app."""
        return type("Inspect", (Inspect,), {"app": self.app})

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Any = None,
        connection: Any = None,  # noqa: ARG002 (Celery's signature)
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Any], None] | None = None,
        channel: Any = None,  # noqa: ARG002 (Celery's signature)
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> Replies | None:
        """Send a command to all workers, or to those that are named or fit a pattern (`matcher`: glob or pcre).

        With `reply`: what they reply, until `limit` have, or for `timeout` seconds nobody does. Raises BrokerError.
        """
        if destination is not None and not isinstance(destination, list | tuple):
            raise ValueError(f"destination must be a list/tuple not {type(destination)}")
        asked = {**(arguments or {}), **extra_kwargs}
        by_pattern = (pattern, matcher) if pattern and matcher else (None, None)
        request = Request(command, asked, list(destination) if destination else None, *by_pattern)
        if not reply:
            self.mailbox.cast(request)
            return None
        enough = limit if limit is not None else len(destination) if destination else None
        return self.mailbox.call(request, 1.0 if timeout is None else timeout, enough, callback)

    # -- tasks ------------------------------------------------------------------------------------------------------

    def revoke(
        self,
        task_id: Any,
        destination: Any = None,
        terminate: bool = False,
        signal: Any = "SIGTERM",
        **kwargs: Any,
    ) -> Replies | None:
        """Have a task, or several, not run; with `terminate` also end what runs.

        Remembered for a day, and as long as it waits for its time. With `destination` only those workers are told.
        """
        if not destination:
            ids = [task_id] if isinstance(task_id, str) else [str(each) for each in task_id]
            with errors(self.app.broker.url):
                revoked.revoke(self.app.broker.client, self.app.broker.key_prefix, ids)
        arguments = {"task_id": task_id, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", destination=destination, arguments=arguments, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Any = None,
        terminate: bool = False,
        signal: Any = "SIGTERM",
        **kwargs: Any,
    ) -> Replies | None:
        """The same for all tasks that carry one of these values under one of these stamped headers."""
        if not destination:
            with errors(self.app.broker.url):
                revoked.revoke_stamps(self.app.broker.client, self.app.broker.key_prefix, headers)
        arguments = {"headers": dict(headers), "terminate": terminate, "signal": signal}
        return self.broadcast("revoke_by_stamped_headers", destination=destination, arguments=arguments, **kwargs)

    def terminate(self, task_id: Any, destination: Any = None, signal: Any = "SIGTERM", **kwargs: Any) -> Any:
        """Revoke a task, or several, and end what runs."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)

    def rate_limit(self, task_name: str, rate_limit: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Set how often a task may run ("100/m")."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", destination=destination, arguments=arguments, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Set how long a task may run (seconds)."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", destination=destination, arguments=arguments, **kwargs)

    # -- workers ----------------------------------------------------------------------------------------------------

    def ping(self, destination: Any = None, timeout: float = 1.0, **kwargs: Any) -> Any:
        """Who is there: a list of {node: {"ok": "pong"}}."""
        return self.broadcast("ping", reply=True, arguments={}, destination=destination, timeout=timeout, **kwargs)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Have workers consume one more queue."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", destination=destination, arguments=arguments, **kwargs)

    def cancel_consumer(self, queue: str, destination: Any = None, **kwargs: Any) -> Any:
        """Have workers consume a queue no more."""
        return self.broadcast("cancel_consumer", destination=destination, arguments={"queue": queue}, **kwargs)

    def enable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have workers tell of their tasks."""
        return self.broadcast("enable_events", arguments={}, destination=destination, **kwargs)

    def disable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have workers tell of their tasks no more."""
        return self.broadcast("disable_events", arguments={}, destination=destination, **kwargs)

    def pool_grow(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """More children."""
        return self.broadcast("pool_grow", arguments={"n": n}, destination=destination, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Fewer children."""
        return self.broadcast("pool_shrink", arguments={"n": n}, destination=destination, **kwargs)

    def autoscale(self, max: int, min: int, destination: Any = None, **kwargs: Any) -> Any:
        """The bounds of autoscale."""
        return self.broadcast("autoscale", arguments={"max": max, "min": min}, destination=destination, **kwargs)

    def pool_restart(
        self, modules: Any = None, reload: bool = False, reloader: Any = None, destination: Any = None, **kwargs: Any
    ) -> Any:
        """Fresh children."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments=arguments, destination=destination, **kwargs)

    def heartbeat(self, destination: Any = None, **kwargs: Any) -> Any:
        """A sign of life at once."""
        return self.broadcast("heartbeat", arguments={}, destination=destination, **kwargs)

    def shutdown(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have workers stop, when what runs has ended."""
        return self.broadcast("shutdown", arguments={}, destination=destination, **kwargs)

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Hold an election among Celery's workers."""
        arguments = {"id": id, "topic": topic, "action": action}
        self.broadcast("election", connection=connection, destination=None, arguments=arguments)

    # -- queues -----------------------------------------------------------------------------------------------------

    def purge(self, connection: Any = None) -> int:  # noqa: ARG002 (Celery's signature)
        """Throw away all that waits in the app's queues; how many messages that were."""
        return sum(moving.purge(self.app.broker, name) for name in self.app.queues())

    discard_all = purge
