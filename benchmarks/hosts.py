"""`opsq run host-batch true`: wall time with one real agent and with many simulated ones, and where it goes.

python -m benchmarks.hosts [--hosts 1,100,500] [--repeat 5] [--json]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks import servers
from benchmarks.report import Report, median
from benchmarks.servers import Server

OPSQ = str(Path(sys.executable).with_name("opsq"))


@contextmanager
def simulated(server: Server, count: int, key: Path) -> Iterator[subprocess.Popen[str]]:
    """So many simulated agents."""
    line = [sys.executable, "-m", "benchmarks.host_simulator", server.url, str(count), str(key)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def real(environment: Mapping[str, str]) -> Iterator[None]:
    """The agent of this host."""
    agent = subprocess.Popen([OPSQ, "agent", "-l", "info"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert agent.stderr is not None
        while " ready." not in (line := agent.stderr.readline()):
            assert line, "the agent does not start"
        yield
    finally:
        agent.terminate()
        agent.communicate()


def once(environment: Mapping[str, str], simulator: subprocess.Popen[str] | None) -> dict[str, float]:
    """One run: seconds until the first order was there, until the last answer was out, until the end; CPU."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [OPSQ, "run", "host-batch", "true"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _pid, status, used = os.wait4(process.pid, 0)
    end = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"opsq run host-batch ended with {process.returncode}"
    told: dict[str, Any] = {}
    if simulator is not None:
        assert simulator.stdout is not None
        told = json.loads(simulator.stdout.readline())
    return {
        "wall": end - begin,
        "cpu": used.ru_utime + used.ru_stime,
        "order": told.get("first", begin) - begin,
        "answers": told.get("last", begin) - told.get("first", begin),
        "rest": end - told.get("last", end),
    }


@click.command()
@click.option("--hosts", default="1,100,500", show_default=True, help="How many simulated agents.")
@click.option("--repeat", default=5, show_default=True, help="Runs of each after a warm-up; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(hosts: str, repeat: int, as_json: bool) -> None:
    """What a host batch costs."""
    with servers.running("plain") as server, tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "OPSQ_BROKER_URL": server.url, "OPSQ_STATE_DIR": folder}
        report = Report("hosts", f"opsq run host-batch true, medians of {repeat}, ms", server.version, as_json)
        with real(environment):
            _measure(report, server, "1, a real agent", environment, None, repeat)
        server.client.flushall()
        for count in map(int, hosts.split(",")):
            key = Path(folder) / "keys" / "operator.pub"
            (Path(folder) / "keys" / "known_hosts.json").unlink(missing_ok=True)
            with simulated(server, count, key) as simulator:
                _measure(report, server, f"{count} simulated", environment, simulator, repeat)
            server.client.flushall()
    report.print()


def _measure(
    report: Report,
    server: Server,
    name: str,
    environment: Mapping[str, str],
    simulator: subprocess.Popen[str] | None,
    repeat: int,
) -> None:
    once(environment, simulator)
    used = server.cpu_s()
    runs = [once(environment, simulator) for _ in range(repeat)]
    used = server.cpu_s() - used

    parts = {
        "until_first_order_ms": "order",
        "first_order_to_last_answer_ms": "answers",
        "last_answer_to_exit_ms": "rest",
    }
    shown = {"wall_ms": "wall", **(parts if simulator else {}), "caller_cpu_ms": "cpu"}
    report.add(
        hosts=name,
        **{name: round(median([run[part] for run in runs]) * 1e3, 1) for name, part in shown.items()},
        redis_cpu_ms=round(used / repeat * 1e3, 1),
    )


if __name__ == "__main__":
    main()
