"""A master, its replica and three Sentinels that watch them; certificates for a server that speaks TLS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from support import redis_server
from support.redis_server import RedisServer

MASTER = "mymaster"
#: After this silence a master counts as gone. Sentinels send a PING each second: with no more than that, one late
#: answer makes them choose again, unasked, and what the replica has not got yet is gone.
GONE_AFTER_MS = 3_000


def until(condition: Callable[[], Any], what: str, timeout_s: float = 20) -> Any:
    """The first true value of the condition; connections that fail meanwhile do not matter."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with suppress(redis.RedisError):
            if value := condition():
                return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")


@contextmanager
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and a replica that has all it has."""
    with redis_server.running() as master, redis_server.running() as replica:
        follow(replica, master)
        yield master, replica


def follow(replica: RedisServer, master: RedisServer) -> None:
    """Make a server the replica of another one."""
    with master.client() as client:
        client.config_set("repl-diskless-sync-delay", "0")
    with replica.client() as client:
        client.replicaof("127.0.0.1", master.port)
        until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")


@dataclass(frozen=True)
class Watched:
    """The set, and the ports of those who watch it."""

    master: RedisServer
    replica: RedisServer
    sentinels: dict[int, subprocess.Popen[bytes]]

    def url(self, db: int = 0) -> str:
        """As people write it: the database after the first, the name of the master in a setting."""
        first, *others = [f"sentinel://127.0.0.1:{port}" for port in self.sentinels]
        return ";".join([f"{first}/{db}", *others])

    def full_url(self, db: int = 0) -> str:
        """The same with the master's name in it."""
        first, mark, others = self.url(db).partition(";")
        return f"{first}?master_name={MASTER}{mark}{others}"


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """A replicated pair under three Sentinels, who have found each other."""
    with pair() as (master, replica), ExitStack() as stack:
        sentinels = dict(_sentinel(stack, folder, number, master.port) for number in range(3))
        for port in sentinels:
            until(lambda port=port: _sees_all(port), "the Sentinels find each other")
        yield Watched(master, replica, sentinels)


def _sentinel(stack: ExitStack, folder: Path, number: int, master_port: int) -> tuple[int, subprocess.Popen[bytes]]:
    port = redis_server.free_port()
    path = folder / f"sentinel-{number}.conf"
    path.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/sentinel-{number}.log\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {master_port} 2\n"
        f"sentinel down-after-milliseconds {MASTER} {GONE_AFTER_MS}\nsentinel failover-timeout {MASTER} 3000\n"
    )
    process = subprocess.Popen(
        [redis_server.binary(), str(path), "--sentinel"],
        preexec_fn=redis_server.die_with_parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return port, process


def _sees_all(port: int) -> bool:
    with redis.Redis(port=port) as client:
        seen: Any = client.sentinel_master(MASTER)
        return bool(seen["num-other-sentinels"] == 2 and seen["num-slaves"] == 1)


@dataclass(frozen=True)
class Certificates:
    """Paths: of an authority, and of a certificate and key that it has signed for 127.0.0.1 and for clients."""

    authority: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Fresh ones, valid for an hour."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    ca = _certificate(ca_name, ca_name, ca_key, ca_key, [x509.BasicConstraints(ca=True, path_length=0)])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = _certificate(name, ca_name, key, ca_key, [alternative])
    found = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    found.authority.write_bytes(ca.public_bytes(Encoding.PEM))
    found.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    found.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return found


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extensions: list[x509.ExtensionType],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(signer, hashes.SHA256())
