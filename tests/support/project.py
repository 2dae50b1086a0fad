"""One project, written once for Celery and once for opsq: only the import differs, as it does for those who move."""

from __future__ import annotations

from pathlib import Path

PROJECT = """
import os
import time

from LIBRARY import Celery

app = Celery("proj", broker=os.environ["PROJ_BROKER"], backend=os.environ["PROJ_BACKEND"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)


class Odd(Exception):
    pass


@app.task
def add(x, y):
    return x + y


@app.task
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task
def fail(message):
    raise ValueError(message, 42)


@app.task
def fail_oddly():
    raise Odd("odd", 7)


@app.task(bind=True, max_retries=2)
def flaky(self, times):
    if self.request.retries < times:
        raise self.retry(exc=Odd("not yet"), countdown=0)
    return self.request.retries


@app.task(ignore_result=True)
def write(path, text):
    with open(path, "a") as file:
        file.write(text)
    return "nobody sees this"


@app.task
def now():
    return time.time()


@app.task(bind=True)
def about(self):
    return {"id": self.request.id, "name": self.name, "queue": self.request.delivery_info["routing_key"]}


@app.task(soft_time_limit=1)
def too_long():
    time.sleep(30)


@app.task(time_limit=1)
def much_too_long():
    time.sleep(30)
"""


def write(folder: Path, library: str) -> Path:
    """The project in a folder of its own: `proj.py`, importing `celery` or `opsq`."""
    folder.mkdir(parents=True)
    (folder / "proj.py").write_text(PROJECT.replace("LIBRARY", library))
    return folder
