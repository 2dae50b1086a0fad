"""Content signed with a key that is shared, and formats and compressions of a program's own, kombu's among them."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq import App, compression, serialization
from opsq.app.masking import masked
from opsq.exceptions import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured
from opsq.protocol import codec, envelope, shared_key, writing

KEY, NEW_KEY = "0123456789abcdef", "fedcba9876543210"
SIGNED = frozenset({shared_key.CONTENT_TYPE})


@pytest.fixture(autouse=True)
def _no_keys_after() -> Iterator[None]:
    yield
    shared_key.use(())


def build(task: str = "proj.mail") -> envelope.Envelope:
    raw = writing.build(task=task, id="t", args=(1,), kwargs={}, queue="celery", serializer="signed")
    return envelope.parse(raw)


def test_who_has_the_key_reads_what_was_signed() -> None:
    shared_key.use(KEY)
    args, kwargs, _embed = build().arguments(SIGNED)
    assert (args, kwargs) == ([1], {})


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_a_signed_body_can_be_changed(place: int, bit: int) -> None:
    shared_key.use(KEY)
    message = build()
    body = bytearray(message.body)
    body[place % len(body)] ^= 1 << bit
    message.body = bytes(body)
    with pytest.raises(DecodeError, match="its signature is wrong"):
        message.arguments(SIGNED)


def test_the_arguments_of_one_task_do_not_serve_for_another() -> None:
    shared_key.use(KEY)
    message = build()
    message.headers.task = "proj.delete_user"
    with pytest.raises(DecodeError, match="is of another task"):
        message.arguments(SIGNED)


def test_a_body_is_no_result_and_no_command() -> None:
    shared_key.use(KEY)
    body = build().body
    for about in (b"result", b"control", b"chord", b""):
        with pytest.raises(DecodeError):
            codec.decode(body, shared_key.CONTENT_TYPE, "binary", SIGNED, about)


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 31, b"x" * 100])
def test_what_is_not_signed_at_all_is_refused(data: bytes) -> None:
    shared_key.use(KEY)
    with pytest.raises(DecodeError, match="its signature is wrong"):
        codec.decode(data, shared_key.CONTENT_TYPE, "binary", SIGNED)


def test_a_key_can_be_replaced_in_two_steps() -> None:
    shared_key.use(KEY)
    old = build()
    shared_key.use([NEW_KEY, KEY])
    assert old.arguments(SIGNED)[0] == [1]
    new = build()
    shared_key.use(NEW_KEY)
    assert new.arguments(SIGNED)[0] == [1]
    with pytest.raises(DecodeError):
        old.arguments(SIGNED)


def test_without_a_key_nothing_is_signed_and_it_is_said_how() -> None:
    with pytest.raises(ImproperlyConfigured, match="security_shared_key is not set"):
        build()


@pytest.mark.parametrize("key", ["short", 7, ["0123456789abcdef", "short"]])
def test_a_key_that_could_be_guessed_is_refused(key: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="at least 16 characters") as told:
        shared_key.use(key)
    assert "short" not in str(told.value)


def test_with_a_key_all_is_signed_and_nothing_else_read_unless_the_settings_say_so() -> None:
    conf = App("proj", security_shared_key=KEY, set_as_current=False).conf
    assert (conf.task_serializer, conf.result_serializer, list(conf.accept_content)) == ("signed", "signed", ["signed"])
    assert conf.source_of("task_serializer") == "security_shared_key"
    conf.accept_content = ["signed", "json"]
    assert conf.accept_content == ["signed", "json"]
    assert App("plain", set_as_current=False).conf.task_serializer == "json"


def test_the_key_is_not_shown() -> None:
    assert masked("security_shared_key", KEY) == "********"


# -- formats of a program's own --------------------------------------------------------------------------------------


@pytest.fixture
def upper() -> Iterator[None]:
    """A format that writes capitals; text, as kombu's encoders may."""
    serialization.register(
        "upper", lambda value: json.dumps(value).upper(), lambda data: json.loads(data.lower()), "application/x-upper"
    )
    yield
    serialization.unregister("upper")


@pytest.mark.usefixtures("upper")
def test_a_format_of_a_programs_own_is_written_and_read() -> None:
    raw = writing.build(task="t", id="i", args=("a",), kwargs={}, queue="q", serializer="upper")
    message = envelope.parse(raw)
    assert message.content_type == "application/x-upper"
    assert b"NULL" in message.body
    assert message.payload(codec.accepted(["upper"]))[0] == ["a"]
    with pytest.raises(ContentDisallowed):
        message.payload(codec.accepted(["json"]))
    kind, encoding, data = serialization.dumps({"a": None}, "upper")
    assert serialization.loads(data, kind, encoding, ["upper"]) == {"a": None}


def test_a_format_may_go_in_one_direction_only() -> None:
    serialization.register("reads", None, json.loads, "application/x-reads")
    with pytest.raises(EncodeError, match="it can only be read"):
        serialization.dumps(1, "reads")
    serialization.unregister("reads")
    with pytest.raises(ImproperlyConfigured, match="no serializer is called 'reads'"):
        serialization.dumps(1, "reads")


def test_a_compression_of_a_programs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsq.protocol.compression._BY_NAME", dict(codec_names()))
    compression.register(lambda data: data[::-1], lambda data: data[::-1], "application/x-backwards", ["backwards"])
    assert compression.compress(b"abc", "backwards") == (b"cba", "application/x-backwards")
    assert compression.decompress(b"cba", "application/x-backwards") == b"abc"


def codec_names() -> dict[str, Any]:
    from opsq.protocol import compression as methods

    return methods._BY_NAME


def test_what_a_program_registers_with_kombu_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """kombu is told by its shape: it need not be installed."""
    registry = types.SimpleNamespace(
        name_to_type={"twice": "application/x-twice"},
        type_to_name={"application/x-twice": "twice"},
        _encoders={"twice": ("application/x-twice", "utf-8", lambda value: json.dumps([value, value]))},
        _decoders={"application/x-twice": lambda data: json.loads(data)[0]},
    )
    methods = types.SimpleNamespace(
        _aliases={"backwards": "application/x-b"},
        _encoders={"application/x-b": lambda data: data[::-1]},
        _decoders={"application/x-b": lambda data: data[::-1]},
    )
    monkeypatch.setitem(sys.modules, "kombu.serialization", types.SimpleNamespace(registry=registry))
    monkeypatch.setitem(sys.modules, "kombu.compression", methods)
    raw = writing.build(task="t", id="i", args=(), kwargs={}, queue="q", serializer="twice", compress="backwards")
    message = envelope.parse(raw)
    assert (message.content_type, message.headers.compression) == ("application/x-twice", "application/x-b")
    assert message.payload(codec.accepted(["twice"]))[:2] == [[], {}]


def test_a_type_of_a_programs_own_travels_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    from opsq.protocol import jsontypes

    monkeypatch.setattr(jsontypes, "_WRITERS", list(jsontypes._WRITERS))
    monkeypatch.setattr(jsontypes, "_READERS", dict(jsontypes._READERS))
    serialization.register_type(complex, "complex", lambda value: [value.real, value.imag], lambda two: complex(*two))
    serialization.register_type(range, None, list)
    kind, encoding, data = serialization.dumps({"a": 1 + 2j, "b": range(2)})
    assert serialization.loads(data, kind, encoding) == {"a": 1 + 2j, "b": [0, 1]}
