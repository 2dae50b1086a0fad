"""Compressions of a program's own, by kombu's words (its module `compression`).

What is registered by kombu's own `register` is known here too, once kombu is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opsq.protocol import compression

__all__ = ["compress", "decompress", "register"]


def register(
    encoder: Callable[[bytes], bytes],
    decoder: Callable[[bytes], bytes],
    content_type: str,
    aliases: Iterable[str] | None = None,
) -> None:
    """Make a way to compress known, to be named in `task_compression`, `result_compression` and `compression=`.

    Every process that sends or reads such messages registers it; they name it by its content type.
    """
    compression.register(compression.Method(content_type, tuple(aliases or ()), encoder, decoder))


def compress(body: bytes, content_type: str) -> tuple[bytes, str]:
    """The compressed bytes and the content type (kombu's order). Raises ImproperlyConfigured, EncodeError."""
    kind, data = compression.compress(body, content_type)
    return data, kind


def decompress(body: bytes, content_type: str) -> bytes:
    """The bytes as they were. Raises DecodeError."""
    return compression.decompress(body, content_type)
