"""Our JSON against kombu's own: the same values are refused, and what one writes the other reads as the same value."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import odd_values
from support.kombu_peer import Kombu
from support.peer import PeerError

from opsq.exceptions import DecodeError, EncodeError
from opsq.protocol import jsontypes

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=12)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
BIG = st.integers(min_value=-(10**40), max_value=10**40)
SPECIAL = (
    st.binary(max_size=12)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.decimals()
    | st.uuids()
    | st.timedeltas()
    | st.complex_numbers()
    | st.sampled_from([*odd_values.Colour, *odd_values.Level, *odd_values.Word, odd_values.Broken(), object, ...])
    | ANY_TEXT.map(odd_values.Text)
    | st.integers().map(odd_values.Number)
    | st.floats().map(odd_values.Real)
    | st.sets(st.integers(), max_size=2)
    | st.binary(max_size=3).map(bytearray)
)
KEYS = ANY_TEXT | st.sampled_from(["__type__", "__value__"]) | st.integers() | st.floats() | st.booleans() | st.none()
ODD_KEYS = KEYS | st.binary(max_size=3) | st.tuples(st.integers()) | st.sampled_from([*odd_values.Word])


def containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(values, max_size=4)
    dicts = st.dictionaries(ODD_KEYS, values, max_size=4)
    marked = st.sampled_from(["datetime", "date", "uuid", "bytes", "base64", "decimal", "nonsense", 1, None, []])
    return (
        lists
        | dicts
        | lists.map(tuple)
        | lists.map(odd_values.Row)
        | dicts.map(odd_values.Sorted)
        | st.builds(odd_values.Point, values, values)
        | st.builds(odd_values.Record, values)
        | st.builds(odd_values.Own, values)
        | st.builds(lambda kind, value: {"__type__": kind, "__value__": value}, marked, values)
    )


VALUES = st.recursive(PLAIN | BIG | SPECIAL, containers, max_leaves=12)
PLAIN_VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(ANY_TEXT, inner, max_size=5), max_leaves=20
)


def outcome(function: Any, *args: Any) -> tuple[bool, str]:
    """What came out, with the types of all values in the text; or that it was refused."""
    try:
        return True, repr(function(*args))
    except (PeerError, EncodeError, DecodeError):
        return False, ""


def same_json(ours: bytes, theirs: str) -> bool:
    return repr(json.loads(ours, object_pairs_hook=list)) == repr(json.loads(theirs, object_pairs_hook=list))


def compare(kombu: Kombu, value: Any) -> None:
    try:
        theirs = kombu.dumps(value)
    except PeerError:
        with pytest.raises(EncodeError):
            jsontypes.dumps(value)
        return
    ours = jsontypes.dumps(value)
    assert same_json(ours, theirs)
    read = outcome(kombu.loads, theirs)
    assert outcome(kombu.loads, ours) == read
    assert outcome(jsontypes.loads, theirs) == read
    assert outcome(jsontypes.loads, theirs.encode()) == read
    assert outcome(jsontypes.loads, ours) == read


@settings(max_examples=600)
@given(value=VALUES)
@example(value=float("nan"))
@example(value=[float("inf"), -float("inf"), -0.0, 1e16, 5e-324])
@example(value=[2**63, 2**64, -(2**63) - 1, 10**60])
@example(value="\ud800 lone")
@example(value={"\udfff": 1})
@example(value={1: 2, "1": 3})
@example(value={"__type__": "datetime"})
@example(value={"__type__": "datetime", "__value__": "2026-01-02", "more": 1})
@example(value=[UUID(int=7), b"\xff\xfe", b"abc", odd_values.Colour.RED, odd_values.Level.LOW, odd_values.Word.HI])
@example(value=odd_values.Own(odd_values.Own({"x": b"y"})))
def test_any_value_is_written_and_read_as_by_kombu(kombu: Kombu, value: Any) -> None:
    compare(kombu, value)


@settings(max_examples=300)
@given(value=PLAIN_VALUES)
def test_plain_values_are_written_and_read_as_by_kombu(kombu: Kombu, value: Any) -> None:
    compare(kombu, value)


MARKS = [
    '{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}',
    r'{"__type\u005f_": "bytes", "__value__": "x"}',
    r'{"\u005f\u005F\u0074\u0079\u0070\u0065__": "bytes", "\u005f_value__": "x"}',
    '{"__type__": "date", "__value__": "2026-01-02T03:04:05Z"}',
    '{"__type__": "unheard-of", "__value__": 1}',
    '{"__type__": [], "__value__": 1}',
]
CHARACTERS = '[]{}:,"\\ \t\n\r\x00\x0b0123456789.-+eE'
WORDS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    "1e400",
    "-0",
    '"a"',
    '"__type__"',
    '"__value__"',
    "\ufeff",
    "é",
]
ESCAPES = [r"\ud800", r"\ud83d\ude00", r"\u00e9", r"\/"]
FRAGMENTS = st.sampled_from([*CHARACTERS, *WORDS, *ESCAPES, *MARKS])
TEXTS = st.lists(FRAGMENTS, max_size=8).map("".join) | PLAIN_VALUES.map(json.dumps)


@settings(max_examples=600)
@given(text=TEXTS)
@example(text="[" * 100_000)
@example(text="1" * 5000)
@example(text='{"a": 1, "a": 2}')
def test_any_text_is_read_or_refused_as_by_kombu(kombu: Kombu, text: str) -> None:
    assert outcome(jsontypes.loads, text) == outcome(kombu.loads, text)
    raw = text.encode("utf-8", "surrogatepass")
    assert outcome(jsontypes.loads, raw) == outcome(kombu.loads, raw)


@settings(max_examples=200)
@given(raw=st.binary(max_size=20))
@example(raw=b'"\xff"')
@example(raw=b'"\xed\xa0\x80"')
@example(raw=b"\xef\xbb\xbf1")
@example(raw=b"\x00[\x00]")
def test_any_bytes_are_read_or_refused_as_by_kombu(kombu: Kombu, raw: bytes) -> None:
    assert outcome(jsontypes.loads, raw) == outcome(kombu.loads, raw)


@pytest.mark.parametrize("text", MARKS)
def test_marks_are_seen_however_they_are_spelled(kombu: Kombu, text: str) -> None:
    assert outcome(jsontypes.loads, text.encode()) == outcome(kombu.loads, text)
