"""Sealed bytes: an Ed25519 signature over exactly the bytes that travel, in OpenSSH's SSHSIG form.

A signature is made for one name space, so one for an answer (or for a login) never serves as one for an order.
`ssh-keygen -Y verify` checks what is sealed here, and what `ssh-keygen -Y sign` makes is checked here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

ORDER = "opsq-order"
ANSWER = "opsq-answer"
FACTS = "opsq-facts"

KEY_TYPE = b"ssh-ed25519"
KEY_ID_BYTES = 16
SIGNATURE_BYTES = 64
#: A sealed value is key id + signature + body.
HEAD_BYTES = KEY_ID_BYTES + SIGNATURE_BYTES
_MAGIC = b"SSHSIG"
_HASH = b"sha512"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


class KeyFormatError(ValueError):
    """A text or a file is no Ed25519 key that can be used here."""


class Signer(Protocol):
    """Whoever can sign with one key: a file, or ssh-agent."""

    @property
    def public(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature over exactly these bytes."""
        ...


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key (32 bytes)."""

    raw: bytes

    @cached_property
    def blob(self) -> bytes:
        """The key as OpenSSH writes it in binary."""
        return _string(KEY_TYPE) + _string(self.raw)

    @cached_property
    def id(self) -> bytes:
        """16 bytes that name the key: the beginning of its fingerprint."""
        return hashlib.sha256(self.blob).digest()[:KEY_ID_BYTES]

    @cached_property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def line(self, comment: str = "") -> str:
        """As it stands in a `.pub` file."""
        return f"{KEY_TYPE.decode()} {base64.b64encode(self.blob).decode()} {comment}".rstrip()

    @classmethod
    def parse(cls, line: str) -> PublicKey:
        """Read "ssh-ed25519 BASE64 [COMMENT]". Raises KeyFormatError for other kinds and for lines with options."""
        words = line.split()
        if len(words) < 2 or words[0] != KEY_TYPE.decode():
            kind = words[0][:40] if words else "an empty line"
            raise KeyFormatError(f"{kind} is no ssh-ed25519 public key")
        try:
            return cls.from_blob(base64.b64decode(words[1], validate=True))
        except binascii.Error:
            raise KeyFormatError("the key is no base64") from None

    @classmethod
    def from_blob(cls, blob: bytes) -> PublicKey:
        """Read OpenSSH's binary form. Raises KeyFormatError."""
        kind, rest = _take(blob)
        raw, rest = _take(rest)
        if kind != KEY_TYPE or len(raw) != 32 or rest:
            raise KeyFormatError("the key is no ssh-ed25519 public key")
        return cls(raw)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature over these bytes was made by this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """An Ed25519 private key in memory; it never shows itself."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The signature over exactly these bytes."""
        return self._key.sign(data)

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """Read an OpenSSH private key file that has no passphrase. Raises KeyFormatError."""
        body = "".join(line for line in text.split("\n") if line and not line.startswith("-----"))
        try:
            data = base64.b64decode(body, validate=True)
        except binascii.Error:
            raise KeyFormatError("it is no OpenSSH private key") from None
        magic = b"openssh-key-v1\0"
        if not data.startswith(magic):
            raise KeyFormatError("it is no OpenSSH private key")
        cipher, rest = _take(data[len(magic) :])
        if cipher != b"none":
            raise KeyFormatError("it has a passphrase")
        for _kdf in range(2):
            _skipped, rest = _take(rest)
        _public, rest = _take(rest[4:])
        private, _rest = _take(rest)
        kind, rest = _take(private[8:])
        if kind != KEY_TYPE:
            raise KeyFormatError(f"its type is {kind.decode(errors='replace')}, not ssh-ed25519")
        _public, rest = _take(rest)
        both, _comment = _take(rest)
        return cls(both[:32])


def generate() -> tuple[str, PublicKey]:
    """A new private key as OpenSSH writes it to a file, and its public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return text, PublicKey(key.public_key().public_bytes_raw())


# -- sealing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a sealed value holds; nothing in it is checked yet."""

    key_id: bytes
    signature: bytes
    body: bytes

    @classmethod
    def split(cls, value: bytes) -> Sealed | None:
        """The parts; None if it is too short to be one."""
        if len(value) <= HEAD_BYTES:
            return None
        return cls(value[:KEY_ID_BYTES], value[KEY_ID_BYTES:HEAD_BYTES], value[HEAD_BYTES:])

    def is_by(self, key: PublicKey, namespace: str) -> bool:
        """Whether this key has signed exactly this body for this purpose."""
        return self.key_id == key.id and key.verifies(self.signature, to_sign(namespace, self.body))


def seal(signer: Signer, namespace: str, body: bytes) -> bytes:
    """The body with the key's id and its signature in front."""
    return signer.public.id + signer.sign(to_sign(namespace, body)) + body


def to_sign(namespace: str, body: bytes) -> bytes:
    """What is signed for a body: OpenSSH's SSHSIG structure."""
    return _MAGIC + b"".join(map(_string, (namespace.encode(), b"", _HASH, hashlib.sha512(body).digest())))


def armored(sealed: Sealed, key: PublicKey, namespace: str) -> str:
    """The signature as a file for `ssh-keygen -Y verify -n NAMESPACE -s FILE`, with the body on its standard input."""
    fields = (key.blob, namespace.encode(), b"", _HASH, _string(KEY_TYPE) + _string(sealed.signature))
    text = base64.b64encode(_MAGIC + struct.pack(">I", 1) + b"".join(map(_string, fields))).decode()
    return "\n".join([_BEGIN, *(text[at : at + 70] for at in range(0, len(text), 70)), _END, ""])


def _string(data: bytes) -> bytes:
    """SSH's `string`: length and bytes."""
    return struct.pack(">I", len(data)) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """The first `string` and the rest. Raises KeyFormatError when it is cut short."""
    if len(data) < 4:
        raise KeyFormatError("the key is cut short")
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length:
        raise KeyFormatError("the key is cut short")
    return data[4 : 4 + length], data[4 + length :]
