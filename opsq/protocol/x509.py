"""Celery's serializer `auth`: a body signed with an RSA key, and the certificate named by which it is checked.

On the wire as Celery's `celery.security`: base64 of signer, signature, inner content type and encoding, and body. Only
the body is signed, so what the inner type may be is not left to the message.
"""

from __future__ import annotations

import base64
import glob
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from opsq.exceptions import DecodeError, ImproperlyConfigured, SecurityError
from opsq.protocol import codec

#: Celery's name for such bodies; its content type is that of plain bytes.
NAME, CONTENT_TYPE = "auth", "application/data"
_SEPARATOR = b"\x00\x01"


class SignedBodies:
    """Signs with one key and checks with the certificates of a store (a folder, or a glob of files)."""

    def __init__(
        self, key: str, key_password: bytes | None, certificate: str, store: str, digest: str, serializer: str
    ) -> None:
        """Paths of PEM files; `serializer`: of what is signed. Raises ImproperlyConfigured, SecurityError."""
        self._digest = _digest(digest)
        self._key = _private_key(key, key_password)
        self._signer = _name_of(_certificate(certificate))
        self._known = _store(store)
        self._serializer = serializer
        self._accept = codec.accepted({"json", serializer})

    def encode(self, value: Any) -> bytes:
        """A signed body. Raises EncodeError."""
        content_type, content_encoding, body = codec.encode(value, self._serializer)
        signature = self._key.sign(body, self._padding(), self._digest)
        words = (base64.b64encode(self._signer.encode()), base64.b64encode(signature))
        return base64.b64encode(_SEPARATOR.join((*words, content_type.encode(), content_encoding.encode(), body)))

    def decode(self, data: bytes) -> Any:
        """The value in a signed body. Raises DecodeError, SecurityError, ContentDisallowed."""
        words = base64.b64decode(data).split(_SEPARATOR, 4)
        if len(words) != 5:
            raise DecodeError("cannot read the signed body", why="it is not signed")
        signer, signature, content_type, content_encoding, body = words
        self._check(base64.b64decode(signer).decode(), base64.b64decode(signature), body)
        return codec.decode(body, content_type.decode(), content_encoding.decode(), self._accept)

    def _check(self, signer: str, signature: bytes, body: bytes) -> None:
        certificate = self._known.get(signer)
        if certificate is None:
            raise SecurityError(f"the certificate {signer!r} is not in security_cert_store")
        if datetime.now(UTC) >= _ends(certificate):
            raise SecurityError(f"the certificate {signer!r} has expired")
        public: Any = certificate.public_key()
        try:
            public.verify(signature, body, self._padding(), self._digest)
        except InvalidSignature:
            raise SecurityError("its signature is wrong", why="it was altered, or signed with another key") from None

    def _padding(self) -> padding.PSS:
        return padding.PSS(mgf=padding.MGF1(self._digest), salt_length=padding.PSS.MAX_LENGTH)


def register(bodies: SignedBodies) -> None:
    """Make this process write and read `auth` so."""
    codec.register(NAME, codec.Serializer(CONTENT_TYPE, "utf-8", bodies.encode, bodies.decode))


def _digest(name: str) -> hashes.HashAlgorithm:
    found = getattr(hashes, name.upper(), None)
    if not (isinstance(found, type) and issubclass(found, hashes.HashAlgorithm)):
        raise ImproperlyConfigured(f"cannot sign with the digest {name!r}", hint="use sha256, sha384 or sha512")
    made: hashes.HashAlgorithm = found()
    return made


def _read(path: str, setting: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unusable(path, setting, (error.strerror or str(error)).lower()) from None


def _private_key(path: str, password: bytes | None) -> rsa.RSAPrivateKey:
    try:
        key = load_pem_private_key(_read(path, "security_key"), _bytes(password))
    except (ValueError, TypeError) as error:
        raise _unusable(path, "security_key", str(error)) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _unusable(path, "security_key", "it is no RSA key")
    return key


def _bytes(password: bytes | str | None) -> bytes | None:
    return password.encode() if isinstance(password, str) else password


def _certificate(path: str, setting: str = "security_certificate") -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificate(_read(path, setting))
    except ValueError as error:
        raise _unusable(path, setting, str(error)) from None
    if not isinstance(found.public_key(), rsa.RSAPublicKey):
        raise _unusable(path, setting, "it is no certificate of an RSA key")
    return found


def _store(pattern: str) -> Mapping[str, x509.Certificate]:
    """The certificates of a folder, or of files by a pattern, by what they are called in messages."""
    files = glob.glob(os.path.join(pattern, "*") if os.path.isdir(pattern) else pattern)
    known: dict[str, x509.Certificate] = {}
    for path in sorted(files):
        certificate = _certificate(path, "security_cert_store")
        name = _name_of(certificate)
        if datetime.now(UTC) >= _ends(certificate):
            raise SecurityError(f"the certificate in {path} has expired")
        if name in known and known[name] != certificate:
            raise SecurityError(f"two certificates in security_cert_store are called {name!r}")
        known[name] = certificate
    if not known:
        raise _unusable(pattern, "security_cert_store", "no certificate is there")
    return known


def _name_of(certificate: x509.Certificate) -> str:
    """Issuer and serial number, as Celery writes them."""
    issuer = " ".join(str(attribute.value) for attribute in certificate.issuer)
    return f"{issuer} {certificate.serial_number}"


def _ends(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after_utc


def _unusable(path: str, setting: str, why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"cannot use {setting} = {path!r}", why=why)
