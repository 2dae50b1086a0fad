"""Many idle workers on one Redis: what they cost it, while some tasks a second come by.

    python -m benchmarks.crowd [--workers 300] [--rate 10] [--seconds 30] [--json]

Each worker is what the command starts, with one child; all consume the same queue.
"""

from __future__ import annotations

import shutil
import tempfile
import time

import click

from benchmarks import servers
from benchmarks.contenders import contenders, end, start, wait_for
from benchmarks.footprint import pss_mb
from benchmarks.messages import LIST, call
from benchmarks.report import Report
from benchmarks.servers import Server

#: How many start at a time: starting is not what is measured.
AT_ONCE = 10


def steady(server: Server, rate: float, seconds: float) -> tuple[float, int]:
    """CPU of Redis in percent of one core, and commands a second, at so many tasks a second."""
    begin, sent = time.perf_counter(), 0
    cpu_s, calls = server.cpu_s(), sum(server.calls().values())
    while (elapsed := time.perf_counter() - begin) < seconds:
        if sent < elapsed * rate:
            server.client.lpush(LIST, call("noop", sent, ""))
            sent += 1
        else:
            time.sleep(0.002)
    return (server.cpu_s() - cpu_s) / seconds * 100, round((sum(server.calls().values()) - calls) / seconds)


@click.command()
@click.option("--workers", "count", default=300, show_default=True)
@click.option("--rate", default=10.0, show_default=True, help="Tasks a second.")
@click.option("--seconds", default=30.0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(count: int, rate: float, seconds: float, as_json: bool) -> None:
    """What a crowd of idle workers costs their Redis."""
    [who, *_] = contenders(None)
    with servers.running("plain") as server:
        settings = f"{count} workers with one child, {rate:g} tasks a second for {seconds:g} s"
        report = Report("crowd", settings, server.version, as_json)
        folder = tempfile.mkdtemp(prefix="opsq-bench-crowd-")
        environment = {**who.environment(server.url, None), "OPSQ_STATE_DIR": folder}
        started = []
        try:
            for number in range(count):
                command = [*who.command(server, None, 1), "-n", f"w{number}"]
                started.append(start(command, environment, folder))
                if number % AT_ONCE == AT_ONCE - 1:
                    wanted = number + 1
                    wait_for(
                        lambda wanted=wanted: server.client.zcard("opsq:consumers:{celery}") >= wanted,
                        "a worker does not start",
                    )
            time.sleep(5.0)
            idle_percent, idle_calls = steady(server, 0.0, seconds)
            busy_percent, busy_calls = steady(server, rate, seconds)
            report.add(what="nothing to do", redis_cpu_percent=round(idle_percent, 2), commands_per_s=idle_calls)
            report.add(what=f"{rate:g} tasks/s", redis_cpu_percent=round(busy_percent, 2), commands_per_s=busy_calls)
            report.notes.append(f"a worker's parent holds {pss_mb(started[-1].pid):.1f} MB (PSS)")
        finally:
            for process in started:
                process.terminate()
            for process in started:
                end(process)
            shutil.rmtree(folder, ignore_errors=True)
    report.print()


if __name__ == "__main__":
    main()
