"""Who waits for whom when programs start and stop."""

from __future__ import annotations

from typing import Any

from opsq.runtime.process import ProcessId
from opsq.supervisor.child import Child
from opsq.supervisor.lifecycle import State
from opsq.supervisor.plan import Program
from opsq.supervisor.precedence import free_to_stop, may_start


def running(*programs: Program) -> dict[str, Child]:
    hands: Any = None
    children = {program.name: Child(program, hands) for program in programs}
    for number, child in enumerate(children.values()):
        child.state, child.process, child.ready = State.RUNNING, ProcessId(1000 + number, 1, "boot"), True
    return children


def program(name: str, priority: int = 999, **depends_on: str) -> Program:
    return Program(name, ("x",), "/", priority=priority, depends_on=depends_on)


def test_who_is_depended_on_stops_after_who_depends_on_it() -> None:
    children = running(program("redis"), program("worker", redis="ready"), program("web", worker="ready"))
    assert free_to_stop(children, children) == ["web"]
    assert free_to_stop(children, ["redis", "worker"]) == ["worker"]
    assert free_to_stop(children, ["redis"]) == ["redis"]
    children["web"].state = State.STOPPING
    assert free_to_stop(children, ["redis", "worker"]) == []


def test_lower_priorities_wait_and_equal_ones_go_together() -> None:
    children = running(program("a", 1), program("b", 2), program("c", 2), program("d", 3))
    assert free_to_stop(children, ["a", "b", "c"]) == ["b", "c"]
    assert free_to_stop(children, children) == ["d"]
    children["b"].process = None
    assert free_to_stop(children, children) == ["d", "b"]


def test_a_start_waits_for_what_is_needed_and_not_about_to_stop() -> None:
    children = running(program("redis"), program("worker", redis="ready"), program("web", redis="started"))
    worker, web = children["worker"], children["web"]
    assert may_start(worker, children, [])
    assert not may_start(worker, children, ["redis"])
    children["redis"].ready = False
    assert not may_start(worker, children, [])
    assert may_start(web, children, [])
    children["redis"].state = State.STOPPING
    assert not may_start(web, children, [])
