"""Everything that `opsq up` runs is killed with -9, in turn, while tasks are sent and a schedule of one second runs.

    python tests/chaos/up.py [--tasks 5000] [--task late|early] [--rounds 3] [--seed N]

What was sent is written down by the producer, what was done by the tasks; ends with 1 if a promise was broken.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import psutil
import redis

OPSQ = [sys.executable, "-m", "opsq"]
PROGRAMS = ("worker", "beat", "monitor", "agent", "redis")
#: Parts of the worker that are killed besides the programs themselves.
PARTS = ("child", "template")
BACK_S = 60.0

SOURCE = """
import os
import time

from opsq import Celery
from opsq.schedules import schedule

app = Celery("tasks")
app.conf.beat_schedule = {"tick": {"task": "tasks.tick", "schedule": schedule(1.0)}}
MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark(*words):
    os.write(MARKS, (" ".join(map(str, words)) + "\\n").encode())


def work(number):
    mark("begin", number, os.getpid())
    time.sleep(0.004)
    mark("effect", number, os.getpid())


@app.task(acks_late=True, ignore_result=True)
def late(number):
    work(number)


@app.task(ignore_result=True)
def early(number):
    work(number)


@app.task(bind=True, acks_late=True, ignore_result=True)
def tick(self):
    tag = self.request.properties["delivery_tag"]
    mark("tick", int(tag[:8] + tag[9:13], 16), os.getpid())
"""

PRODUCER = """
import sys, time
import tasks

task, count = getattr(tasks, sys.argv[1]), int(sys.argv[2])
patient = {"max_retries": 300, "interval_start": 0, "interval_step": 0.05, "interval_max": 0.1}
with open("sent", "a", buffering=1) as sent:
    for number in range(count):
        task.apply_async((number,), retry_policy=patient)
        sent.write(f"{number}\\n")
        time.sleep(0.003)
"""


class Fleet:
    """What `opsq up` runs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OPSQ_", "CELERY_"))},
            "OPSQ_STATE_DIR": str(folder / "state"),
            "MARKS": str(folder / "marks"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        }
        (folder / "tasks.py").write_text(SOURCE)
        (folder / "producer.py").write_text(PRODUCER)

    def opsq(self, *words: str) -> str:
        """A command; what it prints."""
        done = subprocess.run([*OPSQ, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.stdout if done.returncode in (0, 1) else sys.exit(f"opsq {' '.join(words)}: {done.stderr}")

    def programs(self) -> dict[str, dict[str, Any]]:
        """What `opsq status` says of each."""
        return {each["name"]: each for each in json.loads(self.opsq("status", "--json"))["programs"]}

    def all_run(self) -> bool:
        """Whether each one runs and has said that it is ready."""
        found = self.programs()
        return all(name in found and found[name]["state"] == "RUNNING" and found[name]["ready"] for name in PROGRAMS)

    def marks(self) -> list[list[str]]:
        """What the tasks have written down: words of each whole line."""
        try:
            return [line.split() for line in (self.folder / "marks").read_text().rpartition("\n")[0].splitlines()]
        except FileNotFoundError:
            return []

    def running_now(self) -> set[int]:
        """Processes that have begun a task and not had its effect."""
        busy: dict[int, str] = {}
        for what, _number, pid in self.marks():
            busy[int(pid)] = what
        return {pid for pid, what in busy.items() if what == "begin"}

    @property
    def redis(self) -> redis.Redis:
        """A client of the private Redis."""
        return redis.Redis(unix_socket_path=str(self.folder / "state" / "run" / "redis.sock"))

    def is_done(self) -> bool:
        """Nothing waits and nothing is in flight."""
        try:
            client = self.redis
            held: int = sum(client.hlen(key) for key in client.scan_iter("opsq:inflight:*"))
            return not (client.llen("celery") or held or client.zcard("opsq:delayed:{celery}"))
        except redis.RedisError:
            return False


def wait_for(condition: Callable[[], Any], what: str) -> float:
    """Until the condition holds; how long that took (seconds)."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > BACK_S:
            sys.exit(f"not within {BACK_S:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - begin


def victim(fleet: Fleet, what: str, chance: random.Random) -> int | None:
    """The process to kill, None while it is not there."""
    found = fleet.programs()
    if what in PROGRAMS:
        pid: int | None = found[what]["pid"]
        return pid
    try:
        templates = psutil.Process(found["worker"]["pid"]).children()
        children = [child.pid for template in templates for child in template.children()]
    except (psutil.Error, ValueError, TypeError):
        return None
    if what == "template":
        return templates[0].pid if templates else None
    return chance.choice(children) if children else None


def storm(
    fleet: Fleet, producer: subprocess.Popen[bytes], rounds: int, chance: random.Random
) -> tuple[int, int, float]:
    """Kill in turn while tasks are sent: kills, those that hit a running task, the longest time until all was back."""
    kills = hits = 0
    longest = 0.0
    for _ in range(rounds):
        targets = [*PROGRAMS, *PARTS, "child"]
        chance.shuffle(targets)
        for what in targets:
            time.sleep(chance.uniform(0.1, 0.6))
            pid = victim(fleet, what, chance)
            if pid is None or producer.poll() is not None:
                continue
            busy = fleet.running_now()
            os.kill(pid, signal.SIGKILL)
            kills, hits = kills + 1, hits + bool(busy)
            longest = max(longest, wait_for(fleet.all_run, f"all are back after the {what} was killed"))
    return kills, hits, longest


def verdict(fleet: Fleet, task: str, begin_ms: float) -> list[str]:
    """The promises that were broken."""
    sent = set((fleet.folder / "sent").read_text().split())
    effects = Counter(number for what, number, _pid in fleet.marks() if what == "effect")
    letters = [json.loads(record) for record in fleet.redis.hvals("opsq:dead:{celery}")]
    dead = {json.loads(letter["message"])["headers"]["argsrepr"].strip("(,)") for letter in letters}
    ticks = sorted({int(number) for what, number, _pid in fleet.marks() if what == "tick"})
    gaps = [(b - a) / 1000 for a, b in pairwise(ticks)]
    turns = Counter((tick - ticks[0] + 50) // 1000 for tick in ticks)
    twice = [number for number, count in effects.items() if count > 1]
    click.echo(f"sent {len(sent)}, effects {len(effects)}, more than once {len(twice)}, dead letters {len(dead)}")
    span_s = (ticks[-1] - begin_ms) / 1000
    click.echo(f"ticks {len(ticks)} in {span_s:.1f} s, longest gap {max(gaps):.2f} s")
    broken = []
    if sent - set(effects) - dead:
        broken.append(f"{len(sent - set(effects) - dead)} tasks are lost")
    if task == "late" and dead:
        broken.append(f"{len(dead)} late tasks are dead letters: {letters[0]['reason']}")
    if task == "early" and twice:
        broken.append(f"{len(twice)} tasks had their effect twice")
    if task == "early" and set(effects) & dead:
        click.echo(f"{len(set(effects) & dead)} had their effect and were cut off before their end")
    if max(turns.values()) > 1:
        broken.append(f"{sum(count > 1 for count in turns.values())} due times were served twice")
    return broken


@click.command()
@click.option("--tasks", default=5000, show_default=True, help="Tasks to send.")
@click.option("--task", type=click.Choice(["late", "early"]), default="late", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="How often each is killed.")
@click.option("--seed", type=int, help="Repeat a run's choices.")
def main(tasks: int, task: str, rounds: int, seed: int | None) -> None:
    """Kill everything that `opsq up` runs."""
    seed = random.randrange(10**6) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="opsq-chaos-") as name:
        fleet = Fleet(Path(name))
        begin = time.monotonic()
        fleet.opsq("-A", "tasks", "up")
        wait_for(fleet.all_run, "all five programs run")
        click.echo(f"seed {seed}; up and ready after {time.monotonic() - begin:.1f} s")
        try:
            begin_ms = time.time() * 1000
            producer = subprocess.Popen(
                [sys.executable, "producer.py", task, str(tasks)], cwd=fleet.folder, env=fleet.environment
            )
            kills, hits, longest = storm(fleet, producer, rounds, random.Random(seed))
            if producer.wait():
                sys.exit("the producer failed")
            wait_for(fleet.is_done, "everything is settled")
            wait_for(fleet.all_run, "all run in the end")
            click.echo(f"{kills} kills, {hits} while a task ran; all back after at most {longest:.1f} s")
            broken = verdict(fleet, task, begin_ms)
        finally:
            fleet.opsq("down")
    if hits * 2 < kills:
        broken.append("fewer than half of the kills landed while a task ran")
    if broken:
        sys.exit("BROKEN: " + "; ".join(broken))
    click.echo("every promise was kept")


if __name__ == "__main__":
    main()
