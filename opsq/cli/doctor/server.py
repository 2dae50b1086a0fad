"""Checks of the broker's server: is it one that loses nothing, and has it room and time?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from opsq.cli.doctor.finding import Finding, Look
from opsq.cli.output import size
from opsq.datastore.connection import errors
from opsq.datastore.line import Line
from opsq.datastore.trouble import ResponseError

OLDEST = (6, 2)
#: Above this share of its memory a server that keeps queues is in danger.
FULL = 0.8
#: An answer that takes longer (seconds) costs every publish that much.
SLOW_S = 0.010
#: Clocks that differ by more (seconds) make ETAs and schedules visibly wrong.
SKEW_S = 2.0
_PINGS = 11


def version(look: Look) -> Iterator[Finding]:
    """Redis 6.2 or newer."""
    text = str(look.info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        yield Finding(
            f"the broker is Redis {text}",
            "opsq needs commands of Redis 6.2 or newer",
            "install a newer Redis or Valkey",
        )


def eviction(look: Look) -> Iterator[Finding]:
    """A full server must refuse, not throw messages away."""
    policy = look.info.get("maxmemory_policy") or look.server_setting("maxmemory-policy")
    if policy and policy != "noeviction":
        yield Finding(
            f"the broker evicts keys when its memory is full (maxmemory-policy {policy})",
            "queues, results and locks disappear without a word",
            "redis-cli CONFIG SET maxmemory-policy noeviction, and the same line in redis.conf",
        )


def persistence(look: Look) -> Iterator[Finding]:
    """What is acknowledged must survive a restart of the server."""
    info = look.info
    if not int(info.get("aof_enabled", 0)):
        yield Finding(
            "the broker has no append-only file",
            "whatever was sent since its last snapshot is lost when it stops",
            "redis-cli CONFIG SET appendonly yes, and the same line in redis.conf (deploy/redis.conf has the reasons)",
        )
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "the broker cannot write its append-only file",
            "what is sent now is lost when it stops",
            "look at its log and at the room on its disk",
        )
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Finding(
            "the broker's last snapshot failed",
            "with stop-writes-on-bgsave-error it refuses new tasks",
            "look at its log and at the room on its disk, then redis-cli BGSAVE",
        )


def memory(look: Look) -> Iterator[Finding]:
    """Room for the next burst."""
    used, most = int(look.info.get("used_memory", 0)), int(look.info.get("maxmemory", 0))
    bound = "maxmemory"
    if not most:
        most, bound = int(look.info.get("total_system_memory", 0)), "the machine's memory"
    if most and used > FULL * most:
        yield Finding(
            f"the broker uses {size(used)} of {size(most)} ({bound})",
            "when it is full nothing can be sent any more",
            "opsq queues shows what is large; raise maxmemory, or lower result_expires",
        )


def latency(look: Look) -> Iterator[Finding]:
    """How long an answer takes."""
    client = look.broker.client
    took = []
    with errors(look.broker.url):
        client.ping()
        for _ in range(_PINGS):
            begin = time.perf_counter()
            client.ping()
            took.append(time.perf_counter() - begin)
    middle = sorted(took)[_PINGS // 2]
    if middle > SLOW_S:
        yield Finding(
            f"the broker answers after {middle * 1e3:.0f} ms",
            "every call that sends a task waits that long",
            "redis-cli --latency and SLOWLOG GET show whether it is the network or the server",
        )


def clock(look: Look) -> Iterator[Finding]:
    """This host's clock and the server's."""
    client = look.broker.client
    with errors(look.broker.url):
        before = time.time()
        seconds, micros = client.time()
        after = time.time()
    off = seconds + micros / 1e6 - (before + after) / 2
    if abs(off) > SKEW_S + (after - before) / 2:
        yield Finding(
            f"the broker's clock is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} this host's",
            "ETAs, expiry and schedules are off by that much, and host orders may be refused",
            "timedatectl set-ntp true on both machines",
        )


def notices(look: Look) -> Iterator[Finding]:
    """Whether the server tells workers when a queue changes."""
    line = Line(look.broker.url)
    with errors(look.broker.url):
        try:
            line.ask("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP")
        except ResponseError as error:
            yield Finding(
                f"the broker refuses CLIENT TRACKING ({error})",
                "idle workers must ask again and again, and take up to a second to see a task",
                "allow it: redis-cli ACL SETUSER <user> +client|tracking +client|caching",
            )
        finally:
            line.close()
