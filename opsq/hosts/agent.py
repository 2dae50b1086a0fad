"""`opsq agent`: a host's own program. It takes signed orders from its brokers, checks them, runs them, and answers.

No app and no user code is ever imported into it.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from opsq.exceptions import BrokerError, OpsqError
from opsq.hosts import joined
from opsq.hosts.checks import Checks
from opsq.hosts.facts import fixed_facts, machine_id
from opsq.hosts.keyring import KeyRing
from opsq.hosts.lease import Lease
from opsq.hosts.nonces import Nonces
from opsq.hosts.policy import Policy
from opsq.hosts.runner import STOPPING, environment_of_commands
from opsq.hosts.slots import Slots
from opsq.hosts.station import Host, Station
from opsq.runtime import notify
from opsq.runtime.bell import Bell

logger = logging.getLogger("opsq.agent")

_LOOK_S = 5.0
_GOOD_BYE_S = 3.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the agent is to run. `broker`: the project's, if there is one; those that were joined come on top."""

    name: str
    broker: str | None
    tags: Sequence[str] = ()
    slots: int = 8
    lease_s: float = 15.0
    #: How long running commands may take to end by themselves when the agent stops (seconds).
    stop_wait_s: float = 20.0


class Agent:
    """The program. `run` returns when it was asked to stop."""

    def __init__(self, ring: KeyRing, wishes: Wishes) -> None:
        """Raises OpsqError when keys or memory cannot be used, or there is no broker at all."""
        self._ring, self._wishes = ring, wishes
        ring.ensure()
        key = ring.host()
        self._machine = machine_id(key.public)
        try:
            nonces = Nonces(ring.nonces, time.time())
        except OSError as error:
            raise OpsqError(f"cannot use {ring.nonces}", why=(error.strerror or str(error)).lower()) from None
        checks = Checks(wishes.name, Policy(ring), nonces, time.time)
        environment = environment_of_commands() | {"OPSQ_HOST": wishes.name}
        self._slots = Slots(wishes.slots, checks, environment)
        facts = fixed_facts(wishes.name, key.public, wishes.tags)
        self._host = Host(wishes.name, key, checks, self._slots, wishes.lease_s, facts)
        self._stations: dict[str, Station] = {}
        self._bell = Bell()
        self._ready = False
        if not self._urls():
            raise BrokerError(
                "no broker configured and none running here",
                hint="run `opsq up`, `opsq join TOKEN`, or set broker_url (or OPSQ_BROKER_URL)",
            )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP looks for new brokers. Raises what refuses this host everywhere."""
        self._watch_signals()
        self._open_stations()
        stops = 0
        while not stops:
            readable, _, _ = select.select([self._bell.reader], [], [], _LOOK_S)
            told = self._bell.read() if readable else b""
            stops = sum(number in (signal.SIGTERM, signal.SIGINT) for number in told)
            self._say_when_ready()
            self._raise_if_refused()
            self._raise_if_in_vain()
            self._open_stations()
        notify.stopping()
        logger.info("%s stops", self._host.name)
        self._stop(patience_s=0.0 if stops > 1 else self._wishes.stop_wait_s)

    def _watch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._bell.writer, warn_on_full_buffer=False)

    def _urls(self) -> list[str]:
        own = [self._wishes.broker] if self._wishes.broker else []
        return list(dict.fromkeys([*own, *joined.brokers(self._ring)]))

    def _open_stations(self) -> None:
        """A station at each broker; those that were joined since come on top."""
        try:
            urls = self._urls()
        except OpsqError as error:
            logger.warning("%s", error)
            return
        for url in urls:
            if url not in self._stations:
                lease = Lease(self._host.name, self._machine, self._ring.root, url, self._wishes.lease_s)
                station = self._stations[url] = Station(self._host, url, lease, self._bell.ring)
                station.start()

    def _say_when_ready(self) -> None:
        states = [station.state for station in self._stations.values()]
        if not self._ready and any(state in ("serving", "standing by") for state in states):
            self._ready = True
            logger.info("%s ready.", self._host.name)
            notify.ready(f"{self._host.name}: {', '.join(states)}")

    def _raise_if_in_vain(self) -> None:
        """Whoever types the command hears at once that no broker answers; under a supervisor it is waited for."""
        errors = [station.error for station in self._stations.values()]
        if not self._ready and not os.environ.get("NOTIFY_SOCKET") and all(errors) and errors[0] is not None:
            raise errors[0]

    def _raise_if_refused(self) -> None:
        stations = list(self._stations.values())
        refused = [station for station in stations if station.state == "refused"]
        for station in refused:
            assert station.error is not None
            if len(refused) == len(stations):
                raise station.error
            logger.error("%s (hint: %s)", station.error, station.error.hint)
            station.state = "connecting"  # said once; the other brokers are served

    def _stop(self, patience_s: float) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):  # from now on one more ends what runs at once
            signal.signal(number, lambda *_: self._slots.hurry(STOPPING))
        for station in self._stations.values():
            station.stop_taking()
        self._slots.close(STOPPING, patience_s)
        for station in self._stations.values():
            station.leave(_GOOD_BYE_S)
