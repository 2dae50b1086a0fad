"""Exceptions as data: what Celery stores, and what is made of it again."""

from __future__ import annotations

import json
import sys
from decimal import Decimal

import pytest
from support import captures

from opsq import exceptions
from opsq.exceptions import (
    DecodeError,
    EncodeError,
    NotRegistered,
    Reject,
    SecurityError,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
)
from opsq.protocol import failure, jsontypes


class Unwritable:
    def __repr__(self) -> str:
        return "<something>"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Outer:
    class Inner(ValueError):
        pass


class Demanding(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


def stored(error: BaseException) -> dict:
    return jsontypes.loads(jsontypes.dumps(failure.to_data(error)))


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("result-FAILURE", ValueError("bad input", 42)),
        ("result-hard-time-limit", TimeLimitExceeded(2)),
        ("result-soft-time-limit", SoftTimeLimitExceeded()),
        ("result-unregistered", NotRegistered("proj.nope")),
        ("result-REJECTED-norequeue", Reject("no", False)),
        ("result-REVOKED", exceptions.TaskRevokedError("revoked")),
        ("result-worker-lost", exceptions.WorkerLostError("Worker exited prematurely: exitcode 3 Job: 16.")),
    ],
)
def test_a_failure_is_stored_as_celery_stores_it_and_read_again(case: str, error: BaseException) -> None:
    recorded = json.loads(captures.results()[case])["result"]
    assert stored(error) == recorded
    again = failure.from_data(recorded)
    assert type(again) is type(error)
    assert again.args == error.args


def test_classes_that_only_opsq_has_keep_their_module() -> None:
    assert failure.to_data(exceptions.BrokerError("x"))["exc_module"] == "opsq.exceptions"


def test_arguments_that_json_cannot_hold_are_kept_as_text() -> None:
    data = stored(ValueError(Unwritable(), {1, 2}, Decimal("1.5"), b"x", Unprintable()))
    assert data["exc_message"][:4] == ["<something>", "{1, 2}", Decimal("1.5"), b"x"]
    assert "RuntimeError" in data["exc_message"][4]


def test_a_nested_class_is_found_by_its_qualified_name() -> None:
    again = failure.from_data(stored(Outer.Inner("x")))
    assert type(again) is Outer.Inner


def test_a_class_that_is_not_imported_here_is_made_up() -> None:
    again = failure.from_data({"exc_type": "Strange", "exc_message": ["a", 1], "exc_module": "never.imported"})
    assert (type(again).__name__, type(again).__module__, again.args) == ("Strange", "never.imported", ("a", 1))
    assert "never.imported" not in sys.modules


def test_reading_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    failure.from_data({"exc_type": "Zen", "exc_message": [], "exc_module": "this"})
    assert "this" not in sys.modules


@pytest.mark.parametrize("name", ["celery.exceptions", "opsq.exceptions"])
def test_celerys_names_become_ours(name: str) -> None:
    again = failure.from_data({"exc_type": "MaxRetriesExceededError", "exc_message": ["x"], "exc_module": name})
    assert type(again) is exceptions.MaxRetriesExceededError


def test_without_a_module_and_with_plain_text_it_is_read_too() -> None:
    again = failure.from_data({"exc_type": "Old", "exc_message": "text"})
    assert (type(again).__name__, again.args) == ("Old", ("text",))


def test_a_class_that_wants_other_arguments_becomes_a_plain_exception() -> None:
    again = failure.from_data(stored(Demanding(1, "x")))
    assert type(again) is Exception
    assert "Demanding" in str(again)
    assert "1: x" in str(again)


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("os", "path"), ("builtins", "eval"), ("builtins", "int"), ("os", "sys.exit")],
)
def test_what_is_no_exception_is_refused(module: str, name: str) -> None:
    with pytest.raises(SecurityError, match="no exception"):
        failure.from_data({"exc_type": name, "exc_message": ["touch /tmp/never"], "exc_module": module})


@pytest.mark.parametrize("data", [{}, {"exc_message": []}, {"exc_type": 1}, {"exc_type": "X", "exc_module": []}, []])
def test_what_is_no_stored_exception_is_refused(data: object) -> None:
    with pytest.raises(DecodeError):
        failure.from_data(data)  # type: ignore[arg-type]


def test_a_reason_is_stored_with_what_could_not_be_done() -> None:
    error = EncodeError("cannot write the value as JSON", why="set is no type that JSON can hold", hint="a list")
    data = stored(error)
    assert data["exc_message"] == ["cannot write the value as JSON: set is no type that JSON can hold"]
    again = failure.from_data(data)
    assert type(again) is EncodeError
    assert str(again) == str(error)
