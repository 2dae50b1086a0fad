"""Serializers and compression by name; refusals say what to do."""

from __future__ import annotations

import pickle
import sys
from datetime import date

import pytest

from opsq.exceptions import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured
from opsq.protocol import codec, compression

VALUE = [[1, "é", 2.5, None, True], {"k": [1, {"z": "ü"}]}, {"callbacks": None}]
ALL = codec.accepted(["json", "yaml", "msgpack", "pickle", "text", "raw"])
JSON = codec.accepted(["json"])


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle", "yaml"])
def test_what_is_written_is_read_again(serializer: str) -> None:
    content_type, content_encoding, data = codec.encode(VALUE, serializer)
    assert codec.decode(data, content_type, content_encoding, ALL) == VALUE


@pytest.mark.parametrize(
    ("value", "serializer", "expected"),
    [
        ("é", "raw", ("application/data", "utf-8", "é".encode())),
        (b"\xff", "raw", ("application/data", "binary", b"\xff")),
        ("é", "text", ("text/plain", "utf-8", "é".encode())),
    ],
)
def test_bytes_and_text_travel_as_they_are(value: object, serializer: str, expected: tuple) -> None:
    assert codec.encode(value, serializer) == expected
    content_type, content_encoding, data = expected
    assert codec.decode(data, content_type, content_encoding, ALL) == value


def test_pickle_is_read_only_when_it_is_accepted() -> None:
    data = pickle.dumps({"x": 1})
    with pytest.raises(ContentDisallowed, match="x-python-serialize"):
        codec.decode(data, "application/x-python-serialize", "binary", JSON)
    assert codec.decode(data, "application/x-python-serialize", "binary", codec.accepted(["pickle"])) == {"x": 1}


def test_content_of_no_known_type_is_refused_and_plain_data_is_not() -> None:
    with pytest.raises(ContentDisallowed):
        codec.decode(b"[]", "application/x-nope", "utf-8", JSON)
    assert codec.decode(b"[]", "application/data", "utf-8", JSON) == "[]"


def test_accepted_content_that_nothing_can_read_stays_text_or_bytes() -> None:
    accept = codec.accepted(["application/x-own"])
    assert codec.decode(b"x", "application/x-own", "utf-8", accept) == "x"
    assert codec.decode(b"\xff", "application/x-own", "binary", accept) == b"\xff"


@pytest.mark.parametrize(
    ("data", "content_type", "encoding"),
    [
        (b"{", "application/json", "utf-8"),
        (b"\xc1", "application/x-msgpack", "binary"),
        (b"junk", "application/x-python-serialize", "binary"),
        (b"\xff", "application/data", "utf-8"),
        (b"x", "application/data", "no-such-encoding"),
        (b"{", "application/x-yaml", "utf-8"),
    ],
)
def test_broken_bytes_are_theirs_to_mend(data: bytes, content_type: str, encoding: str) -> None:
    with pytest.raises(DecodeError):
        codec.decode(data, content_type, encoding, ALL)


@pytest.mark.parametrize(
    ("value", "serializer"),
    [
        ({1, 2}, "json"),
        (date(2026, 1, 2), "msgpack"),
        ({1, 2}, "msgpack"),
        (lambda: 1, "pickle"),
        (7, "raw"),
        (7, "text"),
    ],
)
def test_a_value_that_cannot_be_written_is_an_error_at_the_sender(value: object, serializer: str) -> None:
    with pytest.raises(EncodeError):
        codec.encode(value, serializer)


def test_an_unknown_serializer_is_named_with_those_that_exist() -> None:
    for call in (lambda: codec.encode(1, "jsno"), lambda: codec.accepted(["jsno"])):
        with pytest.raises(ImproperlyConfigured, match="jsno") as error:
            call()
        assert "json" in error.value.hint


def test_yaml_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)  # as if it were not installed
    with pytest.raises(ImproperlyConfigured) as error:
        codec.encode(1, "yaml")
    assert "opsq[yaml]" in error.value.hint


@pytest.mark.parametrize("name", ["zlib", "gzip", "bzip2", "bzip", "lzma", "xz", "brotli", "zstd"])
def test_compressed_bytes_come_back(name: str) -> None:
    content_type, data = compression.compress(b"x" * 1000, name)
    assert len(data) < 200
    assert compression.decompress(data, content_type) == b"x" * 1000
    assert compression.decompress(data, name) == b"x" * 1000


@pytest.mark.parametrize("name", ["zlib", "bzip2", "lzma", "brotli", "zstd", "application/x-nope"])
def test_what_cannot_be_decompressed_is_theirs_to_mend(name: str) -> None:
    with pytest.raises(DecodeError):
        compression.decompress(b"junk", name)


def test_an_unknown_compression_is_named_with_those_that_exist() -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        compression.compress(b"", "rar")
    assert "zlib" in error.value.hint


@pytest.mark.parametrize(("name", "package"), [("brotli", "brotli"), ("zstd", "backports.zstd")])
def test_a_compression_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EncodeError, match=rf"opsq\[{name}\]"):
        compression.compress(b"x", name)
    with pytest.raises(DecodeError, match=rf"opsq\[{name}\]"):
        compression.decompress(b"x", name)
