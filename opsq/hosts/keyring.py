"""The key directory of a machine's user: the host's key, the operator's key, whom this host trusts, what was joined.

Whoever comes first makes the missing keys, under a lock. Everything in it is for its owner alone.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opsq.exceptions import OpsqError, RefusedError
from opsq.hosts.sshagent import AgentKey
from opsq.protocol.signing import KeyFormatError, PrivateKey, PublicKey, Signer, generate
from opsq.runtime.statedir import keys_directory

HOST, OPERATOR = "host", "operator"


class KeyRing:
    """Paths and keys of one key directory. Nothing is made before `ensure`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or keys_directory()

    @property
    def allowed_signers(self) -> Path:
        """Whose orders are trusted, in OpenSSH's format."""
        return self.root / "allowed_signers"

    @property
    def revoked_keys(self) -> Path:
        """Whose orders are refused whatever else is said: a public key a line (ssh-keygen reads it with `-r`)."""
        return self.root / "revoked_keys"

    @property
    def operator_public(self) -> Path:
        """The operator's public key."""
        return self.root / f"{OPERATOR}.pub"

    @property
    def nonces(self) -> Path:
        """The host's memory of orders: what was started once is never started again."""
        return self.root / "nonces"

    @property
    def known_hosts(self) -> Path:
        """The operator's memory of hosts: names, keys, when they were last seen."""
        return self.root / "known_hosts.json"

    @property
    def brokers(self) -> Path:
        """The brokers that this host has joined; the URLs may hold passwords."""
        return self.root / "brokers.json"

    def ensure(self) -> None:
        """Make the keys that are missing. Raises one clear error if that cannot be."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.locked():
                for name, comment in ((HOST, f"host {socket.gethostname()}"), (OPERATOR, whoami())):
                    if not any(path.exists() for path in (self.root / name, self.root / f"{name}.pub")):
                        self._make(name, comment)
        except OSError as error:
            kind = RefusedError if isinstance(error, PermissionError) else OpsqError
            raise kind(
                f"cannot make keys in {self.root}",
                why=(error.strerror or str(error)).lower(),
                hint="name another directory with OPSQ_STATE_DIR or --state-dir",
            ) from None

    def _make(self, name: str, comment: str) -> None:
        text, public = generate()
        write_private(self.root / name, text)
        write_private(self.root / f"{name}.pub", public.line(comment) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in this directory: who changes a file reads and writes it under this lock."""
        fd = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def host(self) -> PrivateKey:
        """The key that seals what this host says. Raises OpsqError."""
        return self._private(HOST)

    def operator(self) -> Signer:
        """The key that seals orders: the file's, or the one in ssh-agent when only its public part lies here."""
        if (self.root / OPERATOR).exists() or not self.operator_public.exists():
            return self._private(OPERATOR)
        return AgentKey(self.public(OPERATOR))

    def public(self, name: str) -> PublicKey:
        """The public key of host or operator. Raises OpsqError."""
        path = self.root / f"{name}.pub"
        try:
            return PublicKey.parse(path.read_text())
        except OSError as error:
            raise OpsqError(f"cannot read {path}", why=(error.strerror or str(error)).lower()) from None
        except (KeyFormatError, UnicodeDecodeError) as error:
            raise OpsqError(f"cannot use {path}", why=str(error)) from None

    def _private(self, name: str) -> PrivateKey:
        path = self.root / name
        try:
            with path.open() as file:
                mode = os.fstat(file.fileno()).st_mode
                if mode & 0o077:
                    raise RefusedError(f"cannot use the key {path}", why="others may read it", hint=f"chmod 600 {path}")
                return PrivateKey.parse(file.read())
        except OSError as error:
            kind = RefusedError if isinstance(error, PermissionError) else OpsqError
            raise kind(f"cannot read the key {path}", why=(error.strerror or str(error)).lower()) from None
        except (KeyFormatError, UnicodeDecodeError) as error:
            hint = "load it into ssh-agent and leave only its .pub file there" if "passphrase" in str(error) else ""
            raise OpsqError(f"cannot use the key {path}", why=str(error), hint=hint) from None


def whoami() -> str:
    """user@host, for comments and for what people read."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of ours holds; empty when it is not there. Raises OpsqError when it is broken."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OpsqError(f"cannot read {path}", why=(error.strerror or str(error)).lower()) from None
    except ValueError as error:
        raise OpsqError(f"cannot read {path}", why=str(error), hint="mend it, or move it away") from None
    if not isinstance(found, dict):
        raise OpsqError(f"cannot read {path}", why="it holds no JSON object", hint="move it away")
    return found
