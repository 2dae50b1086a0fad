"""The pools side by side: tasks that do nothing, and a thousand that sleep at once in one process.

    python -m benchmarks.pools [--count 50000] [--sleepers 1000] [--json]

gevent and eventlet have to be installed beside opsq. "all asleep" is the time from the first of the sleeping tasks to
the begin of the last one, as the tasks themselves wrote it down; they sleep for two seconds each.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from pathlib import Path

import click

from benchmarks import processes, servers
from benchmarks.contenders import Contender, contenders, end, start, wait_for
from benchmarks.footprint import pss_mb
from benchmarks.messages import LIST, PREPARED, call
from benchmarks.promptness import written
from benchmarks.report import Report, Row, median
from benchmarks.servers import Server

#: Pool -> the words of the command line, and what its tasks are called after.
POOLS = {
    "prefork, one child": (["-c", "1"], ""),
    "solo": (["-P", "solo"], ""),
    "threads": (["-P", "threads", "-c", "1000"], ""),
    "asyncio": (["-P", "asyncio", "-c", "1000"], "async_"),
    "gevent": (["-P", "gevent", "-c", "1000"], ""),
    "eventlet": (["-P", "eventlet", "-c", "1000"], ""),
}
#: These run one task at a time: nothing sleeps at once.
ALONE = ("prefork, one child", "solo")
SLEEP_S, LOOK_S = 2.0, 0.005


def measure(who: Contender, server: Server, words: list[str], prefix: str, count: int, sleepers: int) -> Row:
    """One worker: a drain, then the sleepers (0 = none)."""
    server.client.flushall()
    folder = Path(tempfile.mkdtemp(prefix="opsq-bench-pool-"))
    marks = folder / "marks"
    environment = {**who.environment(server.url, None), "OPSQ_STATE_DIR": str(folder), "BENCH_MARKS": str(marks)}
    command = [str(who.python.with_name("opsq")), "-A", "bench_tasks", "worker", "-l", "warning", *words]
    process = start(command, environment, str(folder))
    try:
        wait_for(lambda: server.client.zcard("opsq:consumers:{celery}") == 1, "no worker", process)
        server.client.lpush(LIST, call(f"{prefix}mark", "ready", 0.0))
        written(marks, ["ready"])
        row: Row = _drained(who, server, process.pid, [call(f"{prefix}noop", 1, "x" * 100) for _ in range(count)])
        if sleepers:
            names = [f"sleeper-{number}" for number in range(sleepers)]
            server.client.lpush(LIST, *[call(f"{prefix}mark", name, SLEEP_S) for name in names])
            found = written(marks, names)
            began = sorted(found[name] for name in names)
            row["all_asleep_ms"] = (began[-1] - began[0]) * 1e3
            row["at_once"] = sum(moment < began[0] + SLEEP_S for moment in began)
            row["pss_mb"] = sum(map(pss_mb, processes.tree(process.pid)))
        return row
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _drained(who: Contender, server: Server, pid: int, raws: list[bytes]) -> Row:
    for first in range(0, len(raws), 1000):
        server.client.lpush(PREPARED, *raws[first : first + 1000])
    stores, pids = who.stores(server), processes.tree(pid)
    used, begin = processes.usage(pids), time.perf_counter()
    server.client.rename(PREPARED, LIST)
    while server.client.llen(LIST) or any(server.client.hlen(store) for store in stores):
        time.sleep(LOOK_S)
    seconds = time.perf_counter() - begin
    spent = processes.usage(pids).since(used).cpu_s
    return {"per_s": len(raws) / seconds, "worker_us": spent / len(raws) * 1e6}


@click.command()
@click.option("--count", default=50_000, show_default=True, help="Tasks that do nothing.")
@click.option("--sleepers", default=1_000, show_default=True)
@click.option("--repeat", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(count: int, sleepers: int, repeat: int, as_json: bool) -> None:
    """The pools."""
    [who, *_] = contenders(None)
    with servers.running("plain") as server:
        report = Report("pools", f"medians of {repeat} runs", server.version, as_json)
        for name, (words, prefix) in POOLS.items():
            if name in ("gevent", "eventlet") and importlib.util.find_spec(name) is None:
                report.notes.append(f"{name} was not measured: it is not installed")
                continue
            runs = [measure(who, server, words, prefix, count, 0 if name in ALONE else sleepers) for _ in range(repeat)]
            found = {key: median([run[key] for run in runs]) for key in runs[0]}
            report.add(
                pool=name,
                per_s=round(found["per_s"]),
                worker_us=round(found["worker_us"], 1),
                **{
                    key: "" if key not in found else round(found[key]) for key in ("at_once", "all_asleep_ms", "pss_mb")
                },
            )
    report.print()


if __name__ == "__main__":
    main()
