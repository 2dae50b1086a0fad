"""What the command line costs: CPU of `opsq --help` beside a Python that does nothing; time of `opsq status`.

python -m benchmarks.cli [--repeat 40] [--json]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks import servers
from benchmarks.contenders import at_work, contenders
from benchmarks.report import Report, median

OPSQ = str(Path(sys.executable).with_name("opsq"))


def once(command: Sequence[str], environment: Mapping[str, str], codes: Sequence[int]) -> tuple[float, float]:
    """Seconds of time and of CPU of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _pid, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in codes:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime


@click.command()
@click.option("--repeat", default=40, show_default=True, help="Runs of each, in turn; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(repeat: int, as_json: bool) -> None:
    """What the command line costs."""
    [opsq, *_] = contenders(None)
    with servers.running("plain") as server, tempfile.TemporaryDirectory() as folder, at_work(opsq, server):
        environment = {**opsq.environment(server.url, None), "OPSQ_BROKER_URL": server.url, "OPSQ_STATE_DIR": folder}
        commands = {
            "python -c pass": ([sys.executable, "-c", "pass"], [0]),
            "opsq --help": ([OPSQ, "--help"], [0]),
            # 1: no supervisor runs here, a worker in the foreground does
            "opsq status": ([OPSQ, "status"], [0, 1, 3]),
            "opsq queues": ([OPSQ, "queues"], [0]),
        }
        report = Report("cli", f"medians of {repeat} runs of each, with a broker", server.version, as_json)
        runs = [
            {name: once(command, environment, codes) for name, (command, codes) in commands.items()}
            for _ in range(repeat)
        ]
    nothing = median([run["python -c pass"][1] for run in runs])
    for name in commands:
        cpu = median([run[name][1] for run in runs])
        report.add(
            command=name,
            wall_ms=round(median([run[name][0] for run in runs]) * 1e3, 1),
            cpu_ms=round(cpu * 1e3, 1),
            times_nothing=round(cpu / nothing, 2),
        )
    report.print()


if __name__ == "__main__":
    main()
