"""The tasks of the project that `guide_project` writes; LIBRARY is celery or opsq."""

from __future__ import annotations

TASKS = '''
import copy
import io
import json
import os
import pickle
import re
import time
from datetime import datetime, timezone

from LIBRARY import (
    signals,
    Celery,
    Task,
    chain,
    chord,
    chunks,
    current_task,
    group,
    shared_task,
    signature,
    subtask,
    xmap,
    xstarmap,
)
from LIBRARY.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from LIBRARY.result import AsyncResult, GroupResult, ResultSet, allow_join_result
from LIBRARY.schedules import crontab, schedule

PATIENCE_S = 30
app = Celery("guide", broker=os.environ["PROJ_BROKER"], backend=os.environ["PROJ_BACKEND"])
app.conf.update(broker_connection_retry_on_startup=True, result_extended=True)


@app.task(name="p.add")
def add(x, y):
    return x + y


@app.task(name="p.xsum")
def xsum(numbers):
    return sum(numbers)


@app.task(name="p.tell", bind=True)
def tell(self, *args, **kwargs):
    return [list(args), kwargs]


@app.task(name="p.fail")
def fail(*args):
    raise ValueError("bad", 3)


@app.task
def noop(*args, **kwargs):
    pass


@app.task
def errback(request, exc, traceback, path):
    with open(path, "a") as file:
        call = f"{request.task}{list(request.args)}{request.kwargs}"
        file.write(f"{call} {exc!r} {type(traceback).__name__}\\n")


@app.task(bind=True)
def request_of(self, x, y):
    request = self.request
    names = (
        "id group chord correlation_id args kwargs retries is_eager eta expires loglevel delivery_info called_directly "
        "timelimit callbacks errbacks utc headers chain root_id parent_id replaced_task_nesting shadow lang "
        "ignore_result stamps stamped_headers group_index argsrepr kwargsrepr task compression"
    )
    told = {name: repr(getattr(request, name, "absent")) for name in names.split()}
    told["delivery_info"] = sorted(request.delivery_info.items())
    told["properties"] = sorted(request.__dict__["properties"])
    again = {**request.as_execution_options(), "origin": None, "reply_to": None}
    told["again"] = sorted(again.items(), key=str)
    wanted = "args callbacks chain chord correlation_id delivery_info errbacks headers id is_eager kwargs root_id task"
    told["in the dictionary"] = [name for name in wanted.split() if name in request.__dict__]
    return told


@app.task(bind=True)
def again(self, x):
    same = self.signature_from_request(args=(x + 1,), retries=3, queue="elsewhere")
    options = {name: value for name, value in same.options.items() if value is not None}
    told = ("group_index", "headers", "tint", "queue", "retries", "shadow", "soft_time_limit", "stamped_headers")
    return [same.args, same.id == self.request.id, [[name, options.get(name)] for name in (*told, "time_limit")]]


@app.task(bind=True)
def headers_of(self):
    return [self.request.headers, self.request.my_header, self.request.get("my_header"), self.request.get("no", 5)]


@app.task(bind=True, default_retry_delay=0.01, max_retries=2)
def retries_with_error(self, x):
    raise self.retry(exc=KeyError(x))


@app.task(bind=True, default_retry_delay=0.01, max_retries=1)
def retries_plainly(self, x):
    self.retry()


@app.task(bind=True)
def retries_with_others(self, x):
    if x < 2:
        raise self.retry(args=(x + 1,), countdown=0)
    return [x, self.request.retries]


@app.task(bind=True)
def retries_silently(self):
    if self.request.retries:
        return "second"
    return type(self.retry(countdown=0, throw=False)).__name__


@app.task(autoretry_for=(ZeroDivisionError,), retry_kwargs={"max_retries": 2, "countdown": 0})
def retries_by_itself(x):
    return 1 / x


@app.task(autoretry_for=(Exception,), dont_autoretry_for=(KeyError,), retry_backoff=True, max_retries=1)
def retries_not(x):
    raise KeyError(x)


@app.task(bind=True)
def ignores_itself(self):
    self.update_state(state="CUSTOM", meta={"a": 1})
    raise Ignore()


@app.task(bind=True)
def rejects(self):
    raise Reject("no", requeue=False)


class Told(Task):
    """Writes down which of its handlers were called."""

    def note(self, kwargs, *words):
        with open(kwargs["path"], "a") as file:
            file.write(" ".join(map(str, words)) + "\\n")

    def before_start(self, task_id, args, kwargs):
        self.note(kwargs, "before_start", args)

    def on_success(self, retval, task_id, args, kwargs):
        self.note(kwargs, "on_success", retval, args)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        last = einfo.traceback.splitlines()[-1]
        self.note(kwargs, "on_failure", repr(exc), args, type(einfo).__name__, einfo.type, last)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.note(kwargs, "on_retry", repr(exc), args, str(einfo).splitlines()[-1].partition(".")[2])

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self.note(kwargs, "after_return", status, repr(retval), args)


@app.task(base=Told, bind=True, max_retries=1)
def handled(self, how, path):
    if how == "fail":
        raise ValueError("x")
    if how == "retry" and not self.request.retries:
        raise self.retry(exc=ValueError("r"), countdown=0)
    return how


@app.task
def with_cause():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise RuntimeError("outer") from error


@app.task(bind=True)
def sends(self, count):
    for number in range(count):
        add.delay(number, number)
    return count


@app.task(bind=True)
def sends_a_group(self, count):
    group(add.s(number, number) for number in range(count)).delay()
    return count


@app.task(bind=True, trail=False)
def sends_without_trail(self):
    add.delay(1, 1)


@app.task(bind=True)
def becomes(self, *args):
    raise self.replace(add.si(*args[-2:]))


@app.task(bind=True)
def becomes_a_chain(self, x):
    raise self.replace(chain(add.s(x, 1), add.s(1)))


@app.task(bind=True)
def becomes_a_group(self, x):
    raise self.replace(group(add.s(x, 1), add.s(x, 2)))


@app.task(bind=True)
def becomes_a_chord(self, x):
    raise self.replace(chord([add.s(x, 1), add.s(x, 2)], xsum.s()))


@app.task(bind=True)
def becomes_itself(self, times):
    if times:
        raise self.replace(becomes_itself.s(times - 1))
    return self.request.replaced_task_nesting


@app.task(bind=True)
def grows(self, count):
    for number in range(count):
        self.add_to_chord(add.s(number, 1))
    return 100


@app.task(bind=True)
def grows_later(self):
    self.add_to_chord(add.si(7, 1), lazy=True).delay()
    return 100


@app.task
def waits():
    try:
        return add.delay(1, 1).get(timeout=PATIENCE_S)
    except RuntimeError as error:
        return str(error)[:38]


@app.task
def waits_allowed():
    with allow_join_result():
        return add.delay(1, 1).get(timeout=PATIENCE_S)


@app.task
def waits_said():
    return add.delay(1, 1).get(timeout=PATIENCE_S, disable_sync_subtasks=False)


@app.task(bind=True)
def ends_its_chain(self, x):
    self.request.chain = None
    return x


@app.task(ignore_result=True)
def without_result():
    return 1


@app.task(ignore_result=True, store_errors_even_if_ignored=True)
def without_result_but_errors():
    raise ValueError("kept")


@app.task(typing=False)
def untyped(x):
    return x


@app.task
def current():
    return [current_task.name, current_task.request.called_directly, add(1, 2), add.request.called_directly]


@app.task(bind=True)
def stamps_of(self, *args):
    return [self.request.stamped_headers, self.request.stamps]


@shared_task
def shared(x):
    return x + 1
'''
