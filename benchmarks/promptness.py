"""How promptly a worker keeps its promises of 100 ms: what is due, what waits behind a long task, a stop.

    python -m benchmarks.promptness [--server plain|private] [--json]

- due: so many tasks with an ETA, spread over some seconds; from the due time to the begin of the run.
- behind a long task: a batch whose first task takes half a second; from the begin of that one to the begins of those
  behind it, which another child runs after they were given back.
- woken: a task for an idle worker; from the publish to the begin of the run.
- stop: SIGTERM to an idle worker, to its end.

Times are those that the tasks themselves have written down; everything runs on this machine, with one clock.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks import servers
from benchmarks.contenders import Contender, contenders, end, start, wait_for
from benchmarks.messages import LIST, call
from benchmarks.report import Report, percentile
from benchmarks.servers import Server

PERCENTS = (50, 90, 99, 100)


@contextmanager
def worker(who: Contender, server: Server, children: int) -> Iterator[tuple[int, Path]]:
    """A worker that is ready: its process id, and the file in which its tasks write."""
    folder = Path(tempfile.mkdtemp(prefix="opsq-bench-worker-"))
    marks = folder / "marks"
    environment = {**who.environment(server.url, None), "OPSQ_STATE_DIR": str(folder), "BENCH_MARKS": str(marks)}
    process = start(who.command(server, None, children), environment, str(folder))
    try:
        wait_for(lambda: server.client.zcard("opsq:consumers:{celery}") == children, "no worker", process)
        send(server, "mark", "ready", 0.0)
        written(marks, ["ready"])
        yield process.pid, marks
        time.sleep(0.1)  # idle
        begin = time.perf_counter()
        process.terminate()
        process.wait()
        _stops.append(time.perf_counter() - begin)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


_stops: list[float] = []


def send(server: Server, task: str, *args: object, due: float | None = None) -> None:
    """A message; with a due time straight into the delayed set, as `apply_async` puts it there."""
    eta = None if due is None else datetime.fromtimestamp(due, UTC).isoformat()
    raw = call(task, *args, eta=eta)
    if due is None:
        server.client.lpush(LIST, raw)
    else:
        server.client.zadd("opsq:delayed:{celery}", {b"|" + raw: int(due * 1000)})


def written(marks: Path, names: list[str]) -> dict[str, float]:
    """When each of these began to run, once all have."""
    found: dict[str, float] = {}

    def all_there() -> bool:
        lines = marks.read_text().splitlines() if marks.exists() else []
        found.update((line.split()[0], float(line.split()[1])) for line in lines if len(line.split()) == 2)
        return all(name in found for name in names)

    wait_for(all_there, "the tasks do not run")
    return found


def due(server: Server, marks: Path, count: int, seconds: float) -> list[float]:
    """Delays of tasks with an ETA."""
    first = time.time() + 1.0
    times = {f"due-{number}": first + number * seconds / count for number in range(count)}
    for name, moment in times.items():
        send(server, "mark", name, 0.0, due=moment)
    time.sleep(seconds + 1.0)
    began = written(marks, list(times))
    # An ETA is kept in whole milliseconds.
    return [began[name] - int(moment * 1000) / 1000 for name, moment in times.items()]


def behind(server: Server, marks: Path, rounds: int, waiting: int) -> list[float]:
    """From the begin of a long task to the begin of those that came with it."""
    delays = []
    for number in range(rounds):
        _warm_up(server)
        names = [f"behind-{number}-{each}" for each in range(waiting)]
        calls = [("mark", f"long-{number}", 0.5), *[("mark", name, 0.0) for name in names]]
        server.client.lpush(LIST, *[call(*each) for each in calls])
        began = written(marks, [f"long-{number}", *names])
        delays += [began[name] - began[f"long-{number}"] for name in names]
    return delays


def _warm_up(server: Server) -> None:
    """After short tasks a child takes many at once."""
    server.client.lpush(LIST, *[call("noop", number, "") for number in range(2000)])
    consumers = server.client.zrange("opsq:consumers:{celery}", 0, -1)
    stores = [f"opsq:inflight:{{celery}}:{name.decode()}" for name in consumers]
    wait_for(
        lambda: not server.client.llen(LIST) and not any(server.client.hlen(store) for store in stores), "it is stuck"
    )


def woken(server: Server, marks: Path, count: int) -> list[float]:
    """From the publish to the begin of the run, one after the other."""
    delays = []
    for number in range(count):
        time.sleep(0.01)
        begin = time.time()
        send(server, "mark", f"woken-{number}", 0.0)
        delays.append(written(marks, [f"woken-{number}"])[f"woken-{number}"] - begin)
    return delays


@click.command()
@click.option("--server", "kind", type=click.Choice(list(servers.KINDS)), default="plain", show_default=True)
@click.option("--children", default=2, show_default=True, help="Children of the worker.")
@click.option("--count", default=400, show_default=True, help="Tasks with an ETA, and tasks for an idle worker.")
@click.option("--rounds", default=20, show_default=True, help="Long tasks with ten others behind them; stops.")
@click.option("--json", "as_json", is_flag=True)
def main(kind: str, children: int, count: int, rounds: int, as_json: bool) -> None:
    """The promises of 100 ms."""
    who = contenders(None)[0]
    with servers.running(kind) as server:
        report = Report("promptness", f"{children} children; server: {servers.KINDS[kind]}", server.version, as_json)
        with worker(who, server, children) as (_pid, marks):
            found = {
                "due": due(server, marks, count, 4.0),
                "behind a long task": behind(server, marks, rounds, 10),
                "woken": woken(server, marks, count),
            }
        for _ in range(rounds - 1):
            with worker(who, server, children):
                pass
        found["stop"] = _stops
        for what, delays in found.items():
            row = {f"p{percent}_ms": round(percentile(delays, percent) * 1000, 1) for percent in PERCENTS}
            report.add(what=what, times=len(delays), **row, over_100_ms=sum(delay > 0.1 for delay in delays))
    report.print()


if __name__ == "__main__":
    main()
