"""What a monitor that listens costs a worker: tasks of 90 microseconds (about 10,000 a second), with it and without.

    python -m benchmarks.monitor [--server plain|private] [--count N] [--json]

As in `drain` the messages appear in the queue at once. The monitor is attached before, as a process of its own; what it
has heard and kept is read from it afterwards.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks import processes, servers
from benchmarks.contenders import Contender, at_work, contenders, end, start, wait_for
from benchmarks.drain import _watch as watch
from benchmarks.messages import LIST, PREPARED
from benchmarks.report import Report, median
from benchmarks.servers import Server
from opsq.protocol import writing
from opsq.utils.ids import new_task_id

#: What the worker does for each task (seconds).
WORK_S = 90e-6
#: Events of a task that ends well.
EVENTS = 3


def calls(count: int) -> list[bytes]:
    """Calls of a task that works for a moment."""
    mark = "00000000-0000-4000-8000-000000000000"
    pattern = writing.build(task="bench_tasks.spin", id=mark, args=(WORK_S,), kwargs={}, queue=LIST, origin="bench")
    return [pattern.replace(mark.encode(), new_task_id().encode()) for _ in range(count)]


@contextmanager
def attached(who: Contender, server: Server) -> Iterator[tuple[int, str]]:
    """A monitor that listens: its process id and its address."""
    folder = tempfile.mkdtemp(prefix="opsq-bench-monitor-")
    output = Path(folder) / "output"
    environment = {**who.environment(server.url, None), "OPSQ_STATE_DIR": folder}
    command = [str(who.python.with_name("opsq")), "-A", "bench_tasks", "monitor", "-l", "info"]
    process = start(command, environment, folder)
    try:
        wait_for(lambda: "monitor ready" in output.read_text(), "the monitor does not start", process)
        found = re.search(r"monitor ready: (\S+)", output.read_text())
        assert found is not None
        yield process.pid, found[1]
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def ask(url: str) -> dict[str, Any]:
    """What a monitor says of itself."""
    with urllib.request.urlopen(f"{url}api/overview", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)["monitor"]
    return found


def drained(server: Server, who: Contender, raws: list[bytes]) -> dict[str, float]:
    """Tasks a second of a worker, and the CPU that it and Redis take for each (microseconds)."""
    with at_work(who, server) as pid:
        time.sleep(3)  # a worker looks every 2 s whether somebody listens
        pids = processes.tree(pid)
        used, redis_cpu, begin = processes.usage(pids), server.cpu_s(), time.perf_counter()
        server.client.rename(PREPARED, LIST)
        seconds = watch(server, who.stores(server), len(raws), begin)
        redis_cpu, used = server.cpu_s() - redis_cpu, processes.usage(pids).since(used)
    each_us = 1e6 / len(raws)
    return {"per_s": len(raws) / seconds, "worker_us": used.cpu_s * each_us, "redis_us": redis_cpu * each_us}


def fill(server: Server, raws: list[bytes]) -> None:
    """Prepare the messages on an empty server."""
    server.client.flushall()
    for first in range(0, len(raws), 1000):
        server.client.lpush(PREPARED, *raws[first : first + 1000])


def alone(server: Server, who: Contender, raws: list[bytes]) -> dict[str, Any]:
    """Without a monitor."""
    fill(server, raws)
    return drained(server, who, raws)


def watched(server: Server, who: Contender, raws: list[bytes]) -> dict[str, Any]:
    """With a monitor."""
    fill(server, raws)
    with attached(who, server) as (pid, url):
        used = processes.usage(processes.tree(pid))
        found = drained(server, who, raws)
        told = settled(url)
        used = processes.usage(processes.tree(pid)).since(used)
        kept = told["history"]
    return {
        **found,
        "heard": told["events"] / (EVENTS * len(raws)),
        "kept": kept,
        "accounted": (kept + told["skipped_last_hour"]) / len(raws),
        "monitor_cores": used.cpu_s / (len(raws) / found["per_s"]),
    }


def settled(url: str) -> dict[str, Any]:
    """What the monitor says once it has worked through all that it heard."""
    before, told = -1, ask(url)
    while told["history"] + told["skipped_last_hour"] != before:
        before = told["history"] + told["skipped_last_hour"]
        time.sleep(2)
        told = ask(url)
    return told


def cpu(found: dict[str, float]) -> dict[str, float]:
    """Microseconds a task, rounded."""
    return {name: round(found[name], 1) for name in ("worker_us", "redis_us")}


@click.command()
@click.option("--server", "kind", type=click.Choice(list(servers.KINDS)), default="plain", show_default=True)
@click.option("--count", default=40_000, show_default=True, help="Tasks of each run.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(kind: str, count: int, repeat: int, as_json: bool) -> None:
    """What a monitor costs a worker."""
    raws, who = calls(count), contenders(None)[0]
    with servers.running(kind) as server:
        settings = f"one worker process, tasks of {WORK_S * 1e6:.0f} us; medians of {repeat}; {servers.KINDS[kind]}"
        report = Report("monitor", settings, server.version, as_json)
        without, with_it = [], []
        for _ in range(repeat):
            without.append(alone(server, who, raws))
            with_it.append(watched(server, who, raws))
    base = {name: median([each[name] for each in without]) for name in without[0]}
    report.add(monitor="none", per_s=round(base["per_s"]), **cpu(base))
    found = {name: median([each[name] for each in with_it]) for name in with_it[0]}
    report.add(
        monitor="attached",
        per_s=round(found["per_s"]),
        **cpu(found),
        lost_percent=round((1 - found["per_s"] / base["per_s"]) * 100, 1),
        lost_by_cpu_percent=round((1 - base["worker_us"] / found["worker_us"]) * 100, 1),
        heard_percent=round(found["heard"] * 100, 1),
        kept=round(found["kept"]),
        kept_or_counted_percent=round(found["accounted"] * 100, 1),
        monitor_cores=round(found["monitor_cores"], 2),
    )
    report.notes.append("lost by CPU: what the worker's own CPU a task says, whatever else wants the machine's cores")
    report.notes.append(f"cores here: {len(os.sched_getaffinity(0))}; worker, Redis and monitor want one each")
    report.print()


if __name__ == "__main__":
    main()
