"""JSON exactly as kombu writes and reads it: values that JSON cannot hold travel as `{"__type__": T, "__value__": V}`.

Plain values go through msgspec, which writes dates, decimals, sets, enums and more without asking: so it only ever gets
what has been checked, and everything else goes through the standard `json`.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from types import NoneType
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from opsq.exceptions import DecodeError, EncodeError

Form = TypeVar("Form")

_ATOMS = frozenset((int, str, bool, NoneType))
_CONTAINERS = frozenset((list, tuple, dict))

#: What a marked value looks like in bytes; letters of `__type__` may be \u escapes, though no usual writer does that.
#: Each search begins with one for a single byte, as a number: bytes in bytes costs an error that is raised and caught.
_UNDERSCORE, _BACKSLASH = b"_\\"
_MARK = b"__type__"
_ESCAPED_MARK = re.compile(rb"\\u00(?:5[fF]|7[049]|65)")

_write_plain = msgspec.json.Encoder().encode
_read_plain = msgspec.json.Decoder().decode


def dumps(value: Any) -> bytes:
    """The value as JSON. Raises EncodeError."""
    kind = type(value)
    try:
        if _holds_plain(value) if kind in _CONTAINERS else kind in _ATOMS or (kind is float and value - value == 0.0):
            return _write_plain(value)
    except (UnicodeEncodeError, OverflowError, RecursionError):
        pass  # lone surrogates and the like: the standard writer knows what to do, or says why not
    try:
        return _write_any(value).encode()
    except Exception as error:  # a `__json__` method may raise anything
        raise EncodeError("cannot write the value as JSON", why=str(error) or type(error).__name__) from error


def quoted(text: str) -> bytes:
    """A text as JSON."""
    try:
        return _write_plain(text)
    except UnicodeEncodeError:
        return _write_any(text).encode()


def read_as(decode: Callable[[bytes], Form], raw: bytes) -> Form | None:
    """What a reader of one form makes of JSON; None for what only `loads` can read, or say what is wrong with it."""
    if (_UNDERSCORE in raw and _MARK in raw) or (_BACKSLASH in raw and _ESCAPED_MARK.search(raw)):
        return None
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def loads(data: bytes | str) -> Any:
    """The value that JSON text stands for. Raises DecodeError."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if (_UNDERSCORE not in raw or _MARK not in raw) and (_BACKSLASH not in raw or not _ESCAPED_MARK.search(raw)):
        try:
            return _read_plain(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # NaN, lone surrogates, huge numbers, or no JSON at all: the standard reader tells them apart
    try:
        return _read_any(data if isinstance(data, str) else data.decode())
    except Exception as error:  # a marked value may be wrong in many ways
        raise DecodeError("cannot read JSON", why=str(error) or type(error).__name__) from error


def _holds_plain(container: Any) -> bool:
    """Whether msgspec writes what it holds as `json` does: exact types, keys that are str, no NaN and no infinity."""
    values = container
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                return False
        values = container.values()
    for value in values:
        kind = type(value)
        if kind not in _ATOMS:
            if kind in _CONTAINERS:
                if value and not _holds_plain(value):
                    return False
            elif kind is not float or value - value != 0.0:
                return False
    return True


def _mark(name: str, value: Any) -> dict[str, Any]:
    return {"__type__": name, "__value__": value}


#: kombu's types in its order: a datetime is a date too.
_WRITERS: list[tuple[type, Callable[[Any], Any]]] = [
    (datetime, lambda value: _mark("datetime", datetime.isoformat(value))),
    (date, lambda value: _mark("date", value.isoformat())),
    (time, lambda value: _mark("time", value.isoformat())),
    (Decimal, lambda value: _mark("decimal", str(value))),
    (UUID, lambda value: _mark("uuid", {"hex": value.hex})),
    (bytes, lambda value: _mark_bytes(value)),
]

_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda value: datetime.fromisoformat(value).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: UUID(**value),
    "bytes": lambda value: value.encode(),
    "base64": lambda value: base64.b64decode(value.encode()),
}


def _mark_bytes(value: bytes) -> dict[str, Any]:
    try:
        return _mark("bytes", value.decode())
    except UnicodeDecodeError:
        return _mark("base64", base64.b64encode(value).decode())


def register_type(
    kind: type, marker: str | None, write: Callable[[Any], Any], read: Callable[[Any], Any] | None = None
) -> None:
    """Have values of a type travel as what `write` makes of them (of JSON's own types), marked with a name that leads
    to `read`; without a marker they stay what `write` has made of them."""
    _WRITERS.append((kind, (lambda value: _mark(marker, write(value))) if marker else write))
    if marker and read is not None:
        _READERS[marker] = read


def _write_special(value: Any) -> Any:
    """What stands for a value that `json` itself cannot write."""
    own = getattr(value, "__json__", None)
    if own is not None:
        return own()
    django_text = getattr(sys.modules.get("django.utils.functional"), "Promise", None)
    if django_text is not None and isinstance(value, django_text):
        return str(value)
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    raise TypeError(f"{type(value).__name__} is no type that JSON can hold")


def _read_special(found: dict[str, Any]) -> Any:
    """A JSON object, or the value that it marks."""
    if found.keys() != {"__type__", "__value__"}:
        return found
    read = _READERS.get(found["__type__"])
    if read is None:
        raise ValueError(f"unknown __type__ {found['__type__']!r}")
    return read(found["__value__"])


_write_any = json.JSONEncoder(default=_write_special).encode
_read_any = json.JSONDecoder(object_hook=_read_special).decode
