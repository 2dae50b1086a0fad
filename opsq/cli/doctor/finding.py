"""What a check gets to look at, and what it may find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from opsq.broker import queues, workers
from opsq.broker.broker import Broker
from opsq.broker.queues import QueueState
from opsq.datastore.connection import errors
from opsq.datastore.trouble import ResponseError
from opsq.runtime.statedir import StateDir

#: Messages of each queue that are read to see which tasks wait.
SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: what, why it matters, and the command or line that mends it."""

    what: str
    why: str
    mend: str


class Look:
    """This installation, read once and only as far as the checks ask."""

    def __init__(self, app: Any, state_dir: StateDir, app_named: bool) -> None:
        """`app_named`: whether it is the user's app, not opsq's own small one."""
        self.app, self.state_dir, self.app_named = app, state_dir, app_named

    @cached_property
    def broker(self) -> Broker:
        """The broker of the app."""
        found: Broker = self.app.broker
        return found

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the server says of itself. Raises BrokerError when it cannot be reached."""
        with errors(self.broker.url):
            found: Any = self.broker.client.info()
        return dict(found)

    def server_setting(self, name: str) -> str | None:
        """A setting of the server, None where it does not tell (CONFIG is often forbidden)."""
        with errors(self.broker.url):
            try:
                found: Any = self.broker.client.config_get(name)
            except ResponseError:
                return None
        value = next(iter(found.values()), None)
        return value.decode() if isinstance(value, bytes) else value

    @cached_property
    def workers(self) -> list[dict[str, Any]]:
        """The opsq workers that live."""
        return workers.live(self.broker)

    @cached_property
    def queues(self) -> list[QueueState]:
        """All queues that are known here."""
        return queues.states(self.broker, queues.known(self.broker, self.app.queues()))


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table: its name, what it looks at in words, and how."""

    name: str
    looks_at: str
    find: Callable[[Look], Iterator[Finding]]
