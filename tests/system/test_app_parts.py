"""Parts of Celery's app that programs use: the connection, events heard and told, tasks that are asked to stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.lab import Lab, opened

from opsq import App
from opsq.contrib.abortable import AbortableAsyncResult
from opsq.exceptions import OperationalError

TASKS = """
from opsq.contrib.abortable import AbortableTask


@app.task(bind=True, base=AbortableTask)
def patient(self):
    mark("waits", self.request.id)
    while not self.is_aborted():
        time.sleep(0.01)
    return "asked to stop"


@app.task(bind=True)
def tell(self):
    self.send_event("task-halfway", percent=50)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1")
        yield lab


def test_a_task_that_is_asked_to_stop_ends_well(lab: Lab) -> None:
    task_id = lab.send("patient")
    lab.wait_mark("waits", task_id)
    AbortableAsyncResult(task_id, app=lab.app).abort()
    assert lab.value(task_id) == "asked to stop"


def test_the_connection_tells_how_long_a_queue_is_and_empties_it(lab: Lab) -> None:
    for number, priority in enumerate((0, 9, 3)):
        lab.send("add", number, number, queue="nobody", priority=priority)
    with lab.app.connection_or_acquire() as connection:
        channel = connection.default_channel
        assert connection.ensure_connection(max_retries=3).connected
        assert channel.queue_declare(queue="nobody", passive=True).message_count == 3
        assert channel.client.llen("nobody") == 1
        assert channel.queue_purge("nobody") == 3
    with lab.app.pool.acquire(block=True) as connection:
        assert connection.default_channel.client.llen("nobody") == 0


def test_a_broker_that_is_away_is_said_without_its_password(free_port: Any) -> None:
    app = App(broker=f"redis://:secret@127.0.0.1:{free_port()}/0", set_as_current=False)
    told: list[Any] = []
    with pytest.raises(OperationalError) as caught:
        app.connection().ensure_connection(errback=lambda error, wait: told.append((error, wait)))
    assert "secret" not in str(caught.value)
    assert told == [(caught.value, 0)]
    assert not app.connection().connected


def test_events_are_handed_to_their_handlers_and_make_a_state(lab: Lab) -> None:
    state, ids, failed = lab.app.events.State(), list[str](), list[Any]()
    attached = threading.Event()

    def on_event(event: dict[str, Any]) -> None:
        state.event(event)
        if event["type"] == "worker-heartbeat":
            attached.set()

    def on_success(event: dict[str, Any]) -> None:
        state.event(event)
        if event["uuid"] in ids:
            receiver.should_stop = True

    def send() -> None:
        attached.wait()
        lab.wait_for(lambda: any(lab.redis.pubsub_numpat() for _ in "1"), "it listens")
        ids.append(lab.send("add", 20, 22))

    with lab.app.connection() as connection:
        handlers = {"task-succeeded": on_success, "task-failed": failed.append, "*": on_event}
        receiver = lab.app.events.Receiver(connection, handlers=handlers)
        sender = threading.Thread(target=send)
        sender.start()
        receiver.capture(limit=None, timeout=20, wakeup=True)
        sender.join()
    task = state.tasks[ids[0]]
    assert (task.name, task.state, task.info()["result"]) == ("proj.add", "SUCCESS", "42")
    assert not failed


def test_a_task_tells_events_of_the_programs_own(lab: Lab) -> None:
    receiver = lab.app.events.Receiver(lab.app.connection())
    heard = receiver.itercapture(timeout=20)
    next(heard)  # it is attached: the workers have answered
    task_id = lab.send("tell")
    event = next(event for event in heard if event["type"] == "task-halfway")
    assert (event["uuid"], event["percent"]) == (task_id, 50)
    with lab.app.events.default_dispatcher() as dispatcher:
        dispatcher.send("shop-sold", item="book")
    assert next(event for event in heard if event["type"] == "shop-sold")["item"] == "book"


def test_waiting_for_events_can_end(lab: Lab) -> None:
    lab.redis.ping()
    other = App(broker=lab.url.replace("/0", "/5"), set_as_current=False)
    with pytest.raises(TimeoutError):
        other.events.Receiver(other.connection()).capture(timeout=0.2)


def test_a_bound_task_can_be_tested_with_a_request_of_ones_own() -> None:
    app = App("t", set_as_current=False)

    @app.task(bind=True)
    def tries(self: Any) -> tuple[str, int, bool]:
        return self.request.id, self.request.retries, self.request.called_directly

    tries.push_request(id="mine", retries=2)
    try:
        assert tries.run() == ("mine", 2, False)
    finally:
        tries.pop_request()
    assert tries.request.id is None
