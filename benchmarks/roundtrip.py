"""How long a caller waits for a task that does nothing, and what publishing one costs: opsq and Celery.

    python -m benchmarks.roundtrip [--server plain|private] [--celery PYTHON] [--json]

A worker with one child; the client is a process of its own that calls `delay().get()` one after the other, and after
that `delay()` alone while no worker runs.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import click

from benchmarks import bare_trip, servers
from benchmarks.contenders import PROJECT, Contender, at_work, contenders
from benchmarks.report import Report, Row, median, percentile
from benchmarks.servers import Server

PAYLOAD = 100


def client(who: Contender, server: Server, what: str, count: int, payload: int = PAYLOAD) -> dict[str, Any]:
    """What a client in a process of its own has measured."""
    done = subprocess.run(
        [who.python, PROJECT / "bench_client.py", what, str(count), str(payload)],
        env=who.environment(server.url, server.url),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(who: Contender, server: Server, count: int, publishes: int) -> Row:
    """One run of both."""
    server.client.flushall()
    with at_work(who, server, server.url):
        trips = client(who, server, "round_trips", count)
    server.client.flushall()
    redis_cpu = server.cpu_s()
    sent = client(who, server, "delay", publishes)
    redis_cpu = server.cpu_s() - redis_cpu
    return {
        "p50_ms": percentile(trips["each"], 50) * 1e3,
        "p99_ms": percentile(trips["each"], 99) * 1e3,
        "client_us": trips["cpu_s"] / count * 1e6,
        "delay_per_s": publishes / sent["seconds"],
        "delay_us": sent["cpu_s"] / publishes * 1e6,
        "redis_us": redis_cpu / publishes * 1e6,
    }


def bare_trips(server: Server, count: int, repeat: int) -> Row:
    """What a trip takes in which nothing is done."""
    runs = [bare_trip.trips(server.url, count) for _ in range(repeat)]
    p50, p99 = (median([percentile(run, share) for run in runs]) * 1e3 for share in (50, 99))
    return {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}


@click.command()
@click.option("--server", "kind", type=click.Choice(list(servers.KINDS)), default="plain", show_default=True)
@click.option("--count", default=3000, show_default=True, help="Round trips.")
@click.option("--publishes", default=20_000, show_default=True, help="Calls of delay() alone.")
@click.option("--celery", type=click.Path(path_type=Path), help="The Python of an environment with Celery.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(kind: str, count: int, publishes: int, celery: Path | None, repeat: int, as_json: bool) -> None:
    """Round trips and publishing."""
    with servers.running(kind) as server:
        settings = f"{count:,} round trips, {publishes:,} calls of delay() alone; medians of {repeat} runs; "
        report = Report("roundtrip", settings + f"server: {servers.KINDS[kind]}", server.version, as_json)
        bare = bare_trips(server, count, repeat)
        for who in contenders(celery):
            if who.library != "bare":
                runs = [measure(who, server, count, publishes) for _ in range(repeat)]
                medians = {name: round(median([run[name] for run in runs]), 3) for name in runs[0]}
                report.add(who=who.name, **medians)
        report.add(who="bare trip", **bare)
    report.notes.append(
        "client us: CPU of the caller a round trip; delay us, redis us: CPU of the caller and of Redis a delay() alone"
    )
    report.notes.append("bare trip: a message there and back between two processes that do nothing with it")
    report.print()


if __name__ == "__main__":
    main()
