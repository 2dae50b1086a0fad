"""Long and short tasks mixed: does a short one ever wait while a child is idle?

    python -m benchmarks.fairness [--children 4] [--long 10] [--seconds 40] [--json]

Short tasks are sent all the time, now and then a long one, never more of those at once than there are children. From
the tasks' own times follows when fewer tasks ran than there are children; a short task that waited in such a moment has
waited for nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import click

from benchmarks import servers
from benchmarks.contenders import contenders
from benchmarks.messages import LIST, call
from benchmarks.promptness import worker, written
from benchmarks.report import Report, percentile
from benchmarks.servers import Server

SHORT_S = 0.001


@dataclass(frozen=True)
class Run:
    """A task: when it was sent, when it began, when it ended (Unix seconds)."""

    sent: float
    begin: float
    end: float


def load(server: Server, children: int, long_s: float, seconds: float, rate: float) -> dict[str, tuple[float, float]]:
    """Send tasks for so long; name -> when it was sent, how long it takes."""
    sent: dict[str, tuple[float, float]] = {}
    dice, begin = random.Random(7), time.time()
    next_long = begin
    while (now := time.time()) < begin + seconds:
        count = 1 if dice.random() < 0.5 else dice.randint(2, 20)
        batch = {f"short-{len(sent) + each}": SHORT_S for each in range(count)}
        if now >= next_long:  # so that children - 1 long ones run at a time, with gaps
            batch[f"long-{len(sent)}"] = long_s
            next_long = now + long_s / max(children - 1, 1) * dice.uniform(0.9, 1.3)
        names = list(batch)
        dice.shuffle(names)
        for name in names:
            sent[name] = time.time(), batch[name]
        server.client.lpush(LIST, *[call("mark", name, batch[name]) for name in names])
        time.sleep(count / rate)
    return sent


def idle_times(runs: list[Run], children: int) -> list[tuple[float, float]]:
    """When fewer tasks ran than there are children."""
    changes = sorted([(run.begin, 1) for run in runs] + [(run.end, -1) for run in runs])
    found, running, since = [], 0, changes[0][0]
    for moment, step in changes:
        before, running = running, running + step
        if before < children <= running:
            found.append((since, moment))
        elif running < children <= before:
            since = moment
    if running < children:
        found.append((since, changes[-1][0]))
    return found


def waits(runs: list[Run], idle: list[tuple[float, float]]) -> Iterator[float]:
    """For each task: seconds that it waited while a child was idle."""
    for run in runs:
        yield sum(max(min(run.begin, to) - max(run.sent, since), 0.0) for since, to in idle if to > run.sent)


@click.command()
@click.option("--children", default=4, show_default=True)
@click.option("--long", "long_s", default=10.0, show_default=True, help="How long a long task takes (seconds).")
@click.option("--seconds", default=40.0, show_default=True)
@click.option("--rate", default=200.0, show_default=True, help="Short tasks a second.")
@click.option("--json", "as_json", is_flag=True)
def main(children: int, long_s: float, seconds: float, rate: float, as_json: bool) -> None:
    """How long short tasks wait while a child is idle."""
    [who, *_] = contenders(None)
    with servers.running("plain") as server:
        settings = f"{children} children, tasks of {long_s:g} s and {SHORT_S * 1000:g} ms mixed for {seconds:g} s"
        report = Report("fairness", settings, server.version, as_json)
        with worker(who, server, children) as (_pid, marks):
            sent = load(server, children, long_s, seconds, rate)
            began = written(marks, list(sent))
        runs = {name: Run(moment, began[name], began[name] + takes) for name, (moment, takes) in sent.items()}
        idle = idle_times(list(runs.values()), children)
        span = max(run.end for run in runs.values()) - min(run.begin for run in runs.values())
        short = [run for name, run in runs.items() if name.startswith("short")]
        found = sorted(waits(short, idle))
        report.add(
            short_tasks=len(short),
            long_tasks=len(runs) - len(short),
            a_child_idle_percent=round(sum(to - since for since, to in idle) / span * 100),
            p50_ms=round(percentile(found, 50) * 1e3, 2),
            p99_ms=round(percentile(found, 99) * 1e3, 2),
            worst_ms=round(found[-1] * 1e3, 2),
        )
    report.notes.append("ms: how long a short task waited in moments in which fewer tasks ran than there are children")
    report.print()


if __name__ == "__main__":
    main()
