"""A million tasks with a far ETA, sent as Celery sends them, and what a worker needs of memory for them.

python tests/chaos/far_etas.py [--count 1000000] [--write docs/chaos.md]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import psutil
import redis

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import redis_server
from support.lab import HEAD, message, new_id

AT_ONCE = 5_000


def fill(client: redis.Redis, queue: str, count: int) -> None:
    """Messages that are due tomorrow, into a queue's list."""
    eta = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    raw = message("add", "ID", (1, 2), eta=eta)
    for first in range(0, count, AT_ONCE):
        client.lpush(
            queue, *[raw.replace(b'"ID"', json.dumps(new_id()).encode()) for _ in range(min(AT_ONCE, count - first))]
        )


def memory_of(worker: psutil.Process) -> int:
    """What a worker uses, with all its processes; shared pages once (PSS, bytes)."""
    return sum(process.memory_full_info().pss for process in (worker, *worker.children(recursive=True)))


def _wait(condition: Any, what: str, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.05)


@click.command()
@click.option("--count", default=1_000_000, show_default=True, help="How many.")
@click.option("--write", type=click.Path(path_type=Path), help="Add the figures to a Markdown file.")
def main(count: int, write: Path | None) -> None:
    """Fill, and measure."""
    from chaos.nothing_lost import machine

    with tempfile.TemporaryDirectory(prefix="opsq-etas-") as name, redis_server.running() as server:
        folder = Path(name)
        (folder / "proj.py").write_text(HEAD)
        environment = {**os.environ, "OPSQ_BROKER_URL": server.url(), "MARKS": str(folder / "marks")}
        environment |= {"OPSQ_STATE_DIR": str(folder / "state"), "PYTHONPATH": os.pathsep.join([name, *sys.path])}
        argv = [sys.executable, "-m", "opsq", "-A", "proj", "worker", "-c", "2", "-l", "info"]
        with (folder / "log").open("wb") as log:
            worker = subprocess.Popen(argv, env=environment, cwd=name, stderr=log, stdout=log)
        try:
            _wait(lambda: " ready." in (folder / "log").read_text(), "the worker is ready", 60)
            client = server.client()
            before = memory_of(psutil.Process(worker.pid))
            begin = time.monotonic()
            fill(client, "celery", count)
            _wait(lambda: client.zcard("opsq:delayed:{celery}") == count, "all are put away", 60 + count / 1000)
            took = time.monotonic() - begin
            after = memory_of(psutil.Process(worker.pid))
        finally:
            worker.terminate()
            worker.wait(60)
    told = (
        f"{count:,} tasks with an ETA of tomorrow, sent as Celery sends them, put away within {took:.0f} s: the worker "
        f"(two children) used {before / 1e6:.0f} MB before and {after / 1e6:.0f} MB after. {machine()}"
    )
    click.echo(told)
    if write is not None:
        with write.open("a") as file:
            file.write(f"\n`python tests/chaos/far_etas.py --count {count}`\n\n{told}\n")
    if after - before > 20_000_000:
        sys.exit("BROKEN: memory is not flat")


if __name__ == "__main__":
    main()
