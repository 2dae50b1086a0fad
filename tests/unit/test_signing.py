"""Seals: made here and checked by OpenSSH, made by OpenSSH and checked here, and for one purpose each."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.protocol import signing
from opsq.protocol.signing import KeyFormatError, PrivateKey, PublicKey, Sealed

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    text, public = signing.generate()
    key = PrivateKey.parse(text)
    assert key.public == public
    return key


def ssh_keygen(*words: object, body: bytes = b"", code: int = 0) -> str:
    done = subprocess.run(["ssh-keygen", *map(str, words)], input=body, capture_output=True, timeout=20)
    assert done.returncode == code, done
    return done.stdout.decode()


@needs_ssh_keygen
def test_ssh_keygen_checks_what_was_sealed_here(key: PrivateKey, tmp_path: Path) -> None:
    sealed = Sealed.split(signing.seal(key, signing.ORDER, b"an order"))
    assert sealed is not None
    (tmp_path / "signers").write_text(f'me namespaces="opsq-order" {key.public.line()}\n')
    (tmp_path / "sig").write_text(signing.armored(sealed, key.public, signing.ORDER))
    check = ("-Y", "verify", "-f", tmp_path / "signers", "-I", "me", "-s", tmp_path / "sig")
    assert "Good" in ssh_keygen(*check, "-n", "opsq-order", body=b"an order")
    ssh_keygen(*check, "-n", "opsq-order", body=b"another", code=255)
    ssh_keygen(*check, "-n", "opsq-answer", body=b"an order", code=255)


@needs_ssh_keygen
def test_what_ssh_keygen_made_is_read_and_checked_here(tmp_path: Path) -> None:
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", tmp_path / "key")
    public = PublicKey.parse((tmp_path / "key.pub").read_text())
    private = PrivateKey.parse((tmp_path / "key").read_text())
    assert private.public == public
    assert public.fingerprint in ssh_keygen("-l", "-f", tmp_path / "key.pub")
    (tmp_path / "body").write_bytes(b"hello")
    ssh_keygen("-q", "-Y", "sign", "-n", "opsq-order", "-f", tmp_path / "key", tmp_path / "body")
    lines = (tmp_path / "body.sig").read_text().split("\n")
    signature = base64.b64decode("".join(line for line in lines if not line.startswith("-----")))[-64:]
    assert Sealed(public.id, signature, b"hello").is_by(public, signing.ORDER)
    assert not Sealed(public.id, signature, b"hello").is_by(public, signing.ANSWER)
    assert not Sealed(public.id, signature, b"hullo").is_by(public, signing.ORDER)


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_are_refused(kind: str, tmp_path: Path) -> None:
    ssh_keygen("-q", "-t", kind, "-N", "", "-f", tmp_path / "key")
    with pytest.raises(KeyFormatError):
        PublicKey.parse((tmp_path / "key.pub").read_text())
    with pytest.raises(KeyFormatError):
        PrivateKey.parse((tmp_path / "key").read_text())


@needs_ssh_keygen
def test_a_passphrase_is_named(tmp_path: Path) -> None:
    ssh_keygen("-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key")
    with pytest.raises(KeyFormatError, match="passphrase"):
        PrivateKey.parse((tmp_path / "key").read_text())


def test_lines_with_options_and_security_keys_are_refused(key: PrivateKey) -> None:
    line = key.public.line("me")
    assert PublicKey.parse(line) == key.public
    for wrong in (f'from="x" {line}', line.replace("ssh-ed25519", "sk-ssh-ed25519@openssh.com", 1), "", line[:40]):
        with pytest.raises(KeyFormatError):
            PublicKey.parse(wrong)


def test_a_signature_for_one_purpose_serves_no_other(key: PrivateKey) -> None:
    sealed = Sealed.split(signing.seal(key, signing.ANSWER, b"body"))
    assert sealed is not None
    assert sealed.is_by(key.public, signing.ANSWER)
    assert not sealed.is_by(key.public, signing.ORDER)


@given(st.binary(max_size=200))
def test_no_bytes_are_a_sealed_value_by_chance(data: bytes) -> None:
    public = PublicKey(bytes(32))
    sealed = Sealed.split(data)
    assert sealed is None or not sealed.is_by(public, signing.ORDER)
