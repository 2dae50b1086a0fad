"""Remote commands that real Celery clients have broadcast: each is read, and written the same."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import captures

from opsq.broker import mailbox
from opsq.exceptions import ContentDisallowed, DecodeError
from opsq.protocol import codec

COMMANDS = captures.commands()
JSON = codec.accepted(["json"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def opened(message: dict[str, Any]) -> dict[str, Any]:
    """With its body as a value."""
    found = copy.deepcopy(message)
    found["body"] = json.loads(base64.b64decode(found["body"]))
    return found


@pytest.mark.parametrize("case", sorted(COMMANDS))
def test_a_captured_command_is_read_and_written_the_same(case: str) -> None:
    recorded = opened(json.loads(COMMANDS[case]))
    request = mailbox.read(COMMANDS[case].encode(), JSON)
    body = recorded["body"]
    assert (request.method, request.arguments) == (body["method"], body["arguments"] or {})
    assert (request.destination, request.pattern) == (body["destination"], body["pattern"])
    exchange = recorded["properties"]["delivery_info"]["exchange"]
    written = opened(json.loads(mailbox.command(exchange, request, recorded["headers"]["expires"])))
    assert len(written["properties"].pop("delivery_tag")) == len(recorded["properties"].pop("delivery_tag"))
    assert written == {**recorded, "body": {**body, "arguments": body["arguments"] or {}}}


@given(case=st.sampled_from(sorted(COMMANDS)), place=st.data(), junk=JUNK)
def test_a_command_with_anything_in_it_is_read_or_refused(case: str, place: st.DataObject, junk: Any) -> None:
    message = opened(json.loads(COMMANDS[case]))
    part = place.draw(st.sampled_from([message, message["body"], message["headers"], message["properties"]]))
    part[place.draw(st.sampled_from(sorted(part)))] = junk
    if isinstance(message["body"], dict):
        message["body"] = base64.b64encode(json.dumps(message["body"]).encode()).decode()
    try:
        request = mailbox.read(json.dumps(message).encode(), JSON)
    except (DecodeError, ContentDisallowed):
        return
    assert isinstance(request.method, str)
    assert isinstance(request.arguments, dict)
    assert isinstance(request.clock, int)
