"""What is stored for each way in which a task can end, by a real worker; the records are Celery's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

TASKS = """
from opsq.exceptions import Ignore, Reject


class Odd(Exception):
    pass


@app.task
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task
def fail(text):
    raise ValueError(text, 42)


@app.task
def fail_oddly(text):
    raise Odd(text, object)


@app.task
def fail_from(text):
    try:
        raise KeyError(text)
    except KeyError as error:
        raise RuntimeError("outer") from error


@app.task(bind=True, max_retries=2, default_retry_delay=0.2)
def flaky(self, failures):
    if self.request.retries < failures:
        mark("try", self.request.id)
        raise self.retry(exc=Odd("not yet"))
    return [self.request.retries, self.request.parent_id, self.request.id, self.request.root_id]


@app.task(bind=True, max_retries=1)
def give_up(self):
    try:
        raise KeyError("original")
    except KeyError:
        self.retry(countdown=0)


@app.task(bind=True, max_retries=1)
def give_up_with(self):
    self.retry(exc=Odd("the original"), countdown=0.01)


@app.task(bind=True)
def retry_with_others(self, x):
    if self.request.retries:
        return [x, self.request.argsrepr, self.request.kwargs]
    raise self.retry(args=[x + 1], kwargs={}, countdown=0)


@app.task(bind=True, max_retries=None)
def retry_for_ever(self):
    if self.request.retries == 5:
        return self.request.retries
    raise self.retry(countdown=0)


@app.task(bind=True)
def retry_once(self, countdown):
    if self.request.retries == 0:
        mark("first", self.request.id)
        raise self.retry(countdown=countdown)
    mark("second", self.request.id)
    return "again"


@app.task(autoretry_for=(Odd,), retry_kwargs={"max_retries": 2, "countdown": 0})
def auto():
    mark("auto")
    raise Odd("always")


@app.task
def ignore():
    raise Ignore()


@app.task(bind=True)
def reject_once(self):
    if not self.request.delivery_info.get("redelivered") and not os.path.exists("rejected"):
        open("rejected", "w").close()
        raise Reject("once", requeue=True)
    return "in the end"


@app.task
def reject():
    raise Reject("no use")


@app.task
def leave(code):
    raise SystemExit(code)


@app.task
def interrupt():
    raise KeyboardInterrupt


@app.task
def unwritable():
    return {"a": object()}


@app.task
def too_deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@app.task(ignore_result=True)
def silent(fails):
    mark("silent", fails)
    if fails:
        raise ValueError("nobody sees this")


@app.task(ignore_result=True, store_errors_even_if_ignored=True)
def silent_but_for_errors(fails):
    if fails:
        raise ValueError("somebody sees this")


@app.task(track_started=True, bind=True)
def tracked(self):
    mark("tracked", self.request.id)
    deadline = time.monotonic() + 20
    while not os.path.exists("go-" + self.request.id) and time.monotonic() < deadline:
        time.sleep(0.002)
    return [os.getpid(), self.request.hostname]


@app.task(bind=True)
def report(self):
    self.update_state(state="HALFWAY", meta={"done": 1})
    mark("halfway", self.request.id)
    deadline = time.monotonic() + 20
    while not os.path.exists("go-" + self.request.id) and time.monotonic() < deadline:
        time.sleep(0.002)
    return "all"


@app.task(throws=(KeyError,))
def expected():
    raise KeyError("known")


@app.task(bind=True)
def about(self):
    request = self.request
    return {
        "id": request.id, "args": request.args, "kwargs": request.kwargs, "retries": request.retries,
        "delivery": request.delivery_info, "hostname": request.hostname, "root": request.root_id,
        "parent": request.parent_id, "reply_to": request.reply_to, "correlation": request.correlation_id,
        "direct": request.called_directly, "eager": request.is_eager, "eta": request.eta, "mine": request.get("mine"),
        "task": request.task if isinstance(request.task, str) else request.task.name, "headers": request.headers,
    }


@app.task(bind=True)
def parent(self):
    child = add.delay(1, 1)
    return child.id


@app.task(acks_late=True)
def late_failure():
    raise ValueError("late")


@app.task
def wait_for_another():
    return add.delay(1, 2).get(timeout=5)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "2", "-n", "w@here", name="worker")
        yield lab


def ttl(lab: Lab, task_id: str) -> int:
    return int(lab.redis.ttl(f"celery-task-meta-{task_id}"))  # type: ignore[arg-type]


def test_a_success_is_stored_with_its_value_for_a_day(lab: Lab) -> None:
    task_id = lab.send("add", 2, 3)
    record = lab.result(task_id)
    assert record.pop("date_done").endswith("+00:00")
    assert record == {"status": "SUCCESS", "result": 5, "traceback": None, "children": [], "task_id": task_id}
    assert 86_300 < ttl(lab, task_id) <= 86_400


@pytest.mark.parametrize("value", [None, "", 0, False, [], {}, "ä\ud83d\ude00"[:1], 1e300, [[1], {"a": None}]])
def test_values_come_back_as_they_were_sent(lab: Lab, value: Any) -> None:
    assert lab.run("echo", value, _kwargs={"key": value}) == [[value], {"key": value}]


def test_a_failure_is_stored_with_its_class_its_arguments_and_its_traceback(lab: Lab) -> None:
    record = lab.result(lab.send("fail", "bad input"), "FAILURE")
    assert record["result"] == {
        "exc_type": "ValueError",
        "exc_message": ["bad input", 42],
        "exc_module": "builtins",
    }
    lines = record["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: ('bad input', 42)"
    assert 'proj.py", line ' in lines[1]
    assert "runner.py" not in record["traceback"], "it begins in the task's own code"
    assert record["date_done"]


def test_the_error_of_a_program_names_its_class_and_shows_what_json_cannot_hold(lab: Lab) -> None:
    record = lab.result(lab.send("fail_oddly", "odd"), "FAILURE")
    assert record["result"]["exc_type"] == "Odd"
    assert record["result"]["exc_module"] == "proj"
    assert record["result"]["exc_message"][0] == "odd"
    assert "object" in record["result"]["exc_message"][1]


def test_the_cause_of_an_error_is_in_its_traceback(lab: Lab) -> None:
    text = lab.result(lab.send("fail_from", "inner"), "FAILURE")["traceback"]
    assert "KeyError: 'inner'" in text
    assert "direct cause" in text


def test_wrong_arguments_are_a_failure_like_any_other(lab: Lab) -> None:
    record = lab.result(lab.send("add", 1), "FAILURE")
    assert record["result"]["exc_type"] == "TypeError"
    assert "missing 1 required positional argument" in record["result"]["exc_message"][0]


# -- retries ------------------------------------------------------------------------------------------------------


def test_a_retried_task_is_in_the_delayed_set_under_its_own_id_until_it_is_due(lab: Lab) -> None:
    task_id = lab.send("retry_once", 0.4)
    lab.wait_for(lambda: lab.state(task_id) == "RETRY", "RETRY is stored in between")
    ((member, due_ms),) = lab.redis.zrange("opsq:delayed:{celery}", 0, -1, withscores=True)
    suffix, _, raw = member.partition(b"|")
    headers = json.loads(raw)["headers"]
    assert suffix == b""
    assert headers["id"] == task_id
    assert headers["root_id"] == task_id
    assert headers["parent_id"] == task_id
    assert headers["retries"] == 1
    assert labs.moment(headers["eta"]) == pytest.approx(due_ms / 1000, abs=0.01)
    first = lab.wait_mark("first", task_id)
    assert due_ms / 1000 - first.time == pytest.approx(0.4, abs=0.1)
    assert lab.value(task_id) == "again"
    second = lab.wait_mark("second", task_id)
    assert 0 <= second.time - due_ms / 1000 < 5


def test_the_record_of_a_retry_is_its_cause(lab: Lab) -> None:
    task_id = lab.send("flaky", 1)
    record = lab.wait_for(lambda: (lab.record(task_id) or {}).get("status") == "RETRY" and lab.record(task_id), "RETRY")
    assert record["result"] == {"exc_type": "Odd", "exc_message": ["not yet"], "exc_module": "proj"}
    assert record["date_done"] is None
    assert "Retry in 0.2s: Odd('not yet')" in record["traceback"].splitlines()[-1]
    assert lab.value(task_id) == [1, task_id, task_id, task_id]
    assert lab.record(task_id)["children"] in ([], None)


def test_the_default_delay_lies_between_two_tries(lab: Lab) -> None:
    task_id = lab.send("flaky", 2)
    assert lab.value(task_id)[0] == 2
    first, second = lab.written("try", task_id)
    assert 0.2 <= second.time - first.time < 5


def test_when_the_retries_are_used_up_the_given_error_is_the_result(lab: Lab) -> None:
    record = lab.result(lab.send("give_up_with"), "FAILURE")
    assert record["result"] == {"exc_type": "Odd", "exc_message": ["the original"], "exc_module": "proj"}
    assert "Odd: the original" in record["traceback"]


def test_without_a_given_error_the_result_says_that_the_retries_are_used_up(lab: Lab) -> None:
    record = lab.result(lab.send("give_up"), "FAILURE")
    assert record["result"]["exc_type"] == "MaxRetriesExceededError"
    assert record["result"]["exc_module"] == "celery.exceptions"
    assert "Can't retry proj.give_up" in record["result"]["exc_message"][0]
    assert "KeyError: 'original'" in record["traceback"]


def test_a_retry_may_change_the_arguments(lab: Lab) -> None:
    assert lab.run("retry_with_others", 1) == [2, "(2,)", {}]


def test_max_retries_none_is_no_limit(lab: Lab) -> None:
    assert lab.run("retry_for_ever") == 5


def test_autoretry_takes_the_same_path(lab: Lab) -> None:
    record = lab.result(lab.send("auto"), "FAILURE")
    assert record["result"]["exc_type"] == "Odd"
    assert len(lab.written("auto")) == 3


# -- other ends ---------------------------------------------------------------------------------------------------


def test_an_ignored_task_leaves_no_result_and_is_done(lab: Lab) -> None:
    task_id = lab.send("ignore")
    lab.wait_for(lambda: "ignored" in " ".join(lab.lines(lab.spawn.running[0], task_id)), "it is ignored")
    lab.wait_for(lab.is_quiet, "its message is gone")
    assert lab.record(task_id) is None
    assert task_id not in lab.dead()


def test_a_rejected_task_goes_back_to_its_queue_when_it_says_so(lab: Lab) -> None:
    task_id = lab.send("reject_once")
    assert lab.value(task_id) == "in the end"
    assert task_id not in lab.dead()


def test_a_rejected_task_is_a_dead_letter_and_a_failure(lab: Lab) -> None:
    task_id = lab.send("reject")
    record = lab.result(task_id, "FAILURE")
    assert record["result"] == {
        "exc_type": "Reject",
        "exc_message": ["no use", False],
        "exc_module": "celery.exceptions",
    }
    letter = lab.dead()[task_id]
    assert letter["reason"] == "rejected: no use"
    assert letter["task"] == "proj.reject"
    assert json.loads(letter["message"])["headers"]["id"] == task_id


@pytest.mark.parametrize("code", [0, 3, "why"])
def test_system_exit_in_a_task_is_its_failure_and_ends_no_process(lab: Lab, code: Any) -> None:
    record = lab.result(lab.send("leave", code), "FAILURE")
    assert record["result"] == {"exc_type": "SystemExit", "exc_message": [code], "exc_module": "builtins"}
    assert "exited with code" not in lab.spawn.running[0].output()


def test_keyboard_interrupt_in_a_task_is_its_failure(lab: Lab) -> None:
    assert lab.result(lab.send("interrupt"), "FAILURE")["result"]["exc_type"] == "KeyboardInterrupt"


@pytest.mark.parametrize("task", ["unwritable", "too_deep"])
def test_a_result_that_json_cannot_hold_is_a_failure_and_the_worker_goes_on(lab: Lab, task: str) -> None:
    task_id = lab.send(task)
    record = lab.result(task_id, "FAILURE")
    assert record["result"]["exc_type"] == "EncodeError"
    assert record["result"]["exc_module"] == "kombu.exceptions"
    assert lab.run("add", 1, 1) == 2
    assert task_id not in lab.dead()
    assert "exited with code" not in lab.spawn.running[0].output()


def test_an_ignored_result_is_not_stored(lab: Lab) -> None:
    ids = [lab.send("silent", False), lab.send("silent", True), lab.send("add", 1, 1, ignore_result=True)]
    lab.wait_for(lambda: len(lab.written("silent")) >= 2, "both run")
    lab.wait_for(lab.is_quiet, "all are done")
    assert [lab.record(task_id) for task_id in ids] == [None, None, None]


def test_errors_are_stored_even_if_ignored_when_the_task_says_so(lab: Lab) -> None:
    good, bad = lab.send("silent_but_for_errors", False), lab.send("silent_but_for_errors", True)
    assert lab.result(bad, "FAILURE")["result"]["exc_message"] == ["somebody sees this"]
    lab.wait_for(lab.is_quiet, "all are done")
    assert lab.record(good) is None


def test_a_tracked_task_says_that_it_has_started_where_and_by_whom(lab: Lab) -> None:
    task_id = lab.send("tracked")
    lab.wait_mark("tracked", task_id)
    record = lab.record(task_id)
    assert record is not None
    assert record["status"] == "STARTED"
    assert record["date_done"] is None
    (lab.folder / f"go-{task_id}").touch()
    pid, hostname = lab.value(task_id)
    assert record["result"] == {"pid": pid, "hostname": "w@here"}
    assert hostname == "w@here"


def test_a_task_may_store_states_of_its_own(lab: Lab) -> None:
    task_id = lab.send("report")
    lab.wait_mark("halfway", task_id)
    record = lab.record(task_id)
    assert record is not None
    assert (record["status"], record["result"]) == ("HALFWAY", {"done": 1})
    (lab.folder / f"go-{task_id}").touch()
    assert lab.value(task_id) == "all"


def test_a_task_is_told_about_its_call(lab: Lab) -> None:
    task_id = lab.send("about", headers={"mine": "x"}, priority=4)
    told = lab.value(task_id)
    assert told["id"] == told["root"] == told["correlation"] == task_id
    assert (told["args"], told["kwargs"], told["retries"], told["parent"]) == ([], {}, 0, None)
    assert told["delivery"] == {"exchange": "", "routing_key": "celery", "priority": 4, "redelivered": False}
    assert (told["hostname"], told["direct"], told["eager"], told["eta"]) == ("w@here", False, False, None)
    assert told["task"] == "proj.about"
    assert told["mine"] == "x"
    assert told["headers"]["mine"] == "x"
    assert told["reply_to"]


def test_what_a_task_sends_is_its_child(lab: Lab) -> None:
    task_id = lab.send("parent")
    record = lab.result(task_id)
    child = record["result"]
    assert record["children"] == [[[child, None], None]]
    record = lab.result(child)
    assert record["parent_id"] == task_id


def test_a_failure_of_a_late_acknowledged_task_is_its_end(lab: Lab) -> None:
    task_id = lab.send("late_failure")
    lab.result(task_id, "FAILURE")
    lab.wait_for(lab.is_quiet, "its message is gone")
    assert task_id not in lab.dead()


def test_waiting_for_a_result_inside_a_task_is_an_error(lab: Lab) -> None:
    record = lab.result(lab.send("wait_for_another"), "FAILURE")
    assert record["result"]["exc_type"] == "RuntimeError"
    assert "Never call result.get() within a task" in record["result"]["exc_message"][0]


def test_many_small_tasks_all_have_their_results(lab: Lab) -> None:
    ids = [lab.send("add", number, number) for number in range(300)]
    assert [lab.value(task_id) for task_id in ids] == [2 * number for number in range(300)]
