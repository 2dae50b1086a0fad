"""Workflows that run in the caller's own process: under `task_always_eager`, and by `apply`."""

from __future__ import annotations

from typing import Any

import pytest

from opsq import App, Task, chain, chord, chunks, group, signals, xmap, xstarmap
from opsq.exceptions import Retry
from opsq.result import EagerResult, GroupResult

TOLD: list[Any] = []


def make(eager: bool) -> App:
    app = App("proj", broker="redis://nowhere.invalid", set_as_current=False, task_always_eager=eager)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    @app.task(name="fail")
    def fail(*_values: Any) -> None:
        raise ValueError("no")

    @app.task(name="tell")
    def tell(value: Any) -> None:
        TOLD.append(value)

    @app.task(name="tell_error")
    def tell_error(request: Any, error: BaseException, _traceback: str) -> None:
        TOLD.append((request.id, repr(error)))

    @app.task(name="become", bind=True)
    def become(self: Any, x: int, y: int) -> Any:
        return self.replace(add.s(x, y))

    return app


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    TOLD.clear()


@pytest.fixture(params=[True, False], ids=["always", "apply"])
def run(request: pytest.FixtureRequest) -> Any:
    """The tasks, and how a workflow is run."""
    app = make(request.param)

    def run(workflow: Any, *args: Any) -> Any:
        return workflow.apply_async(args) if request.param else workflow.apply(args)

    run.s = lambda name, *args: app.tasks[name].s(*args)  # type: ignore[attr-defined]
    return run


def test_every_kind_of_workflow_runs_here(run: Any) -> None:
    s = run.s
    assert run(chain(s("add", 1, 1), s("add", 2), s("add", 3))).get() == 7
    assert run(s("add", 2), 1).get() == 3
    assert run(group(s("add", 1, 1), group(s("add", 2, 2)), s("add", 3, 3))).get() == [2, 4, 6]
    assert run(chord([s("add", 1, 1), s("add", 2, 2)], s("total"))).get() == 6
    assert run(chain(s("add", 1, 1), group(s("add", 1), s("add", 2)), s("total"), s("add", 100))).get() == 107
    assert run(chord([], s("total"))).get() == 0
    assert run(xmap(s("total"), [[1], [2, 3]])).get() == [1, 5]
    assert run(xstarmap(s("add"), [(1, 2), (3, 4)])).get() == [3, 7]
    assert run(chunks(s("add"), [(1, 1), (2, 2), (3, 3)], 2)).get() == [[2, 4], [6]]
    assert run(chain(group(s("add", 1), s("add", 2)), s("total")), 10).get() == 23


def test_results_are_there_and_know_their_parents(run: Any) -> None:
    result = run(chain(run.s("add", 1, 1), run.s("add", 2)))
    assert (type(result), result.parent.get(), result.parent.parent) == (EagerResult, 2, None)
    both = run(group(run.s("add", 1, 1), run.s("add", 2, 2)))
    assert isinstance(both, GroupResult)
    assert (both.successful(), both.completed_count(), both.join()) == (True, 2, [2, 4])


def test_callbacks_and_errbacks_are_called_here() -> None:
    app = make(eager=True)
    app.tasks["add"].apply_async((1, 2), link=[app.tasks["tell"].s(), app.tasks["tell"].si("immutable")])
    assert TOLD == [3, "immutable"]
    result = app.tasks["fail"].s().on_error(app.tasks["tell"].s()).on_error(app.tasks["tell_error"].s()).delay()
    assert sorted(map(str, TOLD[2:])) == sorted([str((result.id, "ValueError('no')")), result.id])
    chain(app.tasks["add"].s(1, 1), app.tasks["add"].s(1)).apply_async(link=app.tasks["tell"].s())
    assert TOLD[-1] == 3


def test_errors_are_raised_where_they_are_asked_for() -> None:
    app = make(eager=True)
    with pytest.raises(ValueError, match="no"):
        chord([app.tasks["add"].s(1, 1), app.tasks["fail"].s()])(app.tasks["total"].s())
    with pytest.raises(ValueError, match="no"):
        chain(app.tasks["fail"].s(), app.tasks["add"].s(1)).delay()
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no"):
        group(app.tasks["fail"].s()).delay()


def test_a_task_may_be_replaced_here(run: Any) -> None:
    assert run(chain(run.s("become", 1, 2), run.s("add", 10))).get() == 13
    replaced = run.s("become", 1, 2)
    replaced.link(run.s("tell"))
    replaced.app.conf.task_always_eager = True
    run(replaced)
    assert TOLD == [3]


def test_an_error_that_is_raised_at_the_caller_is_told_to_nobody_else() -> None:
    app, told = App("raised", set_as_current=False), []

    class Told(Task):
        def on_failure(self, *_args: Any) -> None:
            told.append("on_failure")

        def on_retry(self, *_args: Any) -> None:
            told.append("on_retry")

        def after_return(self, *_args: Any) -> None:
            told.append("after_return")

    @app.task
    def errback(*_args: Any) -> None:
        told.append("errback")

    @app.task(base=Told, bind=True)
    def broken(self: Any, again: bool) -> None:
        if again:
            self.retry(exc=KeyError("again"), countdown=0)
        raise ValueError("broken")

    def ended(state: Any = None, **_: Any) -> None:
        told.append(state)

    signals.task_postrun.connect(ended, sender=broken)
    with pytest.raises(ValueError, match="broken"):
        broken.apply((False,), link_error=errback.si(), throw=True)
    with pytest.raises(Retry):
        broken.apply((True,), throw=True)
    assert told == [None, None]
    broken.apply((False,), link_error=errback.si())
    assert told[2:] == ["errback", "on_failure", "after_return", "FAILURE"]
