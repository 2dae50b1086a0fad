"""Serializers, compression and stored exceptions against the real kombu and Celery."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kombu_peer import Kombu
from support.peer import PeerError

from opsq import exceptions
from opsq.exceptions import EncodeError
from opsq.protocol import codec, compression, failure, jsontypes

ALL = codec.accepted(["json", "yaml", "msgpack", "pickle", "text"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=100)
@given(value=VALUES, serializer=st.sampled_from(["msgpack", "pickle", "yaml"]))
def test_each_reads_what_the_other_has_written(kombu: Kombu, value: Any, serializer: str) -> None:
    try:
        theirs = kombu.encode(value, serializer)
    except PeerError:
        with pytest.raises(EncodeError):
            codec.encode(value, serializer)
        return
    ours = codec.encode(value, serializer)
    assert ours[:2] == theirs[:2]
    assert codec.decode(theirs[2], theirs[0], theirs[1], ALL) == value
    assert kombu.decode(ours[2], ours[0], ours[1]) == value


@pytest.mark.parametrize("name", ["zlib", "gzip", "bzip2", "bzip", "lzma", "xz", "brotli", "zstd"])
def test_each_decompresses_what_the_other_has_compressed(kombu: Kombu, name: str) -> None:
    data, content_type = kombu.compress(b"text " * 100, name)
    assert compression.decompress(data, content_type) == b"text " * 100
    our_type, ours = compression.compress(b"text " * 100, name)
    assert our_type == content_type
    assert kombu.decompress(ours, our_type) == b"text " * 100


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad input", 42),
        KeyError(),
        OSError(2, "No such file", "x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ZeroDivisionError(datetime(2026, 1, 2), b"\xff", {1}, Path("x")),
        KeyboardInterrupt("stop"),
    ],
)
def test_an_exception_is_stored_as_celery_stores_it(kombu: Kombu, error: BaseException) -> None:
    ours = jsontypes.loads(jsontypes.dumps(failure.to_data(error)))
    assert ours == kombu.stored_failure(error)


def test_our_exceptions_are_stored_under_the_modules_that_celery_keeps_them_in(kombu: Kombu) -> None:
    ours = {name: kind for name, kind in vars(exceptions).items() if isinstance(kind, type)}
    homes = kombu.homes([name for name, kind in ours.items() if issubclass(kind, BaseException)])
    assert len(homes) > 30
    for name, home in homes.items():
        data = failure.to_data(ours[name].__new__(ours[name]))
        assert (data["exc_type"], data["exc_module"]) == (name, home)
        assert type(failure.from_data({**data, "exc_message": ["x"]})) is ours[name]
