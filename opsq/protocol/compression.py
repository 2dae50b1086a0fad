"""Compression of message bodies by name, as kombu names it. Both `gzip` and `zlib` are a zlib stream on the wire."""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from opsq.exceptions import DecodeError, EncodeError, ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class Method:
    """One way to compress: what the header says, and the two directions."""

    content_type: str
    names: tuple[str, ...]
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


class _Missing(Exception):
    """The package of a method is not installed."""


def _from_package(package: str, extra: str, function: str) -> Callable[[bytes], bytes]:
    """A function of a package that is imported when it is first needed."""

    def call(data: bytes) -> bytes:
        try:
            module = importlib.import_module(package)
        except ImportError:
            raise _Missing(f'{package} is not installed; pip install "opsq[{extra}]"') from None
        changed: bytes = getattr(module, function)(data)
        return changed

    return call


_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

_METHODS = (
    Method("application/x-gzip", ("gzip", "zlib"), zlib.compress, zlib.decompress),
    Method("application/x-bz2", ("bzip2", "bzip"), bz2.compress, bz2.decompress),
    Method("application/x-lzma", ("lzma", "xz"), lzma.compress, lzma.decompress),
    Method(
        "application/x-brotli",
        ("brotli",),
        _from_package("brotli", "brotli", "compress"),
        _from_package("brotli", "brotli", "decompress"),
    ),
    Method(
        "application/zstd",
        ("zstd", "zstandard"),
        _from_package(_ZSTD, "zstd", "compress"),
        _from_package(_ZSTD, "zstd", "decompress"),
    ),
)
_BY_NAME: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make a way to compress known under its content type and its names."""
    _BY_NAME.update(dict.fromkeys((method.content_type, *method.names), method))


for _method in _METHODS:
    register(_method)


def check(name: str) -> None:
    """Whether a setting may say this. Raises ImproperlyConfigured for an unknown method, or a missing package."""
    try:
        compress(b"", name)
    except EncodeError as error:
        raise ImproperlyConfigured(error.what, why=error.why) from None


def compress(data: bytes, name: str) -> tuple[str, bytes]:
    """What goes into the header `compression`, and the compressed bytes. Raises ImproperlyConfigured, EncodeError."""
    method = _BY_NAME.get(name) or _of_kombu(name)
    if method is None:
        raise ImproperlyConfigured(
            f"cannot compress with {name!r}", why="no such method", hint=f"use one of {', '.join(names())}"
        )
    try:
        return method.content_type, method.compress(data)
    except _Missing as error:
        raise EncodeError(f"cannot compress with {name!r}", why=str(error)) from None


def decompress(data: bytes, name: str) -> bytes:
    """The bytes as they were before. Raises DecodeError."""
    method = _BY_NAME.get(name) or _of_kombu(name)
    if method is None:
        raise DecodeError(f"cannot decompress {name!r}", why="no such method")
    try:
        return method.decompress(data)
    except Exception as error:  # each package has errors of its own
        raise DecodeError(f"cannot decompress {name!r}", why=str(error) or type(error).__name__) from None


def _of_kombu(name: str) -> Method | None:
    """What the program has registered with kombu, if it has imported that."""
    kombu = sys.modules.get("kombu.compression")
    if kombu is None:
        return None
    content_type = kombu._aliases.get(name, name)
    known = content_type in kombu._encoders and content_type in kombu._decoders
    return Method(content_type, (), kombu._encoders[content_type], kombu._decoders[content_type]) if known else None


def names() -> list[str]:
    """The names that settings and calls may use."""
    return [name for name in _BY_NAME if "/" not in name]
