"""The record of a result: Celery's are read, ours have the same fields in the same order."""

from __future__ import annotations

import json
import os
import timeit
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from support import captures

from opsq import exceptions
from opsq.backends.base import COMPRESSED, Format, encode_meta, encode_success
from opsq.config.options.celery import OPTIONS
from opsq.exceptions import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured, SecurityError
from opsq.execution.context import Context

RESULTS = captures.results()
DEFAULTS = {option.name: option.default for option in OPTIONS}


def request(**more: Any) -> Context:
    return Context(**{"id": "t1", "task": "proj.add", "parent_id": None, "group": None, **more})


@pytest.mark.parametrize("case", [case for case, text in RESULTS.items() if '"status"' in text])
def test_every_record_of_celery_can_be_read(case: str) -> None:
    stored = json.loads(RESULTS[case])
    meta = Format().decode(RESULTS[case].encode())
    assert meta["status"] == stored["status"]
    assert meta["task_id"] == stored["task_id"]
    if stored["status"] in ("FAILURE", "RETRY", "REVOKED"):
        assert isinstance(meta["result"], BaseException)
        assert type(meta["result"]).__name__ == stored["result"]["exc_type"]


@pytest.mark.parametrize(
    ("case", "state", "value", "more"),
    [
        ("result-SUCCESS", "SUCCESS", 3, {}),
        ("result-chain-last", "SUCCESS", 6, {"parent_id": "p"}),
        ("result-group", "SUCCESS", 4, {"group": "g"}),
        ("result-STARTED", "STARTED", {"pid": 1, "hostname": "celery@node1"}, {}),
        ("result-FAILURE", "FAILURE", ValueError("bad input", 42), {}),
        ("result-RETRY", "RETRY", ValueError("flaky"), {}),
        ("result-expired", "REVOKED", exceptions.TaskRevokedError("expired"), {}),
        ("result-worker-lost", "FAILURE", exceptions.WorkerLostError("Worker exited prematurely"), {}),
    ],
)
def test_ours_have_the_fields_of_celerys_in_their_order(
    case: str, state: str, value: Any, more: dict[str, Any]
) -> None:
    theirs = json.loads(RESULTS.get(case) or _member(case))
    ours = json.loads(encode_meta(Format(), "t1", state, value, None, request(**more)))
    assert list(ours) == list(theirs)
    assert ours["status"] == theirs["status"]
    assert (ours["date_done"] is None) == (theirs["date_done"] is None)
    if isinstance(value, BaseException):
        assert {key: ours["result"][key] for key in ("exc_type", "exc_module")} == {
            key: theirs["result"][key] for key in ("exc_type", "exc_module")
        }


def _member(case: str) -> str:
    pytest.skip(f"{case} is not among the captures")


@pytest.mark.parametrize("more", [{}, {"parent_id": "p1"}, {"id": 'od"d\\ \n id é'}])
@pytest.mark.parametrize("value", [None, 0, "x", "größer \u2028", [1, {"a": None}], Decimal("1.5"), b"\xff", 1e300])
def test_the_fast_way_writes_what_the_whole_one_does(value: Any, more: dict[str, Any]) -> None:
    told = request(**more)
    fast = encode_success(told, value)
    assert fast is not None
    slow = json.loads(encode_meta(Format(), told.id, "SUCCESS", value, None, told))
    found = json.loads(fast)
    assert list(found) == list(slow)
    assert {**found, "date_done": None} == {**slow, "date_done": None}


def test_the_time_is_that_of_the_end_in_utc() -> None:
    before = datetime.now(UTC)
    told = json.loads(encode_success(request(), 1) or b"")
    done = datetime.fromisoformat(told["date_done"])
    assert done.utcoffset() == timedelta(0)
    assert before - timedelta(milliseconds=2) <= done <= datetime.now(UTC)


def test_a_success_with_children_or_a_group_takes_the_whole_way() -> None:
    class Child:
        def as_tuple(self) -> tuple[Any, None]:
            return ("c1", None), None

    assert encode_success(request(group="g"), 1) is None
    told = request(children=[Child()])
    assert encode_success(told, 1) is None
    assert json.loads(encode_meta(Format(), "t1", "SUCCESS", 1, None, told))["children"] == [[["c1", None], None]]


def test_stored_outside_of_a_task_the_children_are_unknown() -> None:
    assert json.loads(encode_meta(Format(), "t1", "SUCCESS", 1))["children"] is None


def test_extended_records_tell_the_call() -> None:
    told = request(
        args=[2, 3],
        kwargs={"a": object},
        hostname="celery@node1",
        retries=1,
        delivery_info={"routing_key": "celery"},
        stamps={"tenant": "t1", "other": 1},
        stamped_headers=["tenant"],
    )
    found = json.loads(encode_meta(Format(extended=True), "t1", "SUCCESS", 5, None, told))
    theirs = json.loads(RESULTS["result-SUCCESS-extended"])
    assert list(found) == list(theirs)
    assert (found["name"], found["args"], found["tenant"]) == ("proj.add", [2, 3], "t1")
    assert found["kwargs"] == repr({"a": object})


def test_a_value_that_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(EncodeError):
        encode_success(request(), object())


@pytest.mark.parametrize("method", ["gzip", "bzip2", "lzma"])
def test_compressed_records_say_so_themselves(method: str) -> None:
    packed = encode_meta(Format(compression=method), "t1", "SUCCESS", "x" * 1000)
    assert packed.startswith(COMPRESSED)
    assert len(packed) < 400
    assert Format().decode(packed)["result"] == "x" * 1000


def test_a_small_record_or_one_that_would_grow_is_not_compressed() -> None:
    wanted = Format(compression="gzip")
    assert json.loads(encode_meta(wanted, "t1", "SUCCESS", "x" * 100))["result"] == "x" * 100
    assert len(wanted.packed(os.urandom(2000))) == 2000


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_a_serializer_that_is_not_accepted_is_refused_with_the_setting_to_change(serializer: str) -> None:
    data = encode_meta(Format(serializer=serializer), "t1", "SUCCESS", 1)
    with pytest.raises(ContentDisallowed) as refused:
        Format(serializer=serializer).decode(data)
    assert refused.value.hint == f"add {serializer!r} to result_accept_content"
    conf = {**DEFAULTS, "result_serializer": serializer, "result_accept_content": [serializer]}
    assert Format.of(conf).decode(data)["result"] == 1


@pytest.mark.parametrize(("name", "value"), [("result_compression", "zip"), ("result_serializer", "xml")])
def test_a_setting_that_cannot_be_followed_is_said_at_the_start(name: str, value: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        Format.of({**DEFAULTS, name: value})


def test_with_pickle_an_exception_is_stored_itself() -> None:
    wanted = Format(serializer="pickle", accept=frozenset({"application/x-python-serialize"}))
    found = wanted.decode(encode_meta(wanted, "t1", "FAILURE", ValueError("x", {1, 2})))["result"]
    assert (type(found), found.args) == (ValueError, ("x", {1, 2}))


def test_a_stored_name_that_is_no_exception_is_refused() -> None:
    data = encode_meta(Format(), "t1", "FAILURE", {"exc_type": "system", "exc_module": "os", "exc_message": ["x"]})
    with pytest.raises(SecurityError):
        Format().decode(data)
    with pytest.raises(DecodeError):
        Format().decode(b"{nonsense")


def test_a_simple_success_is_written_within_microseconds() -> None:
    told = request()
    best = min(timeit.repeat(lambda: encode_success(told, 42), number=2000, repeat=20)) / 2000
    assert best < 4e-6  # twice what a quiet machine of today needs
