"""Inspect: how programs ask workers, opsq's and Celery's alike, in Celery's words and signatures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opsq.exceptions import DuplicateNodenameWarning


def flatten_reply(reply: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The replies of all nodes in one mapping; a warning when two nodes go by one name."""
    nodes: dict[str, Any] = {}
    twice = set()
    for item in reply:
        twice |= nodes.keys() & item.keys()
        nodes.update(item)
    if twice:
        names = ", ".join(sorted(twice))
        text = f"several workers go by one name, of which one reply is seen: {names}; use -n to name them"
        warnings.warn(DuplicateNodenameWarning(text), stacklevel=3)
    return nodes


class Inspect:
    """Questions to workers. Each answers with a mapping node -> reply, or None when nobody has replied.

    `destination`: nodes; `timeout`: how long the next reply is waited for (seconds); `limit`: replies that are enough.
    """

    app: Any = None

    def __init__(
        self,
        destination: Any = None,
        timeout: float = 1.0,
        callback: Callable[[Any], None] | None = None,
        connection: Any = None,
        app: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app = app or self.app
        self.destination, self.timeout, self.callback, self.connection = destination, timeout, callback, connection
        self.limit, self.pattern, self.matcher = limit, pattern, matcher

    def _request(self, command: str, **arguments: Any) -> Any:
        wanted = [self.destination] if isinstance(self.destination, str) else self.destination
        reply = self.app.control.broadcast(
            command,
            arguments=arguments,
            destination=wanted,
            callback=self.callback,
            connection=self.connection,
            limit=self.limit,
            timeout=self.timeout,
            reply=True,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        if not reply:
            return None
        nodes = flatten_reply(reply)
        return nodes.get(self.destination) if isinstance(self.destination, str) else nodes

    def report(self) -> Any:
        """A text for people about each worker."""
        return self._request("report")

    def clock(self) -> Any:
        """The Lamport clocks."""
        return self._request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """Tasks that run; with `safe` their arguments as text."""
        return self._request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:  # noqa: ARG002 (Celery's signature)
        """Tasks for later."""
        return self._request("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:  # noqa: ARG002 (Celery's signature)
        """Tasks that are taken and have not begun."""
        return self._request("reserved")

    def stats(self) -> Any:
        """Facts and figures."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Ids of revoked tasks."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Tasks, with these attributes of theirs."""
        return self._request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: Any = None) -> Any:
        """Who is there."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def active_queues(self) -> Any:
        """The queues that are consumed."""
        return self._request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """What is known of tasks in hand, by id."""
        return self._request("query_task", ids=ids[0] if len(ids) == 1 and isinstance(ids[0], list | tuple) else ids)

    def conf(self, with_defaults: bool = False) -> Any:
        """Settings, without secrets."""
        return self._request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """What workers tell one that starts."""
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Memory in use."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Samples of memory."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """A graph of objects (Celery's workers only)."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)
