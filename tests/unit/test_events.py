"""Events on the wire and as a state: what is written can be read, by kombu's rules, whatever is in it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.events import event
from opsq.events.dispatcher import LONGEST, Sender, TaskEvents
from opsq.events.event import Channels, Wrapper
from opsq.events.state import State
from opsq.exceptions import DecodeError
from opsq.protocol import envelope, writing

NODE = "celery@node1"
COMMON = ["hostname", "utcoffset", "pid", "clock", "uuid"]


def events_of(clock: int = 0) -> TaskEvents:
    return TaskEvents(Wrapper(NODE), NODE, lambda: clock, lambda _value: None)


def message(task_id: str = "id-1", **call: object) -> envelope.Envelope:
    arguments = {"task": "proj.add", "args": (2, 3), "kwargs": {}, "queue": "celery", **call}
    return envelope.parse(writing.build(id=task_id, **arguments))  # type: ignore[arg-type]


def test_one_message_has_all_events_of_a_turn_with_celerys_fields() -> None:
    told = events_of()
    told.began(message())
    told.succeeded("id-1", "5", 0.25)
    told.failed("id-2", "ValueError('bad')", "Traceback ...")
    told.retried("id-3", "KeyError('x')", None)
    told.rejected("id-4", True)
    told.revoked("id-5", expired=True)
    payload = told.take()
    assert payload is not None
    assert told.take() is None
    whole = json.loads(payload)
    assert whole["headers"] == {"hostname": NODE}
    assert whole["content-type"] == "application/json"
    assert whole["content-encoding"] == "utf-8"
    properties = whole["properties"]
    assert properties.pop("delivery_tag")
    assert properties == {
        "delivery_mode": 1,
        "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"},
        "priority": 0,
        "body_encoding": "base64",
    }
    found = json.loads(base64.b64decode(whole["body"]))
    assert [list(each) for each in found] == [
        [
            *COMMON,
            "name",
            "args",
            "kwargs",
            "root_id",
            "parent_id",
            "retries",
            "eta",
            "expires",
            "routing_key",
            "timestamp",
            "type",
        ],
        [*COMMON, "timestamp", "type"],
        [*COMMON, "result", "runtime", "timestamp", "type"],
        [*COMMON, "exception", "traceback", "timestamp", "type"],
        [*COMMON, "exception", "traceback", "timestamp", "type"],
        [*COMMON, "requeue", "timestamp", "type"],
        [*COMMON, "terminated", "signum", "expired", "timestamp", "type"],
    ]
    assert [each["type"].removeprefix("task-") for each in found] == [
        *("received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
    ]
    assert [each["clock"] for each in found] == [1, 2, 3, 4, 5, 6, 7]
    assert found[0]["args"] == "(2, 3)"
    assert event.read(payload) == found


@given(st.text(), st.text(), st.text())
def test_whatever_is_in_a_task_its_events_can_be_read(task_id: str, result: str, shadow: str) -> None:
    told = events_of()
    made = message()
    made.headers.id, made.headers.shadow = task_id, shadow
    told.began(made)
    told.succeeded(task_id, result, 0.0)
    payload = told.take()
    assert payload is not None
    received, _started, succeeded = event.read(payload)
    assert (received["uuid"], received["name"]) == (task_id, shadow or "proj.add")
    assert succeeded["result"] == result


def test_half_a_character_and_broken_arguments_spoil_no_other_event() -> None:
    told = events_of()
    told.succeeded("id-1", "good", 0.0)
    told.failed("id-2", "ValueError('\ud800')", "half \udcff")
    broken = writing.build(task="proj.add", id="id-3", args=(), kwargs={}, queue="celery", argsrepr="@@@")
    told.began(envelope.parse(broken.replace(b"@@@", b"\xff")))
    payload = told.take()
    assert payload is not None
    assert [each["uuid"] for each in event.read(payload)] == ["id-1", "id-2", "id-3", "id-3"]


def test_endless_arguments_are_not_told() -> None:
    told = events_of()
    raw = writing.build(task="proj.add", id="id-1", args=(), kwargs={}, queue="celery", argsrepr="@@@")
    told.began(envelope.parse(raw.replace(b"@@@", b"x" * LONGEST)))
    payload = told.take()
    assert payload is not None
    assert event.read(payload)[0]["args"] == "..."


def test_the_clock_goes_on_from_where_the_worker_is() -> None:
    page = [41]
    told = TaskEvents(Wrapper(NODE), NODE, lambda: page[0], lambda value: page.__setitem__(0, value))
    told.tick()
    told.succeeded("id-1", "", 0.0)
    payload = told.take()
    assert payload is not None
    assert event.read(payload)[0]["clock"] == page[0] == 42


def test_a_single_event_has_a_channel_of_its_own() -> None:
    routing_key, payload = Sender(Wrapper(NODE), NODE).about_worker("worker-heartbeat", 7, 2.0, 1, 9)
    assert routing_key == "worker.heartbeat"
    (told,) = event.read(payload)
    assert list(told) == [
        *("hostname", "utcoffset", "pid", "clock", "freq", "active", "processed", "loadavg"),
        *("sw_ident", "sw_ver", "sw_sys", "timestamp", "type"),
    ]
    assert (told["clock"], told["freq"], told["active"], told["processed"]) == (7, 2.0, 1, 9)


@pytest.mark.parametrize(
    ("options", "name", "pattern"),
    [
        ({}, "/3.celeryev/task.multi", "/3.celeryev/*"),
        ({"global_keyprefix": "acme:"}, "acme:/3.celeryev/task.multi", "acme:/3.celeryev/*"),
        ({"fanout_prefix": False}, "celeryev/task.multi", "celeryev/*"),
        ({"fanout_prefix": "x{db}y."}, "x3y.celeryev/task.multi", "x3y.celeryev/*"),
        ({"fanout_patterns": False}, "/3.celeryev", "/3.celeryev"),
    ],
)
def test_channels_have_kombus_names(options: dict[str, object], name: str, pattern: str) -> None:
    channels = Channels.of(3, options)
    assert channels.name("celeryev", "task.multi") == name
    assert channels.pattern("celeryev") == pattern


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'{"body": 5}', b'{"body": "@", "properties": {"body_encoding": "base64"}}']
)
def test_what_is_no_event_is_said_to_be_none(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        event.read(payload)


# -- the cluster as its events tell it ---------------------------------------------------------------------------------


def task(kind: str, uuid: str = "id-1", **fields: object) -> dict[str, object]:
    return {"type": f"task-{kind}", "uuid": uuid, "hostname": NODE, "timestamp": 1000.0, "clock": 1, **fields}


def test_a_task_goes_through_its_states() -> None:
    state = State()
    for kind, expected in (
        ("sent", "PENDING"),
        ("received", "RECEIVED"),
        ("started", "STARTED"),
        ("retried", "RETRY"),
        ("received", "RECEIVED"),
        ("started", "STARTED"),
        ("succeeded", "SUCCESS"),
    ):
        state.event(task(kind, name="proj.add") if kind in ("sent", "received") else task(kind))
        assert state.tasks["id-1"].state == expected
    assert state.tasks["id-1"].name == "proj.add"
    assert state.task_types() == ["proj.add"]


def test_events_that_come_late_do_not_undo_an_end() -> None:
    state = State()
    state.event(task("succeeded", result="5", runtime=0.5))
    state.event(task("started"))
    state.event(task("received", name="proj.add", args="(2, 3)"))
    found = state.tasks["id-1"]
    assert (found.state, found.name, found.args, found.result) == ("SUCCESS", "proj.add", "(2, 3)", "5")
    state.event(task("received", name="proj.add", retries=1))
    assert found.state == "RECEIVED", "the next try of the same task"


def test_a_worker_is_alive_until_it_says_nothing_for_two_intervals_or_goodbye() -> None:
    state = State()
    state.event({"type": "worker-heartbeat", "hostname": NODE, "freq": 3, "active": 1, "processed": 7})
    worker = state.workers[NODE]
    assert worker.alive(worker.heard + 6)
    assert not worker.alive(worker.heard + 6.1)
    assert [each.hostname for each in state.alive_workers()] == [NODE]
    state.event({"type": "worker-offline", "hostname": NODE})
    assert not list(state.alive_workers())


def test_only_so_many_tasks_are_remembered_and_nonsense_is_passed_by() -> None:
    state = State(max_tasks=3)
    for number in range(5):
        state.event(task("received", f"id-{number}", name="proj.add", timestamp=float(number)))
    state.event({"type": "task-started"})
    state.event({"type": "worker-heartbeat"})
    state.event({"type": "custom-thing", "hostname": NODE})
    assert [uuid for uuid, _task in state.tasks_by_timestamp()] == ["id-4", "id-3", "id-2"]
    assert [uuid for uuid, _task in state.tasks_by_type("proj.add", limit=1)] == ["id-4"]
    assert not list(state.tasks_by_worker("other"))
    assert state.event_count == 8
