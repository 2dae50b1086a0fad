"""`app.setup_security()`: what must be set, and which keys and certificates can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import certificates

from opsq import App, serialization
from opsq.exceptions import DecodeError, ImproperlyConfigured, SecurityError
from opsq.protocol import codec


@pytest.fixture(autouse=True)
def _auth_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_BY_NAME", dict(codec._BY_NAME))
    monkeypatch.setattr(codec, "_BY_TYPE", dict(codec._BY_TYPE))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Key, certificate and store of one program."""
    certificate, key = certificates.self_signed(tmp_path, "one")
    store = tmp_path / "store"
    store.mkdir()
    (store / "one.pem").write_bytes(certificate.read_bytes())
    return {"security_key": str(key), "security_certificate": str(certificate), "security_cert_store": str(store)}


def app_of(files: dict[str, str], **settings: Any) -> App:
    signed = {"task_serializer": "auth", "accept_content": ["auth"]}
    return App("proj", set_as_current=False, **{**signed, **files, **settings})


@pytest.mark.parametrize("digest", ["sha256", "SHA512"])
def test_what_is_signed_is_read(files: dict[str, str], digest: str) -> None:
    app_of(files).setup_security(digest=digest)
    kind, encoding, data = serialization.dumps({"a": [1]}, "auth")
    assert (kind, encoding) == ("application/data", "utf-8")
    assert serialization.loads(data, kind, encoding, ["auth"]) == {"a": [1]}


def test_what_is_signed_may_be_of_another_serializer(files: dict[str, str]) -> None:
    app_of(files).setup_security(serializer="msgpack")
    kind, encoding, data = serialization.dumps({"a": b"\xff"}, "auth")
    assert serialization.loads(data, kind, encoding, ["auth"]) == {"a": b"\xff"}


def test_a_certificate_that_is_not_in_the_store_is_not_trusted(files: dict[str, str], tmp_path: Path) -> None:
    app_of(files).setup_security()
    *where, data = serialization.dumps(1, "auth")
    other, _key = certificates.self_signed(tmp_path, "other")
    (tmp_path / "store" / "one.pem").write_bytes(other.read_bytes())
    app_of(files).setup_security()
    with pytest.raises(DecodeError, match=r"the certificate 'one .*' is not in security_cert_store"):
        serialization.loads(data, *where, ["auth"])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"task_serializer": "json"}, "task_serializer is 'json'"),
        ({"accept_content": ["auth", "json"]}, r"accept_content \['auth', 'json'\]"),
        ({"security_key": None}, "no security_key is set"),
        ({"security_key": None, "security_cert_store": None}, "no security_key and security_cert_store is set"),
        ({"security_key": "/proc/nowhere"}, "security_key = '/proc/nowhere': no such file"),
        ({"security_key": __file__}, "cannot use security_key"),
        ({"security_certificate": __file__}, "cannot use security_certificate"),
        ({"security_cert_store": "/proc/nowhere/*"}, "no certificate is there"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(files: dict[str, str], settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=why):
        app_of(files, **settings).setup_security()


def test_digests_must_be_the_same_and_known(files: dict[str, str]) -> None:
    app_of(files).setup_security(digest="sha384")
    *where, data = serialization.dumps(1, "auth")
    app_of(files).setup_security()
    with pytest.raises(DecodeError, match="its signature is wrong"):
        serialization.loads(data, *where, ["auth"])
    with pytest.raises(ImproperlyConfigured, match="cannot sign with the digest 'rot13'"):
        app_of(files).setup_security(digest="rot13")


def test_an_expired_certificate_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    old, _key = certificates.self_signed(tmp_path, "old", life_s=-60)
    (tmp_path / "store" / "old.pem").write_bytes(old.read_bytes())
    with pytest.raises(SecurityError, match=r"old\.pem has expired"):
        app_of(files).setup_security()


def test_a_key_with_a_password(files: dict[str, str], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as keys

    plain = keys.load_pem_private_key(Path(files["security_key"]).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    form = keys.PrivateFormat.PKCS8
    locked.write_bytes(plain.private_bytes(keys.Encoding.PEM, form, keys.BestAvailableEncryption(b"open it")))
    files["security_key"] = str(locked)
    app_of(files, security_key_password=b"open it").setup_security()
    with pytest.raises(ImproperlyConfigured, match="cannot use security_key"):
        app_of(files, security_key_password=b"wrong").setup_security()


def test_until_it_is_set_up_the_serializer_says_what_to_call() -> None:
    with pytest.raises(ImproperlyConfigured) as told:
        serialization.dumps(1, "auth")
    assert "app.setup_security()" in told.value.hint
