"""Queues of a worker that are added and cancelled while it runs; nothing that runs is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, "") as lab:
        lab.worker("-c", "2", name="worker")
        yield lab


def ask(lab: Lab, method: str, *arguments: Any) -> Any:
    """What the worker replies."""
    (reply,) = getattr(lab.app.control, method)(*arguments, reply=True, limit=1, timeout=10)
    return next(iter(reply.values()))


def queues(lab: Lab) -> set[str]:
    (told,) = lab.app.control.inspect(limit=1, timeout=10).active_queues().values()
    return {queue["name"] for queue in told}


def test_a_queue_is_added_and_cancelled_while_tasks_run(lab: Lab) -> None:
    waiting = lab.send("add", 1, 2, queue="extra")
    long = lab.send("nap", "through", 2)
    runs = lab.wait_mark("begin", "through")
    assert ask(lab, "add_consumer", "extra") == {"ok": "add consumer extra"}
    assert lab.value(waiting) == 3
    assert queues(lab) == {"celery", "extra"}
    assert lab.value(long) == runs.pid, "what ran was not interrupted"
    assert ask(lab, "add_consumer", "extra") == {"ok": "add consumer extra"}
    assert ask(lab, "cancel_consumer", "extra") == {"ok": "no longer consuming from extra"}
    lab.wait_for(lambda: queues(lab) == {"celery"}, "it is consumed no more")
    lab.wait_for(lambda: lab.consumers("extra") == 0, "no child consumes it")
    stays = lab.send("add", 1, 3, queue="extra")
    assert lab.run("add", 2, 2) == 4
    assert lab.state(stays) is None
    lab.redis.delete("extra")


def test_the_last_queue_stays(lab: Lab) -> None:
    assert "only queue" in ask(lab, "cancel_consumer", "celery")["error"]
    assert lab.run("add", 1, 1) == 2


def test_a_queue_is_bound_to_an_exchange_for_celerys_clients(lab: Lab) -> None:
    ask(lab, "add_consumer", "bound", "posts", "direct", "key")
    assert lab.redis.sismember("_kombu.binding.posts", "key\x06\x16\x06\x16bound")
    assert lab.run("add", 1, 1, queue="bound") == 2
    ask(lab, "cancel_consumer", "bound")
    lab.wait_for(lambda: queues(lab) == {"celery"}, "it is consumed no more")


def test_a_queue_that_is_added_to_a_topic_gets_what_matches(lab: Lab) -> None:
    ask(lab, "add_consumer", "news", "topics", "topic", "news.*")
    assert lab.run("add", 1, 1, exchange="topics", routing_key="news.today") == 2
    assert "only by task_queues" in ask(lab, "add_consumer", "other", "all", "fanout")["error"]
    ask(lab, "cancel_consumer", "news")
    lab.wait_for(lambda: queues(lab) == {"celery"}, "it is consumed no more")
