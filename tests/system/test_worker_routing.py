"""Workers of queues on exchanges: what they bind, what reaches them, and that each gets its copy of a broadcast."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

from opsq import App, Broadcast, signature
from opsq.datastore import keys
from opsq.exceptions import QueueNotFound

TASKS = """
import socket

from opsq import Broadcast, Exchange, Queue

logs = Exchange("logs", type="topic")
app.conf.task_queues = [
    Queue("celery"),
    Queue("web", logs, routing_key="web.#"),
    Queue("errors", logs, routing_key="*.error"),
    Broadcast("news"),
]
app.conf.beat_schedule = {}


@app.task(bind=True)
def heard(self, text):
    mark(self.request.hostname.partition("@")[0], text)


@app.task(bind=True, max_retries=1)
def again(self, text):
    mark(f"try{self.request.retries}", self.request.delivery_info["routing_key"])
    if not self.request.retries:
        raise self.retry(countdown=0)


@app.task(bind=True, acks_late=True)
def slowly(self, text):
    mark("slow", text)
    time.sleep(0 if os.path.exists("quick") else 60)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.app.conf.task_queues = [Broadcast("news"), "celery"]
        yield lab


@pytest.fixture(autouse=True)
def _workers_end(lab: Lab) -> Iterator[None]:
    yield
    lab.end_workers()
    lab.redis.flushall()


def who(lab: Lab, text: str) -> list[str]:
    return sorted(mark.what for mark in lab.written(text=text))


def members(lab: Lab, exchange: str) -> set[bytes]:
    found: Any = lab.redis.smembers(keys.binding(exchange))
    return set(found)


def test_a_worker_binds_its_queues_for_all_and_what_fits_runs_once_in_each(lab: Lab) -> None:
    lab.worker("-c", "1", "-n", "one@h", name="one")
    stranger = App("stranger", broker=lab.url, set_as_current=False)
    stranger.send_task("proj.heard", ("topic",), exchange="logs", routing_key="web.error")
    lab.wait_for(lambda: who(lab, "topic") == ["one", "one"], "it runs for each of the two queues")
    told = lab.app.control.inspect(["one@h"], timeout=10).active_queues()["one@h"]
    bound = {each["name"]: (each["exchange"]["name"], each["exchange"]["type"], each["routing_key"]) for each in told}
    assert bound == {
        "celery": ("celery", "direct", "celery"),
        "web": ("logs", "topic", "web.#"),
        "errors": ("logs", "topic", "*.error"),
        "bcast.news.one@h": ("news", "fanout", "celery"),
    }


def test_bindings_that_were_lost_come_back(lab: Lab) -> None:
    lab.worker("-c", "1", "-n", "one@h", "--lease", "2", name="one")
    lab.redis.delete(keys.binding("logs"), keys.binding_permanent("logs"))
    with pytest.raises(QueueNotFound):
        lab.app.send_task("proj.heard", ("lost",), exchange="logs", routing_key="db.error")
    lab.wait_for(lambda: len(members(lab, "logs")) == 2, "the worker has bound its queues again")
    lab.app.send_task("proj.heard", ("found",), exchange="logs", routing_key="db.error")
    lab.wait_for(lambda: who(lab, "found") == ["one"], "it arrives")


def test_a_retry_goes_back_into_its_own_queue(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "web", name="one")
    lab.app.send_task("proj.again", ("x",), exchange="logs", routing_key="web.x")
    assert lab.wait_mark("try1", "web")
    assert lab.written("try0")[0].text == "web.x"


def test_each_worker_gets_its_copy_of_a_broadcast(lab: Lab) -> None:
    for name in ("one", "two"):
        lab.worker("-c", "1", "-n", f"{name}@h", name=name)
    lab.send("heard", "now", queue="news")
    lab.send("heard", "later", queue="news", countdown=0.3)
    lab.send(
        "add", 1, 2, link=signature("proj.heard", ("after",), options={"queue": "news"}, immutable=True, app=lab.app)
    )
    App("stranger", broker=lab.url, set_as_current=False).send_task("proj.heard", ("far",), exchange="news")
    for text in ("now", "later", "after", "far"):
        lab.wait_for(lambda text=text: who(lab, text) == ["one", "two"], f"both have heard {text}")
    lab.end_workers()
    assert not members(lab, "news")
    for text in ("now", "later", "after", "far"):
        assert who(lab, text) == ["one", "two"]


def test_what_follows_and_has_nowhere_to_go_fails_its_task_with_the_reason(lab: Lab) -> None:
    lab.worker("-c", "1", "-n", "one@h", name="one")
    nowhere = signature(
        "proj.heard", ("x",), options={"exchange": "none", "routing_key": "k"}, immutable=True, app=lab.app
    )
    record = lab.result(lab.send("add", 1, 2, link=nowhere), "FAILURE")
    assert record["result"]["exc_type"] == "QueueNotFound"
    assert lab.run("add", 2, 3) == 5


def test_a_worker_may_leave_broadcasts_to_others(lab: Lab) -> None:
    lab.worker("-c", "1", "-n", "one@h", "-X", "news", name="one")
    lab.worker("-c", "1", "-n", "two@h", "-Q", "news", name="two")
    lab.send("heard", "some", queue="news")
    lab.send("heard", "plain")
    lab.wait_for(lambda: who(lab, "plain") == ["one"] and who(lab, "some") == ["two"], "each has its own")


def test_what_is_published_twice_comes_once(lab: Lab) -> None:
    lab.worker("-c", "1", "-n", "one@h", name="one")
    first, last = (labs.message("heard", labs.new_id(), (text,)) for text in ("twice", "last"))
    for channel, raw in (("/0.news/celery", first), ("/0.news", first), ("/0.news", last)):
        assert lab.redis.publish(channel, raw) == 1
    lab.wait_for(lambda: who(lab, "last") == ["one"], "all was heard")
    assert who(lab, "twice") == ["one"]


def test_a_copy_outlives_its_worker(lab: Lab) -> None:
    worker = lab.worker("-c", "1", "-n", "one@h", name="one")
    lab.send("slowly", "copy", queue="news")
    lab.send("heard", "waits", queue="news")
    lab.wait_mark("slow", "copy")
    lab.wait_for(lambda: lab.depth("bcast.news.one@h") + lab.in_flight() == 2, "both copies are in the worker's queue")
    os.killpg(worker.pid, signal.SIGKILL)
    (lab.folder / "quick").touch()
    lab.worker("-c", "1", "-n", "one@h", name="next")
    lab.wait_for(lambda: who(lab, "waits") == ["one"], "what waited runs")
    lab.wait_for(lambda: len(lab.written("slow", "copy")) == 2, "what was cut off runs again")


def test_a_reload_listens_to_a_new_broadcast(lab: Lab) -> None:
    project = lab.folder / "proj.py"
    source = project.read_text()
    worker = lab.worker("-c", "1", "-n", "one@h", name="one")
    try:
        project.write_text(source.replace('Broadcast("news")', 'Broadcast("fresh")'))
        os.kill(worker.pid, signal.SIGHUP)
        sender = App("sender", broker=lab.url, task_queues=[Broadcast("fresh")], set_as_current=False)
        lab.wait_for(lambda: lab.redis.exists("opsq:consumers:{bcast.fresh.one@h}"), "the new queue is consumed")
        sender.send_task("proj.heard", ("reloaded",), queue="fresh")
        lab.wait_for(lambda: who(lab, "reloaded") == ["one"], "it is heard")
    finally:
        project.write_text(source)


def test_a_queue_may_be_bound_to_a_topic_by_command(lab: Lab) -> None:
    lab.worker("-c", "1", "-n", "one@h", name="one")
    how: dict[str, Any] = {"reply": True, "destination": ["one@h"], "timeout": 10}
    replies = lab.app.control.add_consumer("extra", "logs", "topic", "db.#", **how)
    assert replies == [{"one@h": {"ok": "add consumer extra"}}]
    lab.app.send_task("proj.heard", ("bound",), exchange="logs", routing_key="db.x")
    lab.wait_for(lambda: who(lab, "bound") == ["one"], "it is consumed")
    refused = lab.app.control.add_consumer("extra", "ex", "fanout", **how)[0]["one@h"]["error"]
    assert "only by task_queues" in refused
