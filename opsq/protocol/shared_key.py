"""Signatures by a key that all programs of a project share (setting `security_shared_key`): HMAC-SHA256 over the bytes
and over what they are about, so that the arguments of one task never serve as those of another.

Who has the key may say everything; who only reaches Redis can neither change a message nor make one.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from opsq.exceptions import DecodeError, ImproperlyConfigured
from opsq.protocol import codec, jsontypes

#: The serializer: JSON with a signature before it.
NAME = "signed"
CONTENT_TYPE = "application/x-opsq-signed"
#: Fewer characters could be guessed.
SHORTEST = 16
_DIGEST_BYTES = 32
_HINT = "make one by `openssl rand -hex 32`, and give it to all: security_shared_key, or OPSQ_SECURITY_SHARED_KEY"

_keys: list[bytes] = []


def use(keys: Any) -> None:
    """Sign with this key from now on; of several the first signs, and each is accepted. Raises ImproperlyConfigured."""
    texts: Sequence[Any] = keys if isinstance(keys, list | tuple) else [keys] if keys else []
    for text in texts:
        if not isinstance(text, str | bytes) or len(text) < SHORTEST:
            raise ImproperlyConfigured(
                "cannot use security_shared_key", why=f"a key is a text of at least {SHORTEST} characters", hint=_HINT
            )
    _keys[:] = [text.encode() if isinstance(text, str) else text for text in texts]


def sealed(data: bytes, about: bytes) -> bytes:
    """The bytes with a signature before them; as they are where no key is used."""
    return _mac(_keys[0], data, about) + data if _keys else data


def opened(data: bytes, about: bytes) -> bytes:
    """The bytes without their signature; as they are where no key is used. Raises DecodeError when it is wrong."""
    if not _keys:
        return data
    mac, inner = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if not any(hmac.compare_digest(mac, _mac(key, inner, about)) for key in _keys):
        why = "its signature is wrong: it was altered, is of another task, or was signed with another key"
        raise DecodeError("refusing the content", why=why)
    return inner


def _mac(key: bytes, data: bytes, about: bytes) -> bytes:
    return hmac.digest(key, len(about).to_bytes(4) + about + data, "sha256")


def _encode(value: Any, about: bytes) -> bytes:
    _need_a_key("sign")
    return sealed(jsontypes.dumps(value), about)


def _decode(data: bytes, about: bytes) -> Any:
    _need_a_key("check a signed message")
    return jsontypes.loads(opened(data, about))


def _need_a_key(what: str) -> None:
    if not _keys:
        raise ImproperlyConfigured(f"cannot {what}", why="security_shared_key is not set", hint=_HINT)


codec.register(NAME, codec.Serializer(CONTENT_TYPE, "binary", _encode, _decode, bound=True))
