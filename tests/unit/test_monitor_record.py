"""What becomes of a task's record as its events come: in order, late, doubled, or made up by a stranger."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import captures, event_source

from opsq.monitor import decoding
from opsq.monitor import record as records
from opsq.monitor.record import Event, Record


def told(*events: dict[str, Any]) -> Record:
    """The record of one task after these events."""
    record = Record(events[0]["uuid"])
    for each in events:
        records.apply(record, msgspec.convert(each, Event))
    return record


def test_a_run_is_told_from_its_events() -> None:
    record = told(*event_source.call("proj.add", task_id="t1", at=1000.0, runtime=2.0, parent_id="p1", root_id="r1"))
    assert (record.name, record.state, record.args, record.result) == ("proj.add", "SUCCESS", "(2, 3)", "5")
    assert (record.received, record.finished, record.runtime) == (1000.0, 1002.0, 2.0)
    assert (record.worker, record.root_id, record.parent_id) == (event_source.NODE, "r1", "p1")


@given(st.permutations(range(3)), st.sampled_from(["task-succeeded", "task-failed", "task-revoked"]))
def test_the_order_in_which_events_come_does_not_matter(order: list[int], end: str) -> None:
    events = event_source.call(end=end, task_id="t1", at=1000.0)
    assert told(*(events[place] for place in order)) == told(*events)


@given(st.lists(st.integers(0, 2), min_size=3, max_size=9))
def test_doubled_events_change_nothing(order: list[int]) -> None:
    events = event_source.call(task_id="t1", at=1000.0)
    assert told(*events, *(events[place] for place in order)) == told(*events)


def test_retries_are_remembered_with_their_errors() -> None:
    first = event_source.call(end="task-retried", task_id="t1", at=1000.0)
    second = event_source.call(end="task-retried", task_id="t1", at=1010.0, retries=1)
    record = told(*first, *second, *event_source.call(task_id="t1", at=1020.0, retries=2))
    assert record.state == "SUCCESS"
    assert record.retries == 2
    assert [each.exception for each in record.tries] == ["ConnectionError('away')"] * 2
    assert record.exception == ""


def test_a_task_that_is_run_again_is_open_again() -> None:
    record = told(*event_source.call(end="task-failed", task_id="t1", at=1000.0))
    for each in event_source.call(end="none", task_id="t1", at=2000.0):
        records.apply(record, msgspec.convert(each, Event))
    assert record.state == "STARTED"


def test_long_texts_are_cut() -> None:
    record = told(*event_source.call("n" * 999, task_id="t1", args="x" * 99_999, kwargs="y" * 99_999))
    assert len(record.name) == records.NAME_LIMIT
    assert len(record.args) == len(record.kwargs) == records.TEXT_LIMIT


@pytest.mark.parametrize("name", sorted(captures.events().keys() - {"multi"}))
def test_events_of_a_real_celery_are_read(name: str) -> None:
    message = captures.events()[name].encode()
    found, unreadable = decoding.read([message], time.time() * 2)
    assert unreadable == 0
    assert name in [each.type for each in found]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b'{"body": 1}',
        b'{"body": "%%%", "properties": {"body_encoding": "base64"}}',
        b'{"body": "[[[[", "properties": {}}',
        b'{"body": "' + b"[" * 100_000 + b'", "properties": {}}',
        b'{"body": "[]", "properties": {}, "content-type": "application/x-python-serialize"}',
        b'{"body": "[]", "properties": {}, "headers": {"compression": "application/x-gzip"}}',
        b" " * (decoding.MESSAGE_LIMIT + 1),
    ],
)
def test_what_is_no_message_of_events_is_counted_and_left(message: bytes) -> None:
    assert decoding.read([message, event_source.envelope([])], 1000.0) == ([], 1)


def test_fields_of_other_types_are_left_out() -> None:
    odd = event_source.event("task-received", uuid="t1", name=["no text"], retries="many", args="(1,)")
    [found], unreadable = decoding.read([event_source.envelope([odd])], time.time())
    assert (unreadable, found.uuid, found.name, found.retries, found.args) == (0, "t1", None, None, "(1,)")


@pytest.mark.parametrize("stamp", [1e300, -5.0, 0.0, 4e9])
def test_a_time_that_cannot_be_is_taken_for_now(stamp: float) -> None:
    message = event_source.envelope([event_source.event("task-started", uuid="t1", timestamp=stamp)])
    [found], _ = decoding.read([message], 1000.0)
    assert found.timestamp == 1000.0


def test_events_without_a_task_are_nobodys() -> None:
    odd = [event_source.event("task-started"), event_source.event("task-started", uuid="x" * 9999), {"type": 5}]
    assert decoding.read([event_source.envelope(odd)], 1000.0) == ([], 0)


@given(st.binary(max_size=200))
def test_no_bytes_stop_the_reader(junk: bytes) -> None:
    decoding.read([junk, event_source.envelope(json.loads(json.dumps({"type": junk.hex()})))], 1000.0)


def test_a_record_survives_its_bytes() -> None:
    record = told(*event_source.call(end="task-retried", task_id="t1", at=1000.0))
    assert records.decode(records.encode(record)) == record
    assert records.described(Record("t2"))["finished"] is None
