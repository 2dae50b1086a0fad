"""Results of tasks that have run here, and what every result object can do without a server."""

from __future__ import annotations

import copy
import pickle

import pytest

from opsq import states
from opsq.exceptions import TaskRevokedError
from opsq.result import AsyncResult, EagerResult, allow_join_result, result_from_tuple


def test_the_value_is_there() -> None:
    result = EagerResult("t1", 42, states.SUCCESS, name="proj.add")
    assert result.get() == result.wait(timeout=1) == result.result == result.info == 42
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert (result.id, result.task_id, result.state, result.status) == ("t1", "t1", "SUCCESS", "SUCCESS")
    assert result.name == "proj.add"
    result.forget()
    assert result.get() == 42


def test_an_error_is_raised_or_handed_over() -> None:
    error = ValueError("bad")
    result = EagerResult("t1", error, states.FAILURE, traceback="Traceback ...")
    with pytest.raises(ValueError, match="bad"):
        result.get()
    assert result.get(propagate=False) is error
    assert result.failed()
    assert result.traceback == "Traceback ..."


def test_a_revoked_one_raises_too() -> None:
    with pytest.raises(TaskRevokedError):
        EagerResult("t1", TaskRevokedError("expired"), states.REVOKED).get()


@pytest.mark.parametrize("copied", [copy.copy, lambda result: pickle.loads(pickle.dumps(result))])
def test_it_can_be_copied(copied: object) -> None:
    result = EagerResult("t1", 42, states.SUCCESS)
    again = copied(result)  # type: ignore[operator]
    assert again == result
    assert again.get() == 42


def test_callbacks_are_called_with_the_result() -> None:
    seen = []
    EagerResult("t1", 42, states.SUCCESS).then(lambda result: seen.append(result.get()))
    EagerResult("t2", ValueError("x"), states.FAILURE).then(seen.append, on_error=lambda result: seen.append(result.id))
    assert seen == [42, "t2"]


def test_results_are_equal_by_their_id() -> None:
    app = object()
    one, other = AsyncResult("t1", app=app), AsyncResult("t1", app=app)
    assert one == other
    assert one == "t1"
    assert hash(one) == hash(other)
    assert one != AsyncResult("t2", app=app)
    assert str(one) == "t1"
    assert repr(one) == "<AsyncResult: t1>"


def test_an_id_is_needed() -> None:
    with pytest.raises(ValueError, match="valid id"):
        AsyncResult(None)  # type: ignore[arg-type]


def test_parents_are_kept_as_tuples() -> None:
    app = object()
    result = AsyncResult("t2", app=app, parent=AsyncResult("t1", app=app))
    assert result.as_tuple() == (("t2", (("t1", None), None)), None)
    assert result.as_list() == ["t2", "t1"]
    again = result_from_tuple(result.as_tuple(), app)
    assert again == result
    assert again.parent == result.parent


def test_an_ignored_result_is_none_at_once() -> None:
    result = AsyncResult("t1", app=object())
    result.ignored = True
    assert result.get() is None


def test_waiting_inside_tasks_can_be_allowed_for_a_block() -> None:
    with allow_join_result():
        assert EagerResult("t1", 42, states.SUCCESS).get() == 42
