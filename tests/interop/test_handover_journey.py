"""A queue goes from Celery's workers to opsq's and back while tasks are sent: each runs once."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import redis
from support.processes import Running, Spawner

PROJECT = """
import os
import time

from LIBRARY import Celery

app = Celery("proj", broker=os.environ["PROJ_BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True, task_acks_late=True, task_ignore_result=True,
    task_default_priority=0, worker_prefetch_multiplier=4,
)
MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.task(bind=True)
def work(self, seconds):
    os.write(MARKS, f"{self.request.id} LIBRARY\\n".encode())
    time.sleep(seconds)


@app.task(bind=True, rate_limit="10/s")
def limited(self):
    os.write(MARKS, f"{self.request.id} LIBRARY\\n".encode())


@app.task(bind=True, max_retries=2)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=1.5)
    os.write(MARKS, f"{self.request.id} LIBRARY\\n".encode())
"""

#: Sends until the file `stop` is there; writes down each id that was sent.
PRODUCER = """
import itertools
import os
import time

from proj import again, limited, work

sent = os.open(os.environ["SENT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for n in itertools.count():
    if os.path.exists(os.environ["STOP"]):
        break
    if n % 24 == 4:  # more than one worker takes at once: else whoever waits in BRPOP gets each
        for _ in range(30):
            os.write(sent, f"{work.delay(0.005).id}\\n".encode())
    if n % 12 == 0:
        result = work.apply_async((0,), countdown=1 + n % 5)
    elif n % 12 == 1:
        result = limited.delay()
    elif n % 12 == 2:
        result = again.delay()
    elif n % 12 == 3:
        result = work.apply_async((0.01,), priority=n % 10)
    else:
        result = work.delay(0.002)
    os.write(sent, f"{result.id}\\n".encode())
    time.sleep(0.03)
"""


def test_a_journey_to_opsq_and_back_under_load_loses_and_doubles_nothing(
    tmp_path: Path,
    spawn: Spawner,
    celery_python: Path,
    redis_url: str,
    redis_client: redis.Redis,
    wait_for: Callable[..., object],
) -> None:
    pythons = {"celery": celery_python, "opsq": Path(sys.executable)}
    environment = {"PROJ_BROKER": redis_url} | {
        name.upper(): str(tmp_path / name) for name in ("marks", "sent", "stop")
    }
    for library in pythons:
        (tmp_path / library).mkdir()
        (tmp_path / library / "proj.py").write_text(PROJECT.replace("LIBRARY", library))

    def run(library: str, name: str, *words: str) -> Running:
        folder = tmp_path / library
        return spawn([pythons[library], *words], name=name, env={**environment, "PYTHONPATH": str(folder)}, cwd=folder)

    def worker(library: str, name: str) -> Running:
        # Celery's prefork pool may take half a minute for a warm stop: parent and child wait for each other.
        pool = ["-P", "threads"] if library == "celery" else []
        options = ["-A", "proj", "worker", "-c", "2", "-l", "info", "-n", f"{name}@%h", *pool]
        started = run(library, name, "-m", library, *options)
        wait_for(lambda: " ready." in started.output(), 40, f"{name} is ready")
        return started

    def ran(library: str) -> int:
        path = tmp_path / "marks"
        return path.read_text().count(f" {library}\n") if path.exists() else 0

    before = worker("celery", "before")
    producers = [run(library, f"{library}-producer", "-c", PRODUCER) for library in pythons]
    wait_for(lambda: ran("celery") > 50, 30, "Celery works")
    between = worker("opsq", "between")  # for a moment both take from the queue
    wait_for(lambda: ran("opsq") > 20, 30, "opsq works beside it")
    assert before.stop() == 0
    count = ran("opsq")
    wait_for(lambda: ran("opsq") > count + 100, 30, "opsq works alone")
    assert between.stop() == 0
    handed = run("opsq", "handover", "-m", "opsq", "-A", "proj", "queues", "handover", "--to-celery", "celery")
    assert handed.wait() == 0, handed.report()
    assert " 0 messages for later" not in handed.output()
    count = ran("celery")
    after = worker("celery", "after")
    wait_for(lambda: ran("celery") > count + 50, 30, "Celery works again")
    (tmp_path / "stop").touch()
    assert [producer.wait() for producer in producers] == [0, 0]
    sent = (tmp_path / "sent").read_text().split()
    wait_for(lambda: ran("celery") + ran("opsq") >= len(sent), 30, f"all {len(sent)} have run")
    wait_for(lambda: not redis_client.exists("unacked", "celery"), 10, "nothing is left")
    time.sleep(0.2)  # what runs twice would do so now
    counted = Counter(line.split()[0] for line in (tmp_path / "marks").read_text().splitlines())
    assert counted == Counter(sent)
    assert len(sent) > 500
    assert not list(redis_client.scan_iter("opsq:delayed:*")) + list(redis_client.scan_iter("opsq:inflight:*"))
    assert after.stop() == 0
