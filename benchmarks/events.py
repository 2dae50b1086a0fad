"""What it costs a worker that somebody listens to its tasks' events: nobody, a plain subscriber, `opsq monitor`.

    python -m benchmarks.events [--server plain|private] [--rate 10000] [--json]

Twice for each listener: a drain at full speed (as in `drain`), and a stream at a rate for some seconds: whether
the worker keeps up, and what CPU it takes. All of them share the cores of this machine, as they would in real life.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click
import redis

from benchmarks import processes, servers
from benchmarks.contenders import Contender, at_work, contenders, end, start, wait_for
from benchmarks.messages import LIST, PREPARED, messages
from benchmarks.report import Report, median
from benchmarks.servers import Server

LISTENERS = ("nobody", "a subscriber", "opsq monitor")
#: Tasks are sent in portions of so many a second.
PORTIONS = 100
_SUBSCRIBER = """
import sys
from opsq.events.event import Channels
from opsq.events.receiver import Receiver
for _ in Receiver(sys.argv[1], Channels(0)).listen(1.0):
    pass
"""


@dataclass(frozen=True)
class Run:
    """Tasks a second, microseconds of CPU a task of the worker and of Redis, the most messages that waited."""

    per_s: float
    worker_us: float
    redis_us: float
    waiting: int = 0


@contextmanager
def listening(what: str, who: Contender, server: Server) -> Iterator[None]:
    """Somebody listens, and the worker knows."""
    if what == "nobody":
        yield
        return
    folder = tempfile.mkdtemp(prefix="opsq-bench-listener-")
    environment = {**who.environment(server.url, None), "OPSQ_STATE_DIR": folder}
    command = [str(who.python), "-c", _SUBSCRIBER, server.url]
    if what == "opsq monitor":
        command = [str(who.python.with_name("opsq")), "-A", "bench_tasks", "monitor", "-l", "warning"]
    process = start(command, environment, folder)
    try:
        wait_for(lambda: server.client.pubsub_numpat() > 0, f"{what} does not listen", process)
        _two_heartbeats(server)
        yield
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _two_heartbeats(server: Server) -> None:
    """With the first one at the latest the worker looks whether somebody listens to its tasks."""
    with redis.Redis.from_url(server.url).pubsub(ignore_subscribe_messages=True) as ear:
        ear.subscribe("/0.celeryev/worker.heartbeat")
        heard = 0
        while heard < 2:
            heard += ear.get_message(timeout=1.0) is not None


def measure(who: Contender, server: Server, what: str, count: int, rate: int, seconds: float) -> tuple[Run, Run]:
    """One worker: the drain, then the stream."""
    server.client.flushall()
    raws = messages(max(count, int(rate * seconds)), 100)
    with at_work(who, server) as pid, listening(what, who, server):
        stores, pids = who.stores(server), processes.tree(pid)

        def left() -> int:
            pipe = server.client.pipeline(transaction=False)
            pipe.llen(LIST)
            for store in stores:
                pipe.hlen(store)
            return int(sum(pipe.execute()))

        for first in range(0, count, 1000):
            server.client.lpush(PREPARED, *raws[first : first + 1000])
        begin, used, redis_cpu = time.perf_counter(), processes.usage(pids), server.cpu_s()
        server.client.rename(PREPARED, LIST)
        while left():
            time.sleep(0.01)
        took, used = time.perf_counter() - begin, processes.usage(pids).since(used)
        drain = Run(count / took, used.cpu_s / count * 1e6, (server.cpu_s() - redis_cpu) / count * 1e6)

        sent = waiting = 0
        begin, used, redis_cpu = time.perf_counter(), processes.usage(pids), server.cpu_s()
        portion, total = rate // PORTIONS, int(rate * seconds)
        while sent < total:
            waiting = max(waiting, int(server.client.lpush(LIST, *raws[sent : sent + portion])))
            sent += portion
            time.sleep(max(begin + sent / rate - time.perf_counter(), 0))
        while left():
            time.sleep(0.002)
        took, used = time.perf_counter() - begin, processes.usage(pids).since(used)
        stream = Run(total / took, used.cpu_s / total * 1e6, (server.cpu_s() - redis_cpu) / total * 1e6, waiting)
    return drain, stream


@click.command()
@click.option("--server", "kind", type=click.Choice(list(servers.KINDS)), default="plain", show_default=True)
@click.option("--count", default=100_000, show_default=True, help="Tasks of the drain.")
@click.option("--rate", default=10_000, show_default=True, help="Tasks a second of the stream.")
@click.option("--seconds", default=5.0, show_default=True, help="How long the stream goes on.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(kind: str, count: int, rate: int, seconds: float, repeat: int, as_json: bool) -> None:
    """The price of events."""
    (who, *_others) = contenders(None)
    with servers.running(kind) as server:
        settings = f"one worker process, no results; medians of {repeat} runs; server: {servers.KINDS[kind]}"
        report = Report("events", settings, server.version, as_json)
        runs: dict[str, list[tuple[Run, Run]]] = {what: [] for what in LISTENERS}
        for _ in range(repeat):
            for what in LISTENERS:
                runs[what].append(measure(who, server, what, count, rate, seconds))
        alone = [median([run[part].per_s for run in runs["nobody"]]) for part in (0, 1)]
        for part, name in enumerate(("drain", f"{rate:,}/s")):
            for what in LISTENERS:
                found = [run[part] for run in runs[what]]
                per_s = median([run.per_s for run in found])
                report.add(
                    tasks=name,
                    listener=what,
                    per_s=round(per_s),
                    of_nobody=round(per_s / alone[part], 3),
                    worker_us=round(median([run.worker_us for run in found]), 1),
                    redis_us=round(median([run.redis_us for run in found]), 1),
                    most_waiting=round(median([run.waiting for run in found])),
                )
    report.notes.append("us: microseconds of CPU a task, of all processes of the worker and of Redis apart")
    report.print()


if __name__ == "__main__":
    main()
