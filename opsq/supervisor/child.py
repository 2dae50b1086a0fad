"""One program under its life cycle. It decides what is to happen; its hands (the supervisor, the keeper) do it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from opsq.runtime.backoff import delay_s
from opsq.runtime.process import ProcessId, boot_id
from opsq.supervisor.lifecycle import LIVE, Event, State, follow
from opsq.supervisor.plan import Program


class Timer(Protocol):
    """Something that will be called, unless it is cancelled."""

    def cancel(self) -> None:
        """Do not call it."""


class Hands(Protocol):
    """What a child needs done."""

    def changed(self, child: Child) -> None:
        """Its state is another; it has to be kept and told."""

    def signal(self, child: Child, signum: int, group: bool = False) -> None:
        """Signal its main process, or all of that one's process group."""

    def kill_unit(self, child: Child) -> None:
        """Kill all that it started."""

    def sweep_later(self, child: Child) -> None:
        """Kill what is left of it, then call `swept`."""

    def ask(self, child: Child) -> None:
        """Ask the program's socket whether it is ready, until it is."""

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call something after a while."""


class Child:
    """The state of one program. `wanted`: it should run; `asked`: a spawn is ordered and not yet answered."""

    def __init__(self, program: Program, hands: Hands) -> None:
        self.program, self._hands = program, hands
        self.state, self.since = State.STOPPED, time.time()
        self.wanted = self.asked = self.again = self.ready = self.adopted = False
        self.process: ProcessId | None = None
        self.last_process: ProcessId | None = None
        self.started_at: float | None = None
        self.restarts = self.failures = 0
        self.reason: str | None = None
        #: It was told to read its code again and has not said yet what has come of that; why it could not.
        self.reloading, self.reload_trouble = False, ""
        #: Of a command of Celery's: whose program it has become, and what that could not carry over.
        self.runs: str | None = None
        self.note = ""
        self._timer: Timer | None = None

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def live(self) -> bool:
        """Whether a process of it exists, or may at any moment."""
        return self.process is not None or self.asked

    @property
    def launchable(self) -> bool:
        """Whether it waits only for its dependencies."""
        return self.state is State.STARTING and not self.live

    # --- orders -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """It is to run."""
        self.wanted = True
        if self.state is State.STOPPING:
            self.again = True
        elif self.state not in LIVE:
            self.failures = 0
            self._move(Event.START)

    def stop(self) -> None:
        """It is to end, and stay so."""
        self.wanted = self.again = False
        if self.state in (State.STOPPED, State.STOPPING):
            return
        self.reason = None
        was_live = self.state in LIVE
        self._move(Event.STOP)
        if not was_live:
            return
        if self.process is not None:
            self._signal_stop()
        elif not self.asked:
            self._end()

    def restart(self) -> None:
        """It is to end if it runs, and to start again."""
        if self.state in LIVE:
            self.stop()
        self.start()
        self.restarts += 1

    def reload(self) -> None:
        """It is to read its code and settings again."""
        if self.process is not None and self.program.reloadsignal is not None:
            self.reloading, self.reload_trouble = self.program.ready == "notify", ""
            self._hands.signal(self, self.program.reloadsignal)

    def hurry(self) -> None:
        """It has had time enough to stop."""
        if self.state is State.STOPPING:
            self._kill()

    # --- what the keeper says ---------------------------------------------------------------------------------------

    def spawned(self, process: ProcessId, adopted: bool = False) -> None:
        """A process of it runs."""
        self.asked, self.adopted = False, adopted
        self.process = self.last_process = process
        self.started_at = time.time()
        self.runs, self.note = (self.runs, self.note) if adopted else (None, "")
        if self.state is State.STOPPING:
            self._signal_stop()
        else:
            self._await_ready(self.program.startsecs)
        self._hands.changed(self)

    def not_spawned(self, why: str) -> None:
        """The program cannot be executed."""
        self.asked = False
        if self.state is State.STOPPING:
            self._end()
        else:
            self._failed(f"cannot be started: {why}")

    def exited(self, status: int | None) -> None:
        """Its main process ended with this wait status; None: nobody can know."""
        lived_s = time.time() - (self.started_at or time.time())
        code = None if status is None else os.waitstatus_to_exitcode(status)
        self.process, self.asked, self.ready, self.adopted = None, False, False, False
        if self.reloading:
            self.says_reloaded("it ended")
        self._cancel()
        if self.state is State.STOPPING:
            self._hands.sweep_later(self)
        elif self.state is State.STARTING:
            self._failed(f"{_words(code)} after {lived_s:.1f} s")
        else:
            self._ended(code)

    def swept(self) -> None:
        """Nothing of it is left after a stop."""
        if self.state is State.STOPPING and not self.live:
            self._end()

    def says_ready(self) -> None:
        """It is ready: it said so, it answered, or it ran long enough."""
        if self.process is not None and self.state in (State.STARTING, State.RUNNING) and not self.ready:
            self.ready, self.failures, self.reason = True, 0, None
            self._cancel()
            if self.state is State.STARTING:
                self._move(Event.UP)
            self._hands.changed(self)

    def says_what_runs(self, runs: str, note: str) -> None:
        """A command of Celery's has become opsq's program, or Celery's own."""
        self.runs, self.note = runs, note
        self._hands.changed(self)

    def says_reloaded(self, trouble: str) -> None:
        """It has read its code again, or could not."""
        self.reloading, self.reload_trouble = False, trouble

    # --- inside -----------------------------------------------------------------------------------------------------

    def _await_ready(self, startsecs: float) -> None:
        if self.program.answer is not None:
            self._hands.ask(self)
        elif self.program.ready == "running" and startsecs > 0:
            self._set_timer(startsecs, self.says_ready)
        elif self.program.ready == "running":
            self.says_ready()

    def _ended(self, code: int | None) -> None:
        self.reason = _words(code)
        self._move(Event.EXIT)
        expected = code is not None and code in self.program.exitcodes
        if self.program.autorestart == "always" or (self.program.autorestart == "unexpected" and not expected):
            self.restarts += 1
            self._move(Event.START)
        else:
            self.wanted = self.wanted and not expected

    def _failed(self, reason: str) -> None:
        self.failures += 1
        self.reason = reason
        if self.failures > self.program.startretries:
            self._move(Event.GIVE_UP)
        else:
            self._move(Event.FAIL)
            self._set_timer(delay_s(self.failures), self._retry)

    def _retry(self) -> None:
        if self.state is State.BACKOFF:
            self.restarts += 1
            self._move(Event.RETRY)

    def _signal_stop(self) -> None:
        self._hands.signal(self, self.program.stopsignal, self.program.stopasgroup)
        self._set_timer(self.program.stopwaitsecs, self._kill)

    def _kill(self) -> None:
        self.reason = f"killed: it did not stop within {self.program.stopwaitsecs:g} s"
        self._hands.kill_unit(self)

    def _end(self) -> None:
        self._move(Event.END)
        if self.again:
            self.again = False
            self.start()

    def _move(self, event: Event) -> None:
        self.state = follow(self.state, event)
        self.since = time.time()
        self._cancel()
        if event is not Event.UP:
            self.ready = False
        self._hands.changed(self)

    def _set_timer(self, delay_s: float, call: Callable[[], None]) -> None:
        self._cancel()
        self._timer = self._hands.later(delay_s, call)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- for the next daemon ----------------------------------------------------------------------------------------

    def to_record(self) -> dict[str, Any]:
        """What the daemon's successor must know."""
        names = ("state", "since", "wanted", "asked", "again", "ready", "started_at", "restarts", "failures", "reason")
        processes = {"process": self.process, "last_process": self.last_process}
        return {name: getattr(self, name) for name in (*names, "runs", "note")} | {
            name: [process.pid, process.start_ticks] if process else None for name, process in processes.items()
        }

    @staticmethod
    def first_record(wanted: bool) -> dict[str, Any]:
        """What a daemon must know of a program that was never started yet."""
        return {"state": State.STARTING if wanted else State.STOPPED, "wanted": wanted, "process": None}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Be what the daemon before this one wrote down; what became of the process is asked afterwards."""
        for name, value in record.items():
            if name in ("process", "last_process"):
                setattr(self, name, ProcessId(value[0], value[1], boot_id()) if value else None)
            elif name != "state":
                setattr(self, name, value)
        self.state = State(record["state"])

    def resume(self) -> None:
        """Go on after a change of daemon, once it is known what runs."""
        passed_s = time.time() - self.since
        if self.state is State.BACKOFF:
            self._set_timer(max(0.0, delay_s(self.failures) - passed_s), self._retry)
        elif self.state is State.STOPPING:
            self._set_timer(max(0.0, self.program.stopwaitsecs - passed_s), self._kill)
            if not self.live:
                self._hands.sweep_later(self)
        elif self.state is State.STARTING and self.process is not None:
            passed_s = time.time() - (self.started_at or time.time())
            self._await_ready(max(0.0, self.program.startsecs - passed_s))


def _words(code: int | None) -> str:
    if code is None:
        return "ended, exit status unknown"
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
