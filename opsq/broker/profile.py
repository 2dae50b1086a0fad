"""How long the runs of each task take and what they cost: histograms of fixed size, a day each; the turn writes them.

Durations are taken of some messages of each turn (all of a turn with few), CPU time and growth of memory once a batch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from random import randrange
from typing import Any, Protocol

from opsq.broker.broker import Broker
from opsq.broker.queues import server_ms
from opsq.datastore import keys
from opsq.datastore.connection import errors
from opsq.runtime.usage import used

#: Durations are noted of so many messages of a turn; of a larger one each stands for several.
SAMPLES = 16
#: Buckets for each doubling of a duration: what is told is within 9% of what was measured.
FINENESS = 4


class Run(Protocol):
    """What a settlement tells of a run."""

    queue: int
    word: Any
    task: str
    runtime_s: float


class Row(Protocol):
    """What is sent of one task: how many runs, their time together, their buckets, and the text that says all that."""

    count: int
    seconds: float
    buckets: dict[int, int]
    costs: str


def bucket(seconds: float) -> int:
    """Where a duration is counted: a microsecond and less is 0."""
    return round(FINENESS * log2(seconds * 1e6)) if seconds > 1e-6 else 0


def middle(number: int) -> float:
    """The duration (seconds) that a bucket stands for."""
    return float(2 ** (number / FINENESS)) / 1e6


class Costs:
    """What the batches of one consumer cost, told with its next turn."""

    def __init__(self) -> None:
        self._before = used()
        self._cpu_s, self._grown_kib = 0.0, 0

    def begin(self) -> None:
        """A batch begins."""
        self._before = used()

    def end(self) -> None:
        """It is over: what this process has spent meanwhile, and by how much its peak of memory has risen."""
        before, now = self._before, used()
        self._cpu_s += now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
        self._grown_kib += now.ru_maxrss - before.ru_maxrss

    def tell(self, runs: Sequence[Run], rows: Mapping[tuple[int, Any, str], Row]) -> None:
        """Write into the rows of a turn (by queue, word, task) what these runs cost."""
        total_s = sum([row.seconds for row in rows.values()])
        if not total_s:
            return
        count = len(runs)
        step = 1 if count <= SAMPLES else -(-count // SAMPLES)
        for run in runs if step == 1 else runs[randrange(step) :: step]:
            if run.runtime_s:
                buckets = rows[run.queue, run.word, run.task].buckets
                number = bucket(run.runtime_s)
                buckets[number] = buckets.get(number, 0) + step
        cpu_us, grown_kib = self._cpu_s * 1e6 / total_s, self._grown_kib
        self._cpu_s, self._grown_kib = 0.0, 0
        for row in rows.values():
            if row.seconds:
                durations = "".join([f" {number}={count}" for number, count in row.buckets.items()])
                row.costs = f"n={row.count} cpu={int(cpu_us * row.seconds)}{durations}"
        if grown_kib:  # of several tasks the one that took the most time
            max(rows.values(), key=lambda row: row.seconds).costs += f" kib={grown_kib}"


@dataclass(frozen=True, slots=True)
class Profile:
    """The runs of a task: how many, half and 99% of them took at most so long (seconds), what one costs on the average
    (seconds of CPU, bytes by which its process has grown).
    """

    task: str
    runs: int
    p50_s: float
    p99_s: float
    cpu_s: float
    growth: float


def read(broker: Broker, queues: Iterable[str], days: int = keys.PROFILE_DAYS) -> list[Profile]:
    """The tasks that ran in the last days (today is one), by the CPU time that they took together."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with errors(broker.url):
        today = server_ms(broker) // 86_400_000
        pipe = broker.client.pipeline(transaction=False)
        for queue in queues:
            for day in range(today - days + 1, today + 1):
                pipe.hgetall(f"{broker.key(keys.profile(queue))}:{day}")
        for fields in pipe.execute():
            for field, count in fields.items():
                kind, _, task = field.decode(errors="replace").partition(":")
                found[task][kind] += int(count)
    profiles = [_profile(task, counts) for task, counts in found.items() if counts["n"] > 0]
    return sorted(profiles, key=lambda profile: (-profile.cpu_s * profile.runs, profile.task))


def _profile(task: str, counts: Counter[str]) -> Profile:
    runs = counts["n"]
    durations = sorted((int(kind), count) for kind, count in counts.items() if kind.isdecimal())
    return Profile(
        task,
        runs,
        _percentile(durations, 0.5),
        _percentile(durations, 0.99),
        counts["cpu"] / runs / 1e6,
        counts["kib"] * 1024 / runs,
    )


def _percentile(durations: Sequence[tuple[int, int]], share: float) -> float:
    """The least duration that this share of the runs did not exceed."""
    wanted = share * sum(count for _number, count in durations)
    for number, count in durations:
        wanted -= count
        if wanted <= 0:
            return middle(number)
    return 0.0
