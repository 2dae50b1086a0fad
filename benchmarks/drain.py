"""How fast one process drains a queue of tasks that do nothing: opsq, Celery, and a bare loop of opsq's scripts.

    python -m benchmarks.drain [--server plain|private] [--celery PYTHON] [--json]

The messages are prepared under another name, the worker is started and waits; RENAME then makes all of them appear in
the queue at once. Time runs from there until the queue and the worker's store of unfinished messages are both empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import processes, servers
from benchmarks.contenders import Contender, at_work, contenders
from benchmarks.messages import LIST, PREPARED, messages
from benchmarks.report import Report, median
from benchmarks.servers import Server

#: Results: none, in the broker's database, in another database of the same server.
RESULTS = ("off", "same database", "other database")
#: Fewer messages of this size or more (bytes): they fill memory, not time.
LARGE = 10_000
#: How often the queue is looked at, at most (seconds).
LOOK_S = 0.002


@dataclass(frozen=True)
class Case:
    """What is drained: `payload` bytes each."""

    payload: int
    results: str
    count: int
    celery_count: int

    def backend(self, server: Server) -> str | None:
        """Where the results go."""
        return {"off": None, "same database": server.url, "other database": server.database(1)}[self.results]


@dataclass(frozen=True)
class Run:
    """One drain: its speed, and microseconds of CPU a task of the worker and of Redis."""

    per_second: float
    worker_us: float
    redis_us: float


def cases(payloads: list[int], results: list[str], count: int, celery_count: int) -> Iterator[Case]:
    """Each payload with each kind of results."""
    for payload in payloads:
        for kind in results:
            yield Case(payload, kind, count // 5 if payload >= LARGE else count, celery_count)


def drain(who: Contender, server: Server, case: Case, raws: list[bytes]) -> Run:
    """Fill, start, let go, watch."""
    server.client.flushall()
    for first in range(0, len(raws), 1000):
        server.client.lpush(PREPARED, *raws[first : first + 1000])
    with at_work(who, server, case.backend(server)) as pid:
        stores, pids = who.stores(server), processes.tree(pid)
        used, redis_cpu, begin = processes.usage(pids), server.cpu_s(), time.perf_counter()
        server.client.rename(PREPARED, LIST)
        seconds = _watch(server, stores, len(raws), begin)
        redis_cpu, used = server.cpu_s() - redis_cpu, processes.usage(pids).since(used)
    return Run(len(raws) / seconds, used.cpu_s / len(raws) * 1e6, redis_cpu / len(raws) * 1e6)


def _watch(server: Server, stores: list[str], count: int, begin: float) -> float:
    """Seconds until nothing waits and nothing is unfinished. Looks rarely until the end is near: looking costs too."""
    while True:
        pipe = server.client.pipeline(transaction=False)
        pipe.llen(LIST)
        for store in stores:
            pipe.hlen(store)
        left = sum(pipe.execute())
        seconds = time.perf_counter() - begin
        if not left:
            return seconds
        done = count - left
        time.sleep(max(LOOK_S, min(seconds * left / done / 2, seconds / 10)) if done else LOOK_S)


def measure(report: Report, server: Server, whos: list[Contender], case: Case, repeat: int) -> None:
    """All of them in turn, so often; a row each with the medians."""
    raws = messages(case.count, case.payload)
    runs: dict[str, list[Run]] = {who.name: [] for who in whos}
    for _ in range(repeat):
        for who in whos:
            some = raws[: case.celery_count] if who.library == "celery" else raws
            runs[who.name].append(drain(who, server, case, some))
    bare = [run.per_second for run in runs["bare loop"]]
    for who in whos:
        found = runs[who.name]
        speeds = [run.per_second for run in found]
        report.add(
            payload_kB=case.payload / 1000,
            results=case.results,
            who=who.name,
            tasks=case.celery_count if who.library == "celery" else case.count,
            per_s=round(median(speeds)),
            from_to=f"{min(speeds):,.0f}-{max(speeds):,.0f}",
            worker_us=round(median([run.worker_us for run in found]), 1),
            redis_us=round(median([run.redis_us for run in found]), 1),
            of_bare_loop=round(median([one / other for one, other in zip(speeds, bare, strict=True)]), 3),
        )


@click.command()
@click.option("--server", "kind", type=click.Choice(list(servers.KINDS)), default="plain", show_default=True)
@click.option("--payload", "payloads", type=int, multiple=True, default=(100, 1000, 10_000), help="Bytes.")
@click.option("--results", type=click.Choice(RESULTS), multiple=True, default=RESULTS)
@click.option("--count", default=50_000, show_default=True, help="Tasks; a fifth of it with large payloads.")
@click.option("--celery", type=click.Path(path_type=Path), help="The Python of an environment with Celery.")
@click.option("--celery-count", default=3000, show_default=True, help="Tasks for Celery.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(
    kind: str,
    payloads: tuple[int, ...],
    results: tuple[str, ...],
    count: int,
    celery: Path | None,
    celery_count: int,
    repeat: int,
    as_json: bool,
) -> None:
    """Drain of tasks that do nothing, by one process."""
    with servers.running(kind) as server:
        settings = f"one worker process; medians of {repeat} runs; server: {servers.KINDS[kind]}"
        report = Report("drain", settings, server.version, as_json)
        for case in cases(list(payloads), list(results), count, celery_count):
            measure(report, server, contenders(celery), case, repeat)
    report.notes.append("us: microseconds of CPU a task, of all processes of the worker and of Redis apart")
    if celery is None:
        report.notes.append("Celery was not measured: name the Python of an environment with it by --celery")
    report.print()


if __name__ == "__main__":
    main()
