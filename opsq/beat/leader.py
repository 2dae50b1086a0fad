"""One of many beats ticks: who holds the lease of an app's schedule in Redis.

The lease alone does not fence: whatever is sent is sent by a script that looks at the lease in the same step
(`tick.lua`), so a beat that lost it without knowing sends nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsq.broker.broker import Broker
from opsq.datastore import keys
from opsq.datastore.scripts import Script
from opsq.runtime.process import ProcessId, boot_id, is_alive, myself, open_pidfd

#: Seconds until another beat takes over when one is gone without a word. One that ends well gives the lease back, and
#: that of a process of this machine which has died is taken at once.
LEASE_S = 12.0

_LEAD = Script(Path(__file__).parents[1] / "broker" / "lua" / "lead.lua")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lease, as it says, and how long it still lasts (seconds)."""

    value: str
    left_s: float

    @property
    def who(self) -> str:
        """For people."""
        told = _read(self.value)
        return f"process {told.get('pid')} on {told.get('host')}"


class Leader:
    """This process's part in it."""

    def __init__(self, broker: Broker, app: str, lease_s: float = LEASE_S) -> None:
        self._broker, self._app, self.lease_s = broker, app, lease_s
        self._key = broker.key(keys.schedule(app, "lease"))
        about = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), "space": _pid_space()}
        #: What the lease says while it is ours: unlike that of any other start.
        self.value = json.dumps({"token": uuid.uuid4().hex, **about, "process": str(myself())})

    def take(self) -> Holder:
        """Take the lease or keep it; who has it now. Raises RedisError."""
        holder = self._ask("")
        if holder.value != self.value and _is_dead(holder.value):
            holder = self._ask(holder.value)
        return holder

    def watch(self, holder: Holder) -> int | None:
        """A descriptor that can be read when the process that has the lease ends, if it is one that we can see."""
        process = _visible(holder.value)
        return None if process is None or self.holds(holder) else open_pidfd(process)

    def holds(self, holder: Holder) -> bool:
        """Whether that is us."""
        return holder.value == self.value

    def give_up(self) -> None:
        """Let another one tick at once. Raises RedisError."""
        _LEAD.run(self._broker.client, [self._key], [self.value, 0, ""])
        self._broker.client.publish(self._broker.key(keys.schedule_channel(self._app)), "free")

    def _ask(self, dead: str) -> Holder:
        held, left_ms = _LEAD.run(self._broker.client, [self._key], [self.value, int(self.lease_s * 1000), dead])
        return Holder(held.decode(), max(left_ms, 0) / 1000)


def _read(value: str) -> dict[str, Any]:
    try:
        told = json.loads(value)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _visible(value: str) -> ProcessId | None:
    """The holder, if we would see it as long as it lives: same machine, same name space of process ids."""
    told = _read(value)
    process = ProcessId.parse(str(told.get("process")))
    here = process is not None and process.boot_id == boot_id() and told.get("space") == _pid_space()
    return process if here else None


def _is_dead(value: str) -> bool:
    """Whether the holder was a process that we could see if it lived, and do not see."""
    process = _visible(value)
    return process is not None and not is_alive(process)


def _pid_space() -> str:
    """The name space of process ids: one container does not see the processes of another."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return uuid.uuid4().hex
