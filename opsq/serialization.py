"""Serializers of a program's own, by kombu's words (its module `serialization`).

What is registered by kombu's own `register` is known here too, once kombu is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from opsq.protocol import codec
from opsq.protocol.jsontypes import register_type as register_type

__all__ = ["dumps", "loads", "register", "register_type", "registry", "unregister"]


def register(
    name: str,
    encoder: Callable[[Any], bytes | str] | None,
    decoder: Callable[[bytes], Any] | None,
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Make a serializer known, to be named in `task_serializer`, `accept_content`, `serializer=` and so on.

    Every process that sends or reads such messages registers it. Without an encoder (decoder) it only reads (writes).
    """
    codec.register(name, codec.Serializer(content_type, content_encoding, encoder, decoder))


def unregister(name: str) -> None:
    """Forget a serializer. Raises KeyError for a name that is not known."""
    codec.unregister(name)


def dumps(data: Any, serializer: str = "json") -> tuple[str, str, bytes]:
    """Content type, content encoding and bytes. Raises EncodeError, ImproperlyConfigured."""
    return codec.encode(data, serializer)


def loads(data: bytes, content_type: str, content_encoding: str, accept: Iterable[str] = ("json",)) -> Any:
    """The value. `accept`: names or content types that may be read. Raises ContentDisallowed, DecodeError."""
    return codec.decode(data, content_type, content_encoding, codec.accepted(accept))


class Registry:
    """The same under the names of kombu's `registry`."""

    register = staticmethod(register)
    unregister = staticmethod(unregister)
    dumps = staticmethod(dumps)
    loads = staticmethod(loads)


registry = Registry()
