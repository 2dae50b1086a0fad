"""Does size matter: the speed of a short and of a very long queue, and the memory of a worker over millions of tasks.

    python -m benchmarks.size [--short 1000] [--long 1000000] [--total 2000000] [--json]

The same 20,000 tasks are timed: alone in the queue (twenty times `--short`), and as the first of a long one.
"""

from __future__ import annotations

import time

import click

from benchmarks import processes, servers
from benchmarks.contenders import Contender, at_work, contenders
from benchmarks.footprint import pss_mb
from benchmarks.messages import LIST, PREPARED, messages
from benchmarks.report import Report, median
from benchmarks.servers import Server

TIMED = 20_000
LOOK_S = 0.002


def fill(server: Server, count: int) -> None:
    """So many messages under another name."""
    raws = messages(min(count, 10_000), 10)
    for first in range(0, count, 1000):
        at = first % len(raws)
        server.client.lpush(PREPARED, *raws[at : at + min(1000, count - first)])


def first_ones(server: Server, count: int) -> float:
    """Tasks a second until so many of a queue have been taken."""
    whole, begin = int(server.client.llen(PREPARED)), time.perf_counter()
    server.client.rename(PREPARED, LIST)
    while whole - int(server.client.llen(LIST)) < count:
        time.sleep(LOOK_S)
    return (whole - int(server.client.llen(LIST))) / (time.perf_counter() - begin)


def speed(who: Contender, server: Server, length: int) -> float:
    """Tasks a second at the head of a queue of such a length."""
    speeds = []
    for _ in range(max(1, min(TIMED // length, 20))):
        server.client.flushall()
        fill(server, length)
        with at_work(who, server):
            speeds.append(first_ones(server, min(TIMED, length)))
    return median(speeds)


def memory(who: Contender, server: Server, total: int, part: int) -> list[float]:
    """MB (PSS) of a worker's processes after each part of so many tasks."""
    server.client.flushall()
    found = []
    with at_work(who, server) as pid:
        for _ in range(total // part):
            fill(server, part)
            server.client.rename(PREPARED, LIST)
            while server.client.llen(LIST):
                time.sleep(0.05)
            found.append(sum(map(pss_mb, processes.tree(pid))))
    return found


@click.command()
@click.option("--short", default=1_000, show_default=True)
@click.option("--long", "long_", default=1_000_000, show_default=True)
@click.option("--total", default=2_000_000, show_default=True, help="Tasks while memory is watched.")
@click.option("--json", "as_json", is_flag=True)
def main(short: int, long_: int, total: int, as_json: bool) -> None:
    """Short and long queues, few and many tasks."""
    [who, *_] = contenders(None)
    with servers.running("plain") as server:
        report = Report("size", "one worker process, tasks of 10 bytes", server.version, as_json)
        for length in (short, TIMED, long_):
            report.add(what=f"queue of {length:,}", per_s=round(speed(who, server, length)))
        parts = memory(who, server, total, total // 8)
        report.add(what=f"memory after {total // 8:,} tasks", pss_mb=round(parts[0], 1))
        report.add(what=f"memory after {total:,} tasks", pss_mb=round(parts[-1], 1))
    report.print()


if __name__ == "__main__":
    main()
