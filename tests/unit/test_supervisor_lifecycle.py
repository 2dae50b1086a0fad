"""The life cycle of one program: its table, and the child that walks through it, by random walks."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from opsq.runtime.process import ProcessId
from opsq.supervisor.child import Child
from opsq.supervisor.lifecycle import LIVE, TABLE, Event, State, follow
from opsq.supervisor.plan import Program


def test_every_state_is_reached_and_can_be_left() -> None:
    assert {state for state, _event in TABLE} == set(State)
    assert set(TABLE.values()) == set(State)


def test_start_and_stop_work_wherever_they_make_sense() -> None:
    for state in set(State) - LIVE:
        assert follow(state, Event.START) is State.STARTING
    for state in set(State) - {State.STOPPED, State.STOPPING}:
        assert follow(state, Event.STOP) in (State.STOPPING, State.STOPPED)


@given(st.sampled_from(State), st.sampled_from(Event))
def test_what_is_not_in_the_table_is_refused(state: State, event: Event) -> None:
    if (state, event) not in TABLE:
        with pytest.raises(ValueError, match="cannot happen"):
            follow(state, event)


@dataclass
class Call:
    """A timer that was set."""

    delay_s: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Hands:
    """Remembers what a child wants done; the test decides when it happens."""

    signals: list[int] = field(default_factory=list)
    timers: list[Call] = field(default_factory=list)
    sweeps: int = 0
    kills: int = 0

    def changed(self, child: Child) -> None:
        pass

    def signal(self, child: Child, signum: int, group: bool = False) -> None:  # noqa: ARG002
        self.signals.append(signum)

    def kill_unit(self, child: Child) -> None:  # noqa: ARG002
        self.kills += 1

    def sweep_later(self, child: Child) -> None:  # noqa: ARG002
        self.sweeps += 1

    def ask(self, child: Child) -> None:
        pass

    def later(self, delay_s: float, call: Callable[[], None]) -> Call:
        self.timers.append(Call(delay_s, call))
        return self.timers[-1]

    def set(self) -> list[Call]:
        return [timer for timer in self.timers if not timer.cancelled]

    def ring(self) -> None:
        (timer,) = self.set()
        timer.cancelled = True
        timer.call()


def made(**values: Any) -> tuple[Child, Hands]:
    hands = Hands()
    return Child(Program("web", ("web",), "/", **values), hands), hands


def process(pid: int = 100) -> ProcessId:
    return ProcessId(pid, pid, "boot")


def launched(child: Child, pid: int = 100) -> None:
    assert child.launchable
    child.asked = True
    child.spawned(process(pid))


def test_a_program_runs_when_it_has_lived_long_enough() -> None:
    child, hands = made(startsecs=2.5)
    child.start()
    launched(child)
    assert (child.state, child.ready, [timer.delay_s for timer in hands.set()]) == (State.STARTING, False, [2.5])
    hands.ring()
    assert (child.state, child.ready) == (State.RUNNING, True)


def test_a_program_that_says_it_is_ready_is_not_waited_for() -> None:
    child, hands = made(startsecs=60)
    child.start()
    launched(child)
    child.says_ready()
    assert (child.state, child.ready, hands.set()) == (State.RUNNING, True, [])


def test_pauses_between_failed_starts_grow_until_it_is_given_up() -> None:
    child, hands = made(startretries=4)
    child.start()
    pauses = []
    for failures in range(1, 5):
        launched(child, failures)
        child.exited(256)
        assert child.state is State.BACKOFF
        pauses.append(hands.set()[0].delay_s)
        hands.ring()
    launched(child)
    child.exited(256)
    assert child.state is State.FATAL
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(pauses))
    assert child.reason is not None
    assert child.reason.startswith("exited with 1 after")


def test_a_good_run_forgives_failures() -> None:
    child, hands = made(startretries=1)
    child.start()
    for _ in range(5):
        launched(child)
        child.exited(256)
        hands.ring()
        launched(child)
        child.says_ready()
        child.exited(signal.SIGKILL)
        assert child.state is State.STARTING


@pytest.mark.parametrize(
    ("autorestart", "status", "again"),
    [
        ("always", 0, True),
        ("unexpected", 0, False),
        ("unexpected", 256, True),
        ("unexpected", None, True),
        ("unexpected", signal.SIGKILL, True),
        ("never", 256, False),
    ],
)
def test_which_ends_are_followed_by_a_start(autorestart: str, status: int | None, again: bool) -> None:
    child, _hands = made(autorestart=autorestart, startsecs=0)
    child.start()
    launched(child)
    child.exited(status)
    assert child.state is (State.STARTING if again else State.EXITED)
    assert child.restarts == int(again)


def test_a_stop_signals_once_then_kills_and_is_over_when_nothing_is_left() -> None:
    child, hands = made(startsecs=0, stopsignal=signal.SIGINT, stopwaitsecs=7)
    child.start()
    launched(child)
    child.stop()
    child.stop()
    assert hands.signals == [signal.SIGINT]
    assert hands.set()[0].delay_s == 7
    hands.ring()
    assert hands.kills == 1
    child.exited(signal.SIGKILL)
    assert (child.state, hands.sweeps) == (State.STOPPING, 1)
    child.swept()
    assert (child.state, child.wanted) == (State.STOPPED, False)


def test_a_stop_during_the_spawn_reaches_the_process_that_comes_of_it() -> None:
    child, hands = made()
    child.start()
    child.asked = True
    child.stop()
    assert (child.state, hands.signals) == (State.STOPPING, [])
    child.spawned(process())
    assert hands.signals == [signal.SIGTERM]


def test_a_restart_starts_again_only_after_the_end() -> None:
    child, _hands = made(startsecs=0)
    child.start()
    launched(child)
    child.restart()
    assert child.state is State.STOPPING
    child.exited(0)
    child.swept()
    assert (child.state, child.launchable, child.restarts) == (State.STARTING, True, 1)


class Walk(RuleBasedStateMachine):
    """Any order of orders and events: never two processes, never a lost wish, and the record says it all."""

    @initialize(
        startsecs=st.sampled_from([0, 1]),
        retries=st.integers(0, 2),
        autorestart=st.sampled_from(["always", "unexpected", "never"]),
    )
    def begin(self, startsecs: float, retries: int, autorestart: str) -> None:
        self.child, self.hands = made(startsecs=startsecs, startretries=retries, autorestart=autorestart)
        self.pid = 0

    @rule()
    def start(self) -> None:
        self.child.start()
        assert self.child.wanted

    @rule()
    def stop(self) -> None:
        self.child.stop()
        assert not self.child.wanted

    @rule()
    def restart(self) -> None:
        self.child.restart()

    @precondition(lambda self: self.child.launchable)
    @rule()
    def ask(self) -> None:
        self.child.asked = True

    @precondition(lambda self: self.child.asked)
    @rule(works=st.booleans())
    def answer(self, works: bool) -> None:
        self.pid += 1
        if works:
            self.child.spawned(process(self.pid))
        else:
            self.child.not_spawned("no such file")

    @precondition(lambda self: self.child.process is not None)
    @rule(status=st.sampled_from([0, 256, signal.SIGKILL, None]))
    def exit(self, status: int | None) -> None:
        self.child.exited(status)

    @precondition(lambda self: self.child.process is not None)
    @rule()
    def ready(self) -> None:
        self.child.says_ready()

    @precondition(lambda self: self.hands.set())
    @rule()
    def time_passes(self) -> None:
        self.hands.ring()

    @precondition(lambda self: self.hands.sweeps)
    @rule()
    def sweep(self) -> None:
        self.hands.sweeps = 0
        self.child.swept()

    @rule()
    def change_daemon(self) -> None:
        record, old = self.child.to_record(), self.child
        self.hands = Hands()
        self.child = Child(old.program, self.hands)
        self.child.restore(record)
        process = self.child.process
        self.child.process = self.child.last_process = old.process and ProcessId(process.pid, process.pid, "boot")
        self.child.resume()
        assert (self.child.state, self.child.wanted, self.child.live) == (old.state, old.wanted, old.live)

    @invariant()
    def one_process_at_most(self) -> None:
        child = self.child
        assert not (child.asked and child.process is not None)
        assert child.state in LIVE or not child.live

    @invariant()
    def ready_is_running(self) -> None:
        assert not self.child.ready or self.child.state is State.RUNNING

    @invariant()
    def something_will_happen(self) -> None:
        """What is under way is waited for: by a timer, by an answer, or by the program's end."""
        child = self.child
        if child.state is State.BACKOFF:
            assert len(self.hands.set()) == 1
        if child.state is State.STOPPING:
            assert child.live or self.hands.sweeps
        assert len(self.hands.set()) <= 1


TestWalk = Walk.TestCase
