"""What a worker weighs: from its start to its first task, and what its processes cost and hold at rest.

    python -m benchmarks.footprint [--celery PYTHON] [--children 4] [--seconds 20] [--json]

Start: from the exec of the command to the begin of a task that already waits, as the task itself wrote it down. Memory
is the proportional share (PSS) of all its processes; CPU that of all its threads.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click

from benchmarks import processes, servers
from benchmarks.contenders import Contender, contenders, end, start, wait_for
from benchmarks.messages import LIST, call
from benchmarks.report import Report, median
from benchmarks.servers import Server

#: How long a worker may take to come to rest (seconds).
SETTLE_S = 2.0


def first_task_s(who: Contender, server: Server, children: int) -> float:
    """Seconds from the command to the begin of a task that waits already."""
    server.client.flushall()
    folder = Path(tempfile.mkdtemp(prefix="opsq-bench-start-"))
    marks = folder / "marks"
    environment = {**who.environment(server.url, None), "OPSQ_STATE_DIR": str(folder), "BENCH_MARKS": str(marks)}
    server.client.lpush(LIST, call("mark", "first", 0.0))
    begin = time.time()
    process = start(who.command(server, None, children), environment, str(folder))
    try:
        wait_for(lambda: marks.exists() and marks.read_text().endswith("\n"), f"{who.name} does not start", process)
        return float(marks.read_text().split()[1]) - begin
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def rest(who: Contender, server: Server, children: int, seconds: float) -> tuple[float, float]:
    """CPU in percent of one core, and MB (PSS), of a worker that has nothing to do."""
    server.client.flushall()
    folder = tempfile.mkdtemp(prefix="opsq-bench-rest-")
    environment = {**who.environment(server.url, None), "OPSQ_STATE_DIR": folder}
    process = start(who.command(server, None, children), environment, folder)
    try:
        wait_for(lambda: len(processes.tree(process.pid)) > children, f"{who.name} does not start", process)
        time.sleep(SETTLE_S)
        pids = processes.tree(process.pid)
        before = processes.usage(pids)
        time.sleep(seconds)
        used = processes.usage(pids).since(before)
        return used.cpu_s / seconds * 100, sum(map(pss_mb, pids))
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def pss_mb(pid: int) -> float:
    """A process's share of memory in MB: what several hold is divided among them."""
    for line in (processes.PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


@click.command()
@click.option("--celery", type=click.Path(path_type=Path), help="The Python of an environment with Celery.")
@click.option("--children", default=4, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="How long it is watched at rest.")
@click.option("--repeat", default=7, show_default=True, help="Starts of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(celery: Path | None, children: int, seconds: float, repeat: int, as_json: bool) -> None:
    """Start, memory and CPU at rest."""
    whos = [who for who in contenders(celery) if who.library != "bare" and not who.name.endswith("solo")]
    with servers.running("plain") as server:
        settings = f"workers with {children} children; medians of {repeat} starts; at rest for {seconds:g} s"
        report = Report("footprint", settings, server.version, as_json)
        for who in whos:
            first_task_s(who, server, children)  # from now on all of it is compiled, and in the system's memory
            starts = [first_task_s(who, server, children) for _ in range(repeat)]
            cpu_percent, memory_mb = rest(who, server, children, seconds)
            report.add(
                who=who.name,
                start_ms=round(median(starts) * 1e3),
                worst_ms=round(max(starts) * 1e3),
                idle_cpu_percent=round(cpu_percent, 2),
                pss_mb=round(memory_mb, 1),
            )
    report.print()


if __name__ == "__main__":
    main()
