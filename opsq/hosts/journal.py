"""Jobs as Redis keeps them: the orders before anything is sent, the hosts' answers, the outputs, the history."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opsq.datastore import keys
from opsq.hosts.hostset import HostSet
from opsq.hosts.job import HostResult, Job
from opsq.hosts.order import Answer, Order, Output, Refusal
from opsq.protocol import signing
from opsq.protocol.signing import PublicKey, Sealed

if TYPE_CHECKING:
    import redis

_AT_ONCE = 500

KeyOf = Callable[[str], PublicKey | None]


def record(job: str, sealed: Sequence[bytes], now: float) -> list[tuple[Any, ...]]:
    """The commands that keep a job; they go out before its orders, so that a dead terminal loses no job."""
    return [
        ("RPUSH", keys.job_order(job), *sealed),
        ("EXPIRE", keys.job_order(job), keys.JOB_S),
        ("ZADD", keys.JOBS, now, job),
        ("ZREMRANGEBYSCORE", keys.JOBS, "-inf", now - keys.JOB_S),
        ("ZREMRANGEBYRANK", keys.JOBS, 0, -keys.JOBS_CAP - 1),
    ]


def summarise(client: redis.Redis, job: Job) -> None:
    """Keep how it ended, in counts."""
    client.set(keys.job_summary(job.id), json.dumps(job.summary()), ex=keys.JOB_S)


def open_answer(value: bytes, key_of: KeyOf) -> Answer | None:
    """An answer that the host which it names has sealed; None for anything else."""
    parts = Sealed.split(value)
    if parts is None:
        return None
    told = Answer.parse(parts.body)
    key = key_of(told.host) if told is not None and isinstance(told.host, str) else None
    return told if key is not None and parts.is_by(key, signing.ANSWER) else None


def outputs(client: redis.Redis, job: str, results: Iterable[HostResult]) -> dict[str, bytes]:
    """Each distinct output once, by digest; what is not what the host has signed is left out."""
    wanted = sorted({part.sha256 for result in results for part in (result.out, result.err) if part and part.kept})
    found: dict[str, bytes] = {}
    for at in range(0, len(wanted), _AT_ONCE):
        digests = wanted[at : at + _AT_ONCE]
        pipe = client.pipeline(transaction=False)
        for digest in digests:
            pipe.get(keys.job_output(job, digest))
        for digest, data in zip(digests, pipe.execute(), strict=True):
            if data is not None and hashlib.sha256(data).hexdigest() == digest:
                found[digest] = data
    return found


def text_of(output: Output | None, data: Mapping[str, bytes]) -> str | None:
    """What was written, as text; what was left out in the middle is said. None when it is not there any more."""
    if output is None:
        return None
    if not output.kept:
        return "" if not output.bytes else f"[{output.bytes} bytes left out]\n"
    kept = data.get(output.sha256)
    if kept is None:
        return None
    if output.bytes == output.kept:
        return kept.decode(errors="replace")
    half = output.kept // 2
    left_out = f"\n[{output.bytes - output.kept} bytes left out]\n"
    return kept[:half].decode(errors="replace") + left_out + kept[half:].decode(errors="replace")


# -- the history -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Past:
    """A job of the history: when it was ordered (Unix seconds), by whom, what, where; `summary` if its caller told."""

    id: str
    time: float
    orders: Sequence[Order] = ()
    sealed: Sequence[bytes] = ()
    summary: Mapping[str, Any] | None = None
    #: Host -> what it has said.
    job: Job | None = field(default=None)


def ids(client: redis.Redis) -> list[tuple[str, float]]:
    """All jobs with their times, the latest first."""
    found: Any = client.zrevrange(keys.JOBS, 0, -1, withscores=True)
    return [(job.decode(errors="replace"), float(score)) for job, score in found]


def newest(client: redis.Redis, limit: int) -> tuple[list[Past], int]:
    """The latest jobs, and how many there are."""
    known = ids(client)
    chosen = known[:limit] if limit else known
    pipe = client.pipeline(transaction=False)
    for job, _when in chosen:
        pipe.lrange(keys.job_order(job), 0, -1)
        pipe.get(keys.job_summary(job))
    values = pipe.execute() if chosen else []
    return [
        Past(job, when, list(orders_of(sealed)), sealed, _object(summary))
        for (job, when), sealed, summary in zip(chosen, values[::2], values[1::2], strict=True)
    ], len(known)


def one(client: redis.Redis, job: str, when: float, key_of: KeyOf) -> Past:
    """All that is known of a job; answers whose seal is wrong are left out."""
    sealed: Any = client.lrange(keys.job_order(job), 0, -1)
    orders = list(orders_of(sealed))
    followed = Job.of([(order, HostSet.parse(order.targets)) for order in orders], [])
    for value in read_answers(client, job):
        answer = open_answer(value, key_of)
        if answer is not None:
            followed.take(answer)
    over = time.time() > max((order.exp for order in orders), default=0.0)
    if over:
        followed.settle(followed.names("waiting"), "silent", "")
    return Past(job, when, orders, sealed, _object(client.get(keys.job_summary(job))), followed)


def read_answers(client: redis.Redis, job: str) -> Iterator[bytes]:
    """All answers of a job as they came."""
    entries: Any = client.xrange(keys.job_answers(job))
    for _id, entry in entries:
        if b"a" in entry:
            yield entry[b"a"]


def orders_of(sealed: Iterable[bytes]) -> Iterator[Order]:
    """The orders in sealed values, unchecked."""
    for value in sealed:
        parts = Sealed.split(value)
        try:
            if parts is not None:
                yield Order.parse(parts.body)
        except Refusal:
            continue


def _object(value: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(value) if value else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
