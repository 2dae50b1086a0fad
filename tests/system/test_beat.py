"""`opsq beat`, `worker -B` and `opsq schedule` as processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from support import redis_server
from support.processes import Running, Spawner

from opsq.datastore import keys

SOURCE = """
import os
from datetime import timedelta

from opsq import Celery
from opsq.schedules import crontab

app = Celery("shop")
app.conf.CELERYBEAT_SCHEDULE = {
    "jede Sekunde": {"task": "shop.who", "schedule": timedelta(seconds=1)},
    "nachts": {"task": "shop.who", "schedule": crontab(hour=3, minute=30), "options": {"queue": "night"}},
    "kaputt": {"nachts": {"task": "shop.who", "schedule": 1}},
}
app.conf.timezone = "Europe/Berlin"


@app.task(bind=True)
def who(self):
    about = self.request.__dict__["properties"]["periodic_task_name"], self.request.periodic_task_name
    return [*about, self.request.headers["x-opsq-due"]]


@app.on_after_finalize.connect
def set_up(sender, **kwargs):
    sender.add_periodic_task(3600, who, name="stündlich")
"""


@dataclass
class Shop:
    """A project with a schedule, its broker, and the processes on it."""

    folder: Path
    spawn: Spawner
    url: str
    client: redis.Redis
    wait_for: Callable[..., Any]

    def start(self, *words: str, ready: str = "beat: ", **environment: str) -> Running:
        """A command in the foreground."""
        env = {"OPSQ_BROKER_URL": self.url, **environment}
        running = self.spawn([sys.executable, "-m", "opsq", *words], env=env, cwd=self.folder)
        self.wait_for(lambda: ready in running.output() or not running.alive(), 30, f"{words} say {ready!r}")
        return running

    def beat(self, *words: str, ready: str = "beat: ticking") -> Running:
        return self.start("-A", "shop", "beat", "-l", "info", *words, ready=ready)

    def opsq(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        env = self.spawn.environment({"OPSQ_BROKER_URL": self.url})
        line = [sys.executable, "-m", "opsq", *words]
        done = subprocess.run(line, cwd=self.folder, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def data(self, *words: str) -> Any:
        return json.loads(self.opsq(*words, "--json").stdout)

    def entry(self, name: str) -> dict[str, Any]:
        return next(row for row in self.data("schedule")["schedule"] if row["name"] == name)

    def sent(self) -> list[tuple[str, float]]:
        """Entry and due time of all messages that wait, in order."""
        found: Any = self.client.lrange("celery", 0, -1)
        headers = [json.loads(raw)["headers"] for raw in reversed(found)]
        return [(told["periodic_task_name"], told.get("x-opsq-due", 0.0)) for told in headers]

    def wait_sent(self, count: int) -> None:
        """So many more messages than now."""
        wanted = len(self.sent()) + count
        self.wait_for(lambda: len(self.sent()) >= wanted, 30, f"{count} runs are sent")


@pytest.fixture
def shop(
    tmp_path: Path, spawn: Spawner, redis_url: str, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(SOURCE)
    return Shop(folder, spawn, redis_url, redis_client, wait_for)


def test_it_takes_celerys_options_and_names_a_malformed_entry(shop: Shop) -> None:
    words = ("-s", "here", "--max-interval", "5", "--pidfile", "", "-S", "celery.beat:PersistentScheduler")
    beat = shop.beat(*words)
    shop.wait_sent(2)
    assert beat.stop() == 0
    told = beat.output()
    assert "beat_schedule['kaputt'] is left out: it has no 'task' but holds entries ('nachts')" in told
    assert "Scheduler: Sending due task jede Sekunde (shop.who)" in told
    assert told.rstrip().endswith("beat: Shutting down...")
    assert not (shop.folder / "here").exists()
    assert shop.client.get(keys.schedule("shop", "lease")) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["beat", "-S", "django_celery_beat.schedulers:DatabaseScheduler"], "cannot use the scheduler"),
        (["worker", "-B", "--scheduler", "redbeat.RedBeatScheduler"], "cannot use the scheduler"),
        (["beat", "-D"], "opsq up"),
        (["beat", "-l", "loud"], "no log level"),
    ],
)
def test_what_it_cannot_do_is_one_line(shop: Shop, words: list[str], told: str) -> None:
    assert told in shop.opsq("-A", "shop", *words, code=2).stderr


@pytest.mark.parametrize("words", [["-B", "-A", "shop", "worker"], ["-A", "shop", "worker", "-B"]], ids=" ".join)
def test_a_worker_with_a_beat_of_its_own(shop: Shop, words: list[str]) -> None:
    worker = shop.start(*words, "-l", "info", "-c", "1", ready="['jede Sekunde', 'jede Sekunde', ")
    assert "kaputt" in worker.output()
    processes = psutil.Process(worker.pid).children(recursive=True)
    assert worker.stop() == 0
    assert psutil.wait_procs(processes, 10)[1] == []


def test_a_beat_beside_a_worker_that_is_told_to_end_again_and_again_ends_without_an_error(shop: Shop) -> None:
    worker = shop.start("-A", "shop", "worker", "-B", "-l", "info", "-c", "1", ready="Sending due task")
    told: Any = shop.client.get(keys.schedule("shop", "lease"))
    keeper = psutil.Process(json.loads(told)["pid"]).parent()
    assert keeper is not None
    until = time.monotonic() + 30
    while keeper.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        keeper.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert worker.stop() == 0
    assert "ended by an error" not in worker.output()


def test_the_beat_beside_a_worker_dies_with_it_and_is_started_again_when_it_is_killed(shop: Shop) -> None:
    worker = shop.start("-A", "shop", "worker", "-B", "-l", "info", "-c", "1", ready="Sending due task")

    def ticking() -> int:
        told: Any = shop.client.get(keys.schedule("shop", "lease"))
        return int(json.loads(told)["pid"])

    first = ticking()
    os.kill(first, signal.SIGKILL)
    shop.wait_for(lambda: "another one starts" in worker.output(), 10, "it is said")
    shop.wait_for(lambda: ticking() != first, 10, "another one ticks")
    processes = psutil.Process(worker.pid).children(recursive=True)
    worker.send(signal.SIGKILL)
    assert psutil.wait_procs(processes, 10)[1] == []


def test_the_ticking_one_of_two_beats_is_killed_and_no_due_time_is_served_twice(shop: Shop) -> None:
    beats = [shop.beat(), shop.beat(ready="standing by")]
    for _ in range(3):
        shop.wait_sent(1)
        told: Any = shop.client.get(keys.schedule("shop", "lease"))
        ticking = next(beat for beat in beats if beat.pid == json.loads(told)["pid"])
        part = random.uniform(0.1, 0.9)
        shop.wait_for(lambda part=part: _has_passed(shop, part), 5, "a random moment")
        ticking.send(signal.SIGKILL)
        ticking.wait()
        beats = [beat for beat in beats if beat.alive()]
        beats.append(shop.beat(ready="beat: "))
    shop.wait_sent(2)
    assert [due for due, count in Counter(shop.sent()).items() if count > 1] == []
    times = [due for _name, due in shop.sent()]
    assert max(later - earlier for earlier, later in pairwise(times)) < 15


def _has_passed(shop: Shop, part: float) -> bool:
    """Whether so much of the second since the last due time is over."""
    seconds, micros = shop.client.time()
    last = shop.sent()[-1][1]
    return bool((seconds + micros / 1e6 - last) % 1 >= part)


def test_one_that_ends_well_hands_over_at_once(shop: Shop) -> None:
    one, other = shop.beat(), shop.beat(ready="standing by")
    assert one.stop() == 0
    shop.wait_for(lambda: "beat: ticking" in other.output(), 2, "the other one ticks")


def test_a_hang_up_starts_it_anew_with_todays_code(shop: Shop) -> None:
    beat = shop.beat()
    # Of another length: by that and the second Python knows whether what it has compiled is today's.
    source = (shop.folder / "shop.py").read_text().replace("stündlich", "once every hour")
    (shop.folder / "shop.py").write_text(source)
    beat.send(signal.SIGHUP)
    shop.wait_for(lambda: beat.output().count("beat: ticking") == 2, 20, "it starts anew")
    assert {row["name"] for row in shop.data("schedule")["schedule"]} == {"jede Sekunde", "nachts", "once every hour"}
    assert beat.stop() == 0


def test_a_broker_that_goes_away_is_waited_for(shop: Shop, free_port: Callable[[], int]) -> None:
    port = free_port()
    shop.url = f"redis://127.0.0.1:{port}/0"
    assert "cannot reach Redis" in shop.opsq("-A", "shop", "beat", code=3).stderr
    with redis_server.running(port):
        beat = shop.beat(ready="Sending due task")
    shop.wait_for(lambda: "waiting for it" in beat.output(), 20, "it says that the broker is away")
    with redis_server.running(port) as server, server.client() as client:
        shop.wait_for(lambda: client.llen("celery") >= 2, 20, "it goes on")
        assert beat.stop() == 0
    assert beat.output().count("waiting for it") == 1


def test_what_is_on_the_schedule(shop: Shop) -> None:
    assert "no beat ticks for shop" in shop.opsq("-A", "shop", "schedule").stderr
    beat = shop.beat()
    rows = {row["name"]: row for row in shop.data("schedule")["schedule"]}  # no app is named: what Redis knows
    assert set(rows) == {"jede Sekunde", "nachts", "stündlich"}
    assert (rows["nachts"]["schedule"], rows["nachts"]["zone"]) == ("30 3 * * *", "Europe/Berlin")
    assert " 03:30:00" in shop.opsq("schedule").stdout
    runs = shop.data("schedule", "next", "12")["runs"]
    assert [run["name"] for run in runs] == ["jede Sekunde"] * 12
    assert [later["at"] - earlier["at"] for earlier, later in pairwise(runs)] == pytest.approx([1] * 11)
    assert beat.stop() == 0


def test_an_operators_words_are_heard_at_once(shop: Shop) -> None:
    assert "no beat ticks" in shop.opsq("-A", "shop", "schedule", "run", "nachts", code=3).stderr
    beat = shop.beat()
    task_id = shop.opsq("schedule", "run", "nachts").stdout.strip()
    [raw] = shop.client.lrange("night", 0, -1)
    assert json.loads(raw)["headers"]["id"] == task_id
    assert shop.entry("nachts")["runs"] == 1

    shop.opsq("schedule", "pause", "jede Sekunde")
    before = len(shop.sent())
    shop.opsq("-A", "shop", "schedule", "add", "neu", "shop.who", "--every", "500ms")
    shop.wait_for(lambda: [name for name, _due in shop.sent()[before:]].count("neu") >= 4, 20, "the new one runs")
    assert {name for name, _due in shop.sent()[before + 1 :]} == {"neu"}
    assert shop.entry("jede Sekunde")["paused"]
    shop.opsq("schedule", "resume", "jede Sekunde")
    shop.wait_for(lambda: "jede Sekunde" in dict(shop.sent()[before + 4 :]), 20, "it goes on")
    shop.opsq("schedule", "remove", "neu")
    assert {row["name"] for row in shop.data("schedule")["schedule"]} == {"jede Sekunde", "nachts", "stündlich"}
    assert "in the app's code" in shop.opsq("schedule", "remove", "nachts", code=2).stderr
    assert "did you mean nachts" in shop.opsq("schedule", "pause", "nacht", code=2).stderr
    assert "61" in shop.opsq("schedule", "add", "x", "t", "--cron", "61 * * * *", code=2).stderr
    assert beat.stop() == 0
