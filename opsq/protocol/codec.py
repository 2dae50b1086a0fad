"""The serializers by name and by content type, and which content may be read at all.

A message says itself how it wants to be read: so only what the settings accept is decoded, pickle (which runs code)
among it only when it is asked for by name.
"""

from __future__ import annotations

import codecs
import importlib
import pickle
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from opsq.exceptions import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured
from opsq.protocol import jsontypes


@dataclass(frozen=True, slots=True)
class Serializer:
    """One format: how a message names it, and the two directions (None: it cannot go there).

    `bound`: both directions are also told what the value is about, which they sign.
    """

    content_type: str
    content_encoding: str
    encode: Callable[..., bytes | str] | None
    decode: Callable[..., Any] | None
    bound: bool = False


#: Content that is only ever bytes or text: reading it can do no harm.
_TRUSTED = frozenset(("application/data", "application/text"))
_NO_TEXT = frozenset(("binary", "ascii-8bit"))
#: The version that kombu writes.
_PICKLE_PROTOCOL = 4


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise ImproperlyConfigured(
            "cannot use the serializer 'yaml'", why="PyYAML is not installed", hint='pip install "opsq[yaml]"'
        ) from None


def _encode_yaml(value: Any) -> bytes:
    text: str = _yaml().safe_dump(value)
    return text.encode()


def _encode_msgpack(value: Any) -> bytes:
    return msgspec.msgpack.encode(_for_msgpack(value))


def _for_msgpack(value: Any) -> Any:
    """The value in msgpack's own types; msgspec alone would write dates, sets and decimals without a trace of it."""
    if value is None or isinstance(value, bool | float | bytes | bytearray):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list | tuple):
        return [_for_msgpack(item) for item in value]
    if isinstance(value, dict):
        return {_for_msgpack(key): _for_msgpack(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is no type that msgpack can hold")


_BY_NAME: dict[str, Serializer] = {}
_BY_TYPE: dict[str, Serializer] = {}


def register(name: str, serializer: Serializer) -> None:
    """Make a format known under a name and under its content type."""
    _BY_NAME[name] = _BY_TYPE[serializer.content_type] = serializer


def unregister(name: str) -> None:
    """Forget a format. Raises KeyError."""
    _BY_TYPE.pop(_BY_NAME.pop(name).content_type, None)


register("json", Serializer("application/json", "utf-8", jsontypes.dumps, jsontypes.loads))
register("text", Serializer("text/plain", "utf-8", str.encode, bytes.decode))
register("yaml", Serializer("application/x-yaml", "utf-8", _encode_yaml, lambda data: _yaml().safe_load(data)))
register("msgpack", Serializer("application/x-msgpack", "binary", _encode_msgpack, msgspec.msgpack.decode))
register(
    "pickle",
    Serializer(
        "application/x-python-serialize",
        "binary",
        lambda value: pickle.dumps(value, protocol=_PICKLE_PROTOCOL),
        pickle.loads,
    ),
)


def encode(value: Any, serializer: str, about: bytes = b"") -> tuple[str, str, bytes]:
    """Content type, content encoding and bytes; `serializer` is a name or a content type.

    `about`: what the value belongs to, for formats that sign it. Raises EncodeError, ImproperlyConfigured for an
    unknown name.
    """
    if serializer == "raw":
        return _encode_raw(value)
    found = _named(serializer)
    if found.encode is None:
        raise EncodeError(f"cannot write the value as {serializer}", why="it can only be read")
    try:
        data = found.encode(value, about) if found.bound else found.encode(value)
    except (EncodeError, ImproperlyConfigured):
        raise
    except Exception as error:  # each format has errors of its own
        raise EncodeError(f"cannot write the value as {serializer}", why=str(error) or type(error).__name__) from error
    return found.content_type, found.content_encoding, data.encode() if isinstance(data, str) else data


def _encode_raw(value: Any) -> tuple[str, str, bytes]:
    if isinstance(value, str):
        return "application/data", "utf-8", value.encode()
    if isinstance(value, bytes | bytearray):
        return "application/data", "binary", bytes(value)
    raise EncodeError("cannot write the value as raw", why=f"{type(value).__name__} is neither bytes nor str")


def kind_of(serializer: str) -> tuple[str, str]:
    """Content type and content encoding of what a serializer writes. Raises ImproperlyConfigured."""
    found = _named(serializer)
    return found.content_type, found.content_encoding


def decode(data: bytes, content_type: str, content_encoding: str, accept: frozenset[str], about: bytes = b"") -> Any:
    """The value; `about` as it was written. Raises ContentDisallowed if the content type is not accepted, DecodeError
    if the bytes are wrong."""
    if content_type not in accept and content_type not in _TRUSTED:
        raise ContentDisallowed(f"refusing content of type {content_type}", why="it is not in accept_content")
    found = _BY_TYPE.get(content_type) or _of_kombu(content_type)
    try:
        if found is not None and found.decode is not None:
            return found.decode(data, about) if found.bound else found.decode(data)
        if content_encoding.lower() in _NO_TEXT:
            return data
        return codecs.decode(data, content_encoding)
    except (DecodeError, ImproperlyConfigured):
        raise
    except Exception as error:  # each format has errors of its own
        raise DecodeError(f"cannot read {content_type}", why=str(error) or type(error).__name__) from error


def accepted(names: Iterable[str]) -> frozenset[str]:
    """The content types of serializers given by name or by content type. Raises ImproperlyConfigured."""
    types = set()
    for name in names:
        if "/" in name:
            types.add(name)
        elif name == "raw":
            types.add("application/data")
        else:
            types.add(_named(name).content_type)
    return frozenset(types)


def _named(serializer: str) -> Serializer:
    """By name or content type. Raises ImproperlyConfigured."""
    found = _BY_NAME.get(serializer) or _BY_TYPE.get(serializer) or _of_kombu(serializer)
    if found is None:
        raise _unknown(serializer)
    return found


def _of_kombu(name: str) -> Serializer | None:
    """A format that the program has registered with kombu, if it has imported that; by name or content type."""
    registry = getattr(sys.modules.get("kombu.serialization"), "registry", None)
    if registry is None:
        return None
    content_type = registry.name_to_type.get(name, name)
    name = registry.type_to_name.get(content_type, name)
    kind, encoding, encode = registry._encoders.get(name, (content_type, "utf-8", None))
    decode = registry._decoders.get(content_type)
    return Serializer(kind, encoding, encode, decode) if encode or decode else None


def _unknown(name: str) -> ImproperlyConfigured:
    if name == "auth":
        return ImproperlyConfigured("cannot use the serializer 'auth' yet", hint="call app.setup_security() first")
    known = ", ".join(sorted((*_BY_NAME, "raw")))
    return ImproperlyConfigured(f"no serializer is called {name!r}", hint=f"use one of {known}")
