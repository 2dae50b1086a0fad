"""Messages that real Celery clients have sent: each is read, and a call with the same values is written the same."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import captures

from opsq.exceptions import ContentDisallowed, DecodeError
from opsq.protocol import codec, envelope, jsontypes, writing

MESSAGES = captures.messages()
ALL = codec.accepted(["json", "pickle", "msgpack", "yaml"])
JSON = codec.accepted(["json"])
#: A body that only Celery's own `auth` serializer can open.
SIGNED = "task-auth-signed"
PLAIN = [
    case
    for case, (_, message) in MESSAGES.items()
    if '"content-type": "application/json"' in message and '"compression"' not in message and "proto" not in case
]


def parsed(case: str) -> envelope.Envelope:
    return envelope.parse(MESSAGES[case][1].encode())


@pytest.mark.parametrize("case", sorted(MESSAGES))
def test_a_captured_message_is_read(case: str) -> None:
    message = parsed(case)
    assert message.headers.task.startswith(("proj.", "celery."))
    assert len(message.headers.id) >= 8
    assert message.properties.delivery_info.routing_key is not None
    if case == SIGNED:
        with pytest.raises(DecodeError):
            message.arguments(ALL)
    else:
        args, kwargs, embed = message.arguments(ALL)
        assert isinstance(args, list)
        assert isinstance(kwargs, dict)
        assert "callbacks" in embed


def test_values_of_all_kinds_come_out_as_they_went_in() -> None:
    args, kwargs, _ = parsed("task-json-special-types").arguments(JSON)
    assert [type(value).__name__ for value in args] == [
        *("datetime", "datetime", "date", "time", "Decimal", "UUID", "bytes", "bytes", "list")
    ]
    assert kwargs == {"é": "ü", "s": "x"}


def test_options_of_a_call_are_in_the_headers() -> None:
    headers = parsed("task-options").headers
    recorded = json.loads(MESSAGES["task-options"][1])["headers"]
    assert headers.eta == recorded["eta"]
    assert headers.expires == recorded["expires"]
    assert list(headers.timelimit or ()) == recorded["timelimit"]
    assert headers.shadow == recorded["shadow"]
    assert headers.retries == recorded["retries"]


def test_a_message_of_protocol_1_is_read_as_one_of_protocol_2() -> None:
    message = parsed("task-protocol-v1")
    body = jsontypes.loads(base64.b64decode(json.loads(message.raw)["body"]))
    args, kwargs, embed = message.arguments(JSON)
    assert (message.headers.task, message.headers.id) == (body["task"], body["id"])
    assert (args, kwargs, embed["callbacks"]) == (body["args"], body["kwargs"], body["callbacks"])


def test_what_is_written_on_a_message_of_protocol_1_is_read_again() -> None:
    first = parsed("task-protocol-v1")
    noted = {"retries": 2, "eta": "2030-01-01T00:00:00", envelope.DELIVERIES: 3}
    again = envelope.parse(writing.changed(first.raw, noted))
    assert (again.headers.retries, again.headers.eta, again.headers.deliveries) == (2, "2030-01-01T00:00:00", 3)
    assert (again.headers.task, again.headers.id) == (first.headers.task, first.headers.id)
    assert (again.headers.group, again.headers.root_id) == (first.headers.group, first.headers.root_id)
    assert again.arguments(JSON) == first.arguments(JSON)


def test_a_pickle_of_protocol_1_is_not_read() -> None:
    message = json.loads(MESSAGES["task-pickle"][1])
    message["headers"] = {}
    with pytest.raises(DecodeError, match="not as application/x-python-serialize"):
        envelope.parse(json.dumps(message).encode())


def test_pickle_is_refused_unless_accepted() -> None:
    with pytest.raises(ContentDisallowed):
        parsed("task-pickle").arguments(JSON)


def rebuilt(case: str) -> dict[str, Any]:
    """The message that we write for the same call."""
    recorded = jsontypes.loads(MESSAGES[case][1])
    message = parsed(case)
    args, kwargs, embed = message.arguments(JSON)
    headers, properties = dict(recorded["headers"]), dict(recorded["properties"])
    named = {
        *("task", "id", "eta", "expires", "retries", "root_id", "parent_id", "group", "group_index", "shadow"),
        *("origin", "ignore_result", "argsrepr", "kwargsrepr", "replaced_task_nesting", "stamped_headers", "stamps"),
    }
    raw = writing.build(
        args=args,
        kwargs=kwargs,
        embed=embed,
        queue=properties["delivery_info"]["routing_key"],
        exchange=properties["delivery_info"]["exchange"],
        priority=properties["priority"],
        timelimit=tuple(headers["timelimit"]),
        reply_to=properties["reply_to"],
        expiration=properties.get("expiration"),
        headers={name: value for name, value in headers.items() if name not in {*named, "lang", "timelimit"}},
        **{name: headers[name] for name in named},
    )
    built: dict[str, Any] = jsontypes.loads(raw)
    return built


@pytest.mark.parametrize("case", PLAIN)
def test_a_call_with_the_same_values_is_written_the_same(case: str) -> None:
    recorded, built = jsontypes.loads(MESSAGES[case][1]), rebuilt(case)
    assert len(built["properties"].pop("delivery_tag")) == len(recorded["properties"].pop("delivery_tag"))
    body, recorded_body = built.pop("body"), recorded.pop("body")
    if recorded["properties"].pop("body_encoding", None) == "base64":
        recorded_body = base64.b64decode(recorded_body)
    assert built["properties"].pop("body_encoding") == "base64"
    assert jsontypes.loads(base64.b64decode(body)) == jsontypes.loads(recorded_body)
    recorded["properties"].pop("origin", None)  # a stray property of Celery's retried messages
    assert built == recorded


def paths(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*path, key))
    return found


GONE = object()
WRONG = (GONE, None, True, -1, 2.5, "", "x", "\ud800", [], [1], {}, {"__type__": "x", "__value__": 1}, "e" * 9, 10**30)


@pytest.mark.parametrize("path", paths(json.loads(MESSAGES["task-options"][1])))
def test_a_message_with_any_field_wrong_is_read_or_refused_but_never_a_crash(path: tuple[str, ...]) -> None:
    for wrong in WRONG:
        message = json.loads(MESSAGES["task-options"][1])
        place = message
        for key in path[:-1]:
            place = place[key]
        if wrong is GONE:
            del place[path[-1]]
        else:
            place[path[-1]] = wrong
        with suppress(DecodeError, ContentDisallowed):
            envelope.parse(json.dumps(message).encode()).arguments(JSON)


#: What a header may hold.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
OURS = st.dictionaries(st.text(max_size=12).map(lambda name: f"x-{name}"), VALUES, max_size=4)


@given(case=st.sampled_from(sorted(set(MESSAGES) - {SIGNED, "task-protocol-v1"})), more=OURS)
def test_what_opsq_writes_on_a_captured_message_changes_nothing_else_of_it(case: str, more: dict[str, Any]) -> None:
    """What is given back, put off, moved, handed over keeps what Celery's client has said."""
    before = parsed(case)
    where = {"delivery_info": {"exchange": "", "routing_key": "elsewhere"}}
    after = envelope.parse(writing.unparked(writing.parked(writing.changed(before.raw, more, where))))
    told = json.loads(after.raw)
    assert told["headers"] == {**json.loads(before.raw)["headers"], **more}
    assert told["properties"] == {**json.loads(before.raw)["properties"], **where}
    assert after.arguments(ALL) == before.arguments(ALL)


@pytest.mark.parametrize(
    "raw", [b"", b"x", b"[]", b'"text"', b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"headers": 1}']
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        envelope.parse(raw)


def test_numbers_that_came_as_text_are_read_as_numbers() -> None:
    message = json.loads(MESSAGES["task-json-plain"][1])
    message["headers"]["retries"], message["properties"]["priority"] = "2", "3"
    read = envelope.parse(json.dumps(message).encode())
    assert (read.headers.retries, read.properties.priority) == (2, 3)
