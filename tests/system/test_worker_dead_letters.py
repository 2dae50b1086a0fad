"""What goes to the dead letters, with which reason, and how often it had been delivered."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from support import lab as labs
from support.lab import Lab

from opsq.datastore import keys
from opsq.protocol import envelope

TASKS = """
from opsq.exceptions import Reject


@app.task(bind=True, acks_late=True)
def late(self, text, kills=0):
    mark("begin", text)
    seen = (self.request.headers or {}).get("x-opsq-deliveries", 0)
    mark("deliveries-" + str(seen), text)
    mark("redelivered-" + str(self.request.delivery_info["redelivered"]), text)
    if seen < kills:
        os.kill(os.getpid(), 9)
    return seen


@app.task
def early(text):
    mark("begin", text)
    os.kill(os.getpid(), 9)


@app.task(acks_late=True, reject_on_worker_lost=False)
def late_but_final(text):
    mark("begin", text)
    os.kill(os.getpid(), 9)


@app.task
def leave_at_once(text):
    mark("begin", text)
    os._exit(7)


@app.task
def reject(reason):
    raise Reject(reason)


@app.task(acks_late=True, acks_on_failure=False)
def not_acked_when_it_fails(fails):
    if fails:
        raise ValueError("bad")
    return "fine"


@app.task(acks_late=True, acks_on_failure_or_timeout=False, time_limit=0.2)
def not_acked_when_too_long(text):
    mark("begin", text)
    if len([line for line in open(os.environ["MARKS"]) if line.startswith("begin|" + text)]) < 3:
        time.sleep(30)
    return "in time"


@app.task(acks_late=True)
def late_and_long(text, seconds):
    mark("begin", text)
    time.sleep(seconds)
    mark("end", text)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "1", name="worker")
        yield lab


def letter_of(lab: Lab, task_id: str, queue: str = "celery") -> dict[str, Any]:
    found: dict[str, Any] = lab.wait_for(lambda: lab.dead(queue).get(task_id), "it is in the dead letters", 20)
    return found


def test_a_letter_says_everything_and_holds_the_message_as_it_was(lab: Lab) -> None:
    task_id = labs.new_id()
    raw = labs.message("unheard_of", task_id, (1, "ä"))
    sent = time.time()
    lab.redis.lpush("celery", raw)
    letter = letter_of(lab, task_id)
    assert letter.pop("time") == pytest.approx(sent, abs=5)
    assert letter.pop("message").encode() == raw
    assert letter.pop("host")
    assert letter == {
        "id": task_id,
        "task": "proj.unheard_of",
        "queue": "celery",
        "reason": "unknown task 'proj.unheard_of'",
        "deliveries": 0,
        "error": None,
        "list": "celery",
    }
    score: Any = lab.redis.zscore("opsq:dead-index:{celery}", task_id)
    assert score == pytest.approx(sent, abs=5)


def test_an_unknown_task_is_a_failure_for_who_waits(lab: Lab) -> None:
    record = lab.result(lab.send("unheard_of"), "FAILURE")
    assert record["result"] == {
        "exc_type": "NotRegistered",
        "exc_message": ["proj.unheard_of"],
        "exc_module": "celery.exceptions",
    }
    assert record["traceback"] is None


def test_the_list_that_a_message_came_from_is_kept(lab: Lab) -> None:
    task_id = lab.send("unheard_of", priority=7)
    assert letter_of(lab, task_id)["list"] == "celery\x06\x166"


def test_two_messages_of_one_id_are_two_letters(lab: Lab) -> None:
    task_id = labs.new_id()
    lab.redis.lpush("celery", *[labs.message("unheard_of", task_id, (number,)) for number in range(3)])
    lab.wait_for(lambda: sum(key.startswith(task_id) for key in lab.dead()) == 3, "all three are there")


def test_the_oldest_letters_go_when_they_are_too_many_or_too_old(lab: Lab) -> None:
    lab.worker("-c", "1", "-Q", "crowded", name="crowded")
    fill = """
        for i = 1, tonumber(ARGV[1]) do
          redis.call('HSET', KEYS[1], i, 'old')
          redis.call('ZADD', KEYS[2], ARGV[2] + i, i)
        end
    """
    names = (keys.dead("crowded"), keys.dead_index("crowded"))
    now = time.time()
    lab.redis.eval(fill, 2, *names, keys.DEAD_CAP, now - 1_000_000)
    lab.redis.hset(names[0], "ancient", "old")
    lab.redis.zadd(names[1], {"ancient": now - keys.DEAD_AGE_S - 10})
    task_id = lab.send("unheard_of", queue="crowded")
    lab.result(task_id, "FAILURE")
    assert lab.redis.hlen(names[0]) == lab.redis.zcard(names[1]) == keys.DEAD_CAP
    assert lab.redis.hmget(names[0], "ancient", "1", "2") == [None, None, b"old"]
    assert lab.redis.hexists(names[0], task_id)
    lab.redis.delete(*names)


def test_a_rejected_task_says_why(lab: Lab) -> None:
    assert letter_of(lab, lab.send("reject", "not mine"))["reason"] == "rejected: not mine"


def test_an_early_acknowledged_task_whose_process_dies_is_dead_and_failed(lab: Lab) -> None:
    task_id = lab.send("early", "e1")
    letter = letter_of(lab, task_id)
    assert "was killed by SIGKILL" in letter["reason"]
    record = lab.result(task_id, "FAILURE")
    assert record["result"]["exc_type"] == "WorkerLostError"
    assert record["result"]["exc_module"] == "billiard.exceptions"
    assert "SIGKILL" in record["result"]["exc_message"][0]
    assert len(lab.written("begin", "e1")) == 1
    output = lab.spawn.running[0].output()
    assert f"Task proj.early[{task_id}] goes to the dead letters: its process was killed by SIGKILL" in output
    assert lab.run("add", 1, 1) == 2


def test_so_is_one_that_leaves_without_a_word(lab: Lab) -> None:
    task_id = lab.send("leave_at_once", "gone")
    assert "exited with code 7" in letter_of(lab, task_id)["reason"]
    assert "7" in lab.result(task_id, "FAILURE")["result"]["exc_message"][0]


def test_a_late_acknowledged_task_comes_back_and_knows_how_often_it_was_delivered(lab: Lab) -> None:
    task_id = lab.send("late", "l1", 2)
    assert lab.value(task_id, 20) == 2
    assert [mark.what for mark in lab.written(text="l1") if mark.what.startswith("deliveries")] == [
        "deliveries-0",
        "deliveries-1",
        "deliveries-2",
    ]
    assert [mark.what for mark in lab.written(text="l1") if mark.what.startswith("redelivered")] == [
        "redelivered-False",
        "redelivered-True",
        "redelivered-True",
    ]
    assert f"Task proj.late[{task_id}] goes back to its queue: its process" in lab.spawn.running[0].output()
    assert task_id not in lab.dead()


def test_reject_on_worker_lost_false_is_celerys_failure(lab: Lab) -> None:
    task_id = lab.send("late_but_final", "f1")
    assert letter_of(lab, task_id)["deliveries"] == 0
    assert lab.result(task_id, "FAILURE")["result"]["exc_type"] == "WorkerLostError"
    assert len(lab.written("begin", "f1")) == 1


def test_a_failure_that_is_not_acknowledged_is_a_dead_letter(lab: Lab) -> None:
    task_id = lab.send("not_acked_when_it_fails", True)
    assert lab.result(task_id, "FAILURE")["result"]["exc_type"] == "ValueError"
    assert letter_of(lab, task_id)["reason"] == "it failed (ValueError), and its failures are not acknowledged"
    assert "ValueError: bad" in letter_of(lab, task_id)["error"]
    assert lab.run("not_acked_when_it_fails", False) == "fine"


def test_a_time_out_that_is_not_acknowledged_runs_again(lab: Lab) -> None:
    task_id = lab.send("not_acked_when_too_long", "too long")
    assert lab.value(task_id, 20) == "in time"
    assert len(lab.written("begin", "too long")) == 3
    assert task_id not in lab.dead()


def test_what_waited_behind_a_process_that_died_runs_in_its_order(lab: Lab) -> None:
    lab.push("celery", *[("add", 1, 1) for _ in range(300)])
    lab.wait_for(lab.is_quiet, "large batches")
    texts = [f"behind-{number}" for number in range(30)]
    lab.push("celery", ("early", "before"), *[("nap", text) for text in texts])
    lab.wait_for(lambda: lab.written("end", texts[-1]), "all have run", 20)
    assert [mark.text for mark in lab.written("end") if mark.text in texts] == texts


def test_a_message_given_back_by_a_warm_stop_was_not_delivered(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "back", name="back")
    lab.push("back", ("nap", "long", 0.3), *[("late", f"given back {number}") for number in range(5)])
    lab.wait_mark("begin", "long")
    assert running.stop() == 0
    raws: Any = lab.redis.lrange("back", 0, -1)
    assert len(raws) == 5
    assert [envelope.parse(raw).headers.deliveries for raw in raws] == [0] * 5
    assert [json.loads(raw)["headers"]["argsrepr"] for raw in raws] == ["(1, 2)"] * 5
    again = lab.worker("-c", "1", "-Q", "back", name="back-2")
    lab.wait_for(lambda: lab.written("deliveries-0", "given back 4"), "they run")
    assert again.stop() == 0


def test_a_cold_stop_gives_back_what_ran_late_with_one_delivery_more(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "cold", name="cold")
    task_id = lab.send("late_and_long", "cold", 60, queue="cold")
    lab.wait_mark("begin", "cold")
    assert running.stop(signal.SIGQUIT) == 0
    raw: Any = lab.redis.rpop("cold")
    message = envelope.parse(raw)
    assert message.headers.id == task_id
    assert message.headers.deliveries == 1
    assert json.loads(raw)["headers"]["redelivered"] is True
    assert not lab.dead("cold")


def test_killing_the_parent_is_accounted_for_by_the_next_worker(lab: Lab) -> None:
    running = lab.worker("-c", "1", "-Q", "lost", name="lost")
    lab.push("lost", ("late_and_long", "lost", 60))
    mark = lab.wait_mark("begin", "lost")
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    lab.wait_for(lambda: not psutil.pid_exists(mark.pid), "its children end with it")
    assert lab.in_flight() == 1
    again = lab.worker("-c", "1", "-Q", "lost", name="lost-2")
    lab.wait_for(lambda: len(lab.written("begin", "lost")) == 2, "it runs again")
    assert "had left behind: 1 messages" in again.output()
    assert again.stop(signal.SIGQUIT) == 0
    lab.redis.delete("lost")
