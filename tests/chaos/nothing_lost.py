"""Two workers, a Redis with an append-only file, and everything that can happen to them, at random instants.

    python tests/chaos/nothing_lost.py [--strikes 60] [--only child,redis_killed] [--results-db 1] [--seed N] [--keep]
        [--defaults] [--limits] [--sentinels] [--appendfsync everysec] [--write docs/chaos.md]

What was sent is written down by the producer, what was done by the tasks. Prints a table; ends with 1 if a promise was
broken, or if fewer than half of the kills landed while a task ran.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))
from chaos import oracle
from chaos.arena import Arena, Setup, Stuck, wait_for
from chaos.strikes import KILLS, OTHERS, UNDER_SENTINELS, failover, possible
from support import redis_server
from support.namespaces import NotPossible, bare_network

from opsq import __version__


@dataclass
class Run:
    """What was done, and what came of it."""

    seed: int
    setup: Setup
    skipped: set[str] = field(default_factory=set)
    strikes: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    hits: int = 0
    seconds: float = 0.0
    verdict: oracle.Verdict = field(default_factory=oracle.Verdict)

    def rows(self) -> list[tuple[str, int]]:
        """All counts."""
        return [
            *sorted(self.strikes.items()),
            *(("kills", self.kills), ("kills while a task ran", self.hits)),
            *self.verdict.counts.items(),
        ]

    def table(self) -> str:
        """All counts, for a terminal."""
        return "\n".join(f"  {name:<28}{count:>7}" for name, count in self.rows())

    def document(self, only: str) -> str:
        """All counts as Markdown, with what they were taken on."""
        how = f"--strikes {sum(self.strikes.values())} --seed {self.seed}" + (f" --only {only}" if only else "")
        how += " --defaults" if self.setup.lease_s is None else ""
        how += " --limits" if self.setup.limits else ""
        how += " --sentinels" if self.setup.sentinels else ""
        how += f" --appendfsync {self.setup.appendfsync}" if self.setup.appendfsync != "always" else ""
        told = "; ".join(self.verdict.broken) or "every promise was kept"
        lines = [f"`python tests/chaos/nothing_lost.py {how}`", "", f"{told.capitalize()}, {self.seconds:.0f} s."]
        if self.skipped:
            lines.append(f"Not possible on this machine: {', '.join(sorted(self.skipped))}.")
        lines += [
            machine(),
            "A master, its replica and three Sentinels."
            if self.setup.sentinels
            else f"The server's file is synced {self.setup.appendfsync}.",
            "",
            "| what | count |",
            "|---|---:|",
        ]
        lines += [f"| {name.strip().replace('_', ' ')} | {count:,} |" for name, count in self.rows()]
        return "\n".join(["", *lines]) + "\n"


def machine() -> str:
    """What a run was made on."""
    version = subprocess.run([redis_server.binary(), "--version"], capture_output=True, text=True, check=True).stdout
    server = next((word for word in version.split() if word.startswith("v=")), version.strip()).removeprefix("v=")
    return f"opsq {__version__}, Redis {server}, Python {platform.python_version()}, {os.cpu_count()} cores."


def strike(folder: Path, names: Sequence[str], seed: int, results_db: int = 1, setup: Setup = Setup()) -> Run:  # noqa: B008
    """Strike in this order at random instants, while tasks are sent; then judge."""
    with ExitStack() as stack:
        network = None
        try:
            if not setup.sentinels:
                network = stack.enter_context(bare_network(folder, ["b"]))
        except NotPossible as error:
            click.echo(f"no cable is laid: {error}", err=True)
        return _strike(Arena(folder, random.Random(seed), results_db, setup, network), names, Run(seed, setup))


def _strike(arena: Arena, names: Sequence[str], run: Run) -> Run:
    chance, begin, kills = arena.chance, time.monotonic(), {**KILLS, "failover": failover}
    try:
        for name in ("a", "b"):
            arena.start_worker(name)
        producer = arena.start_producer()
        wait_for(lambda: len(arena.marks.read().counts["end"]) > 10, "tasks run")
        for name in names:
            if not possible(arena, name):
                run.skipped.add(name)
                continue
            time.sleep(chance.uniform(0.0, 0.3))
            wait_for(arena.busy, "a task runs")
            if name in kills:
                hit = kills[name](arena)
                run.kills += hit is not None
                run.hits += bool(hit)
            else:
                OTHERS[name](arena)
            run.strikes[name] += 1
        (arena.folder / "stop").touch()
        producer.wait()
        run.verdict = oracle.judge(arena)
    except Stuck as error:
        run.verdict.broken.append(str(error))
    finally:
        run.verdict.broken += arena.store.problems()
        arena.close()
    if run.hits * 2 < run.kills:
        run.verdict.broken.append(f"only {run.hits} of {run.kills} kills landed while a task ran")
    run.seconds = time.monotonic() - begin
    return run


@click.command()
@click.option("--strikes", default=60, show_default=True, help="How many.")
@click.option("--only", default="", help="Names of strikes; without it all, kills as often as all others together.")
@click.option("--results-db", default=1, show_default=True, help="The database of the results; the broker's is 0.")
@click.option("--seed", type=int, help="Repeat a run's choices.")
@click.option("--defaults", is_flag=True, help="Workers without any option: a lease of 15 s, and a task of 30 s in C.")
@click.option("--limits", is_flag=True, help="Most tasks are under a rate and a limit of how many run at once.")
@click.option("--sentinels", is_flag=True, help="A master and a replica under Sentinels, who fail over.")
@click.option("--appendfsync", default="always", show_default=True, help="When the server syncs its file.")
@click.option("--write", type=click.Path(path_type=Path), help="Add the table to a Markdown file.")
@click.option("--keep", is_flag=True, help="Keep the folder with all logs and name it.")
def main(
    strikes: int,
    only: str,
    results_db: int,
    seed: int | None,
    defaults: bool,
    limits: bool,
    sentinels: bool,
    appendfsync: str,
    write: Path | None,
    keep: bool,
) -> None:
    """Strike, and see whether anything is lost."""
    seed = random.randrange(10**6) if seed is None else seed
    chance = random.Random(seed)
    chosen = only.split(",") if only else []
    kinds = (UNDER_SENTINELS,) if sentinels else (KILLS, OTHERS)
    names = [chance.choice(chosen or sorted(chance.choice(kinds))) for _ in range(strikes)]
    folder = Path(tempfile.mkdtemp(prefix="opsq-chaos-"))
    usual = Setup(appendfsync=appendfsync)
    setup = Setup(lease_s=None, rude=0.01, hold_s=30.0, appendfsync=appendfsync) if defaults else usual
    setup = replace(setup, limits=limits, sentinels=sentinels)
    run = strike(folder, names, seed, results_db, setup)
    if not keep:
        shutil.rmtree(folder)
    click.echo(f"seed {seed}, {run.seconds:.0f} s, {os.cpu_count()} cores" + (f", {folder}" if keep else ""))
    click.echo(run.table())
    if write is not None:
        with write.open("a") as file:
            file.write(run.document(only))
    if run.verdict.broken:
        sys.exit("BROKEN: " + "; ".join(run.verdict.broken))
    click.echo("every promise was kept")


if __name__ == "__main__":
    main()
