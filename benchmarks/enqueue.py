"""How fast tasks are sent: one by one, many at once, and beside the bare command of Redis that each of them needs.

    python -m benchmarks.enqueue [--server plain|private] [--celery PYTHON] [--json]

One client, a process of its own, no worker. The bare LPUSH is redis-py's `client.lpush(queue, message)` with the bytes
of a message that `delay()` wrote, and so the limit of a library that speaks through it; opsq's own connection is
shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks import servers
from benchmarks.contenders import Contender, contenders
from benchmarks.messages import LIST
from benchmarks.report import Report, median
from benchmarks.roundtrip import client
from benchmarks.servers import Server

#: What each client does; the first one is the limit of those that send one by one.
OURS = ("bare LPUSH", "delay", "group", "send_many")
CELERYS = ("delay", "group")


def senders(celery: Path | None) -> Iterator[tuple[Contender, str]]:
    """Who sends, and how."""
    for who in contenders(celery):
        if who.library == "opsq":
            yield from ((who, way) for way in OURS)
        elif who.name == "Celery prefork":
            yield from ((who, way) for way in CELERYS)


def measure(who: Contender, server: Server, way: str, count: int, payload: int) -> dict[str, float]:
    """One run: calls a second, and microseconds of CPU a call, of the client and of Redis."""
    server.client.flushall()
    redis_cpu = server.cpu_s()
    sent = client(who, server, way.replace(" ", "_"), count, payload)
    redis_cpu = server.cpu_s() - redis_cpu
    there = int(server.client.llen(LIST))  # type: ignore[arg-type]
    if there < count:
        raise SystemExit(f"{who.name}, {way}: of {count} messages {there} are there")
    return {
        "per_s": count / sent["seconds"],
        "client_us": sent["cpu_s"] / count * 1e6,
        "redis_us": redis_cpu / count * 1e6,
    }


@click.command()
@click.option("--server", "kind", type=click.Choice(list(servers.KINDS)), default="plain", show_default=True)
@click.option("--payload", "payloads", type=int, multiple=True, default=(100, 1000, 10_000), help="Bytes.")
@click.option("--count", default=20_000, show_default=True, help="Calls; a fifth of it for Celery.")
@click.option("--celery", type=click.Path(path_type=Path), help="The Python of an environment with Celery.")
@click.option("--repeat", default=5, show_default=True, help="Runs of each, in turn; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(kind: str, payloads: tuple[int, ...], count: int, celery: Path | None, repeat: int, as_json: bool) -> None:
    """Sending alone."""
    with servers.running(kind) as server:
        settings = f"one client, no worker, no results; medians of {repeat} runs; server: {servers.KINDS[kind]}"
        report = Report("enqueue", settings, server.version, as_json)
        for payload in payloads:
            _measure_all(report, server, list(senders(celery)), count, payload, repeat)
    report.notes.append("us: microseconds of CPU a call; of bare: calls a second as a share of the bare LPUSH's")
    report.print()


def _measure_all(
    report: Report, server: Server, whos: list[tuple[Contender, str]], count: int, payload: int, repeat: int
) -> None:
    runs: dict[tuple[str, str], list[dict[str, float]]] = {(who.name, way): [] for who, way in whos}
    for _ in range(repeat):
        for who, way in whos:
            some = count if who.library == "opsq" else count // 5
            runs[who.name, way].append(measure(who, server, way, some, payload))
    bare = median([run["per_s"] for run in runs["opsq", OURS[0]]])
    for (name, way), found in runs.items():
        speeds = [run["per_s"] for run in found]
        report.add(
            payload_kB=payload / 1000,
            who="redis-py" if way == OURS[0] else name.partition(" ")[0],
            how=way,
            per_s=round(median(speeds)),
            from_to=f"{min(speeds):,.0f}-{max(speeds):,.0f}",
            client_us=round(median([run["client_us"] for run in found]), 1),
            redis_us=round(median([run["redis_us"] for run in found]), 1),
            of_bare=round(median(speeds) / bare, 2),
        )


if __name__ == "__main__":
    main()
