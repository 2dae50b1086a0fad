"""What an idle worker with many children costs, and how soon its children end when it is told to stop.

    python -m benchmarks.idle [--seconds 60] [--stops 200] [--json]

The commands that Redis sees are counted by its own statistics and listed by MONITOR. A stop is measured from SIGTERM to
the end of the last child (pidfd of each), on a fresh worker each time.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import Counter
from typing import Any

import click

from benchmarks import processes, servers
from benchmarks.contenders import Contender, at_work, contenders, wait_for
from benchmarks.report import Report, difference, median
from benchmarks.servers import Server

#: How long a worker may take to come to rest (seconds).
SETTLE_S = 2.0


def children_of(pid: int, count: int) -> list[int]:
    """The worker's children, when all are there: they are those of its template."""
    found: list[int] = []

    def all_there() -> bool:
        found[:] = processes.tree(pid)[2:]
        return len(found) == count and all(processes.sleeps(child) for child in found)

    wait_for(all_there, "the children do not come up")
    return found


class Listener:
    """Counts what clients send, by MONITOR, until the connection is closed."""

    def __init__(self, server: Server) -> None:
        self.seen: Counter[str] = Counter()
        self._connection = server.client.connection_pool.get_connection()
        self._connection.send_command("MONITOR")
        self._connection.read_response()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                line: Any = self._connection.read_response(timeout=3600)
            except Exception:  # it was closed
                return
            where, _, command = line.decode(errors="replace").partition("] ")
            if not where.endswith(" lua"):
                self.seen[" ".join(part.strip('"').upper() for part in command.split()[:2])] += 1

    def close(self) -> Counter[str]:
        """What was seen, by command and first argument."""
        self._connection.disconnect()
        self._thread.join(5)
        return self.seen


def rest(report: Report, who: Contender, server: Server, children: int, seconds: float) -> None:
    """A worker that has nothing to do, for so long."""
    with at_work(who, server, children=children) as pid:
        pids = [pid, processes.tree(pid)[1], *children_of(pid, children)]
        time.sleep(SETTLE_S)
        listener = Listener(server)
        before, redis_cpu = server.calls(), server.cpu_s()
        used = {each: processes.usage([each]) for each in pids}
        time.sleep(seconds)
        grown = {each: processes.usage([each]).since(used[each]) for each in pids}
        calls, redis_cpu = difference(before, server.calls()), server.cpu_s() - redis_cpu
        commands = listener.close()
    for what, group in (("parent", pids[:1]), ("template", pids[1:2]), (f"{children} children", pids[2:])):
        cpu_ms = sum(grown[each].cpu_s for each in group) * 1e3
        switches = sum(grown[each].switches for each in group)
        report.add(what=what, cpu_ms=round(cpu_ms, 1), context_switches=switches)
    report.add(what="Redis", cpu_ms=round(redis_cpu * 1e3, 1))
    report.notes.append(f"Commands from clients in {seconds:g} s (MONITOR): {_listed(commands)}")
    report.notes.append(f"Calls in {seconds:g} s, inside of scripts too (INFO commandstats): {_listed(calls)}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def stop(who: Contender, server: Server, children: int) -> tuple[float, float]:
    """Seconds from SIGTERM to the end of the last child, and to that of the worker."""
    server.client.flushall()
    with at_work(who, server, children=children) as pid:
        ends = [os.pidfd_open(child) for child in children_of(pid, children)]
        worker = os.pidfd_open(pid)
        begin = time.perf_counter()
        os.kill(pid, signal.SIGTERM)
        try:
            last = max(_end(descriptor, begin) for descriptor in ends)
            return last, _end(worker, begin)
        finally:
            for descriptor in (*ends, worker):
                os.close(descriptor)


def _end(descriptor: int, begin: float) -> float:
    """Seconds until a process has ended."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    if not poller.poll(30_000):
        raise SystemExit("a process does not end")
    return time.perf_counter() - begin


def stops(report: Report, who: Contender, server: Server, children: int, count: int) -> None:
    """Start and stop so often."""
    found = [stop(who, server, children) for _ in range(count)]
    for what, times in (("last child", [last for last, _ in found]), ("worker", [whole for _, whole in found])):
        late = sum(seconds > 0.1 for seconds in times)
        report.add(
            what=f"stop: {what}",
            median_ms=round(median(times) * 1e3, 1),
            max_ms=round(max(times) * 1e3, 1),
            over_100_ms=f"{late} of {count}",
        )


@click.command()
@click.option("--children", default=16, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="How long it is watched at rest.")
@click.option("--stops", "stop_count", default=200, show_default=True, help="How often it is started and stopped.")
@click.option("--json", "as_json", is_flag=True)
def main(children: int, seconds: float, stop_count: int, as_json: bool) -> None:
    """An idle worker: its cost at rest, and its stop."""
    [who, *_] = contenders(None)
    with servers.running("plain") as server:
        settings = f"a worker with {children} children and nothing to do, watched for {seconds:g} s"
        report = Report("idle", settings, server.version, as_json)
        if seconds:
            rest(report, who, server, children, seconds)
        if stop_count:
            stops(report, who, server, children, stop_count)
    report.print()


if __name__ == "__main__":
    main()
