"""Workflows written once for Celery and once for opsq: only the import differs. Parts go to two queues in turn."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
import itertools
import os
import time

import LIBRARY
from LIBRARY import Celery, chain, chord, chunks, group, signature
from LIBRARY.result import GroupResult

PATIENCE_S = 30
app = Celery("flows", broker=os.environ["PROJ_BROKER"], backend=os.environ["PROJ_BACKEND"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
app.conf.accept_content = ["json", "msgpack", "yaml", "pickle"]
app.conf.task_allow_error_cb_on_chord_header = False


@app.task
def add(x, y):
    return x + y


@app.task
def total(values):
    return sum(values)


@app.task
def echo(value):
    return value


@app.task
def fail(*_values):
    raise ValueError("no", 42)


@app.task
def write(value, path):
    with open(path, "a") as file:
        file.write(f"{value}\\n")
    return value


@app.task
def write_error(request, exc, traceback, path):
    with open(path, "a") as file:
        file.write(f"{request.id} {type(exc).__name__}\\n")


@app.task
def version():
    return "LIBRARY " + LIBRARY.__version__


@app.task
def give(*args, **kwargs):
    return [list(args), kwargs]


@app.task(bind=True, max_retries=2)
def flaky(self, times):
    if self.request.retries < times:
        raise self.retry(exc=ValueError("not yet", times), countdown=0)
    return self.request.retries


@app.task
def now():
    return time.time()


@app.task(bind=True)
def become(self, x, y):
    raise self.replace(add.s(x, y).set(queue=self.request.delivery_info["routing_key"]))


@app.task(bind=True)
def become_group(self, count):
    raise self.replace(group(add.s(number, 1) for number in range(count)))


@app.task(bind=True)
def grow(self, count):
    for number in range(count):
        self.add_to_chord(add.si(number, 100))
    return 0


@app.task(bind=True)
def tell(self, *_args):
    request = self.request
    return {
        "stamps": request.stamps, "stamped": sorted(request.stamped_headers or ()), "root": request.root_id,
        "parent": request.parent_id, "id": request.id, "nesting": request.replaced_task_nesting,
    }


turn = itertools.cycle(["a", "b"])


def here(task, *args, **options):
    """A call whose queue is the next one in turn."""
    return task.s(*args).set(queue=next(turn), **options)


def only(*queues):
    """From now on the next calls go to these queues in turn."""
    global turn
    turn = itertools.cycle(queues)


def long_chain(steps):
    return chain([here(add, 0, 1)] + [here(add, 1) for _ in range(steps - 1)]).delay().get(timeout=PATIENCE_S)


def parents():
    result = chain(here(add, 1, 1), here(add, 1), here(add, 1)).delay()
    values = [result.get(timeout=PATIENCE_S)]
    while result.parent is not None:
        result = result.parent
        values.append(result.get(timeout=PATIENCE_S))
    return values


def group_values(count):
    return group(here(add, number, number) for number in range(count)).delay().get(timeout=PATIENCE_S)


def chord_value(count):
    return chord([here(add, number, number) for number in range(count)])(here(total)).get(timeout=PATIENCE_S)


def in_a_chain():
    flow = chain(
        here(add, 1, 1),
        group(here(add, 1), chain(here(add, 2), here(add, 3))),
        here(total),
        group(here(add, 0), here(add, 1)),
        here(total),
        here(add, 1000),
    )
    return flow.delay().get(timeout=PATIENCE_S)


def nested():
    inner = chord([here(add, 1, 1), here(add, 2, 2)], here(total))
    first = chord([here(add, 5, 5), inner], here(echo)).delay().get(timeout=PATIENCE_S)
    to_group = chain(here(add, 1, 1), group(here(add, 1), here(add, 2)))
    second = chord([to_group, here(add, 0, 0)], here(echo)).delay().get(timeout=PATIENCE_S)
    third = chord([here(add, 1, 1), here(add, 2, 2)], group(here(total), here(echo))).delay().get(timeout=PATIENCE_S)
    return [first, second, third]


def empty():
    return chord([])(here(echo)).get(timeout=PATIENCE_S)


def maps():
    parts = add.chunks(list(zip(range(5), range(5))), 2)
    return [
        total.map([[1, 2], [3, 4]]).set(queue=next(turn)).delay().get(timeout=PATIENCE_S),
        add.starmap([(1, 2), (3, 4)]).set(queue=next(turn)).delay().get(timeout=PATIENCE_S),
        parts.group().set(queue=next(turn)).delay().get(timeout=PATIENCE_S),
    ]


def links(path):
    first = here(add, 1, 2)
    first.link(here(write, path))
    first.link(here(write, path))
    result = first.delay()
    value = result.get(timeout=PATIENCE_S)
    grown = [child for node in result.children for child in (getattr(node, "results", None) or [node]) if child]
    return [value, sorted(child.get(timeout=PATIENCE_S) for child in grown)]


def errbacks(path):
    result = here(fail).on_error(here(write, path)).on_error(write_error.s(path)).delay()
    try:
        result.get(timeout=PATIENCE_S)
    except ValueError as error:
        return [result.id, list(error.args)]


def told(path):
    """An errback of the kind that is called with the error."""
    result = here(fail).on_error(write_error.s(path)).delay()
    try:
        result.get(timeout=PATIENCE_S)
    except ValueError:
        return result.id


def failed_chord(path):
    body = here(total)
    body.link_error(here(write, path))
    result = chord([here(add, 1, 1), here(fail), here(add, 2, 2)], body).delay()
    result.parent = None
    try:
        result.get(timeout=PATIENCE_S)
    except Exception as error:
        return [result.id, type(error).__name__, str(error)]


def failed_chain():
    result = chain(here(fail), here(add, 1), here(add, 1)).delay()
    states = []
    result.parent = None
    try:
        result.get(timeout=PATIENCE_S)
    except Exception as error:
        return [type(error).__name__, result.state]


def replaced():
    return [
        here(become, 2, 3).delay().get(timeout=PATIENCE_S),
        chain(here(become, 2, 3), here(add, 10)).delay().get(timeout=PATIENCE_S),
        chord([here(become, 1, 1), here(add, 2, 2)], here(total)).delay().get(timeout=PATIENCE_S),
        chain(here(become_group, 3), here(total)).delay().get(timeout=PATIENCE_S),
    ]


def grown():
    return chord([here(grow, 3), here(add, 1, 1)], here(total)).delay().get(timeout=PATIENCE_S)


def later():
    """What follows comes later, and on the other queue than the step before it."""
    flows = []
    for one, other in (("a", "b"), ("b", "a")):
        flows.append(chain(add.s(1, 1).set(queue=one), add.s(1).set(queue=other, countdown=0.5)))
        header = [add.s(1, 1).set(queue=one), add.s(2, 2).set(queue=one)]
        flows.append(chord(header, total.s().set(queue=other, countdown=0.5)))
    return [result.get(timeout=PATIENCE_S) for result in [flow.delay() for flow in flows]]


def stamped():
    flow = chain(here(tell), here(tell))
    flow.stamp(customer="acme")
    result = flow.delay()
    return [result.get(timeout=PATIENCE_S), result.parent.get(timeout=PATIENCE_S)]


def many_chords(count, path):
    results = [chord([here(add, n, 0), here(add, n, 0), here(add, n, 0)], here(write, path)).delay()
               for n in range(count)]
    return [result.get(timeout=PATIENCE_S) for result in results]


def send_group(count):
    result = group(here(add, number, number) for number in range(count)).delay()
    result.save()
    return result.id


def read_group(group_id):
    return GroupResult.restore(group_id, app=app).get(timeout=PATIENCE_S)


def by_protocol_1(queue):
    """As programs with `task_protocol = 1` send; of Celery's clients only."""
    today, app.amqp.create_task_message = app.amqp.create_task_message, app.amqp.as_task_v1
    app.conf.task_protocol = 1
    try:
        kinds = [(serializer, name) for serializer in ("json", "msgpack", "yaml") for name in (None, "zlib")]
        sent = [give.apply_async(("é",), {"k": 1}, queue=queue, serializer=s, compression=c) for s, c in kinds]
        sent += [flaky.apply_async((2,), queue=queue), add.apply_async((1, 2), queue=queue, countdown=0.3)]
        sent += [group(add.s(n, 1).set(queue=queue) for n in range(3)).apply_async()]
        sent += [chain(add.s(1, 1).set(queue=queue), add.s(2).set(queue=queue)).apply_async()]
        failed = flaky.apply_async((9,), queue=queue)
        values = [result.get(timeout=30) for result in sent]
        return [*values, type(failed.get(timeout=30, propagate=False)).__name__]
    finally:
        app.amqp.create_task_message, app.conf.task_protocol = today, 2


def from_json(text):
    import json
    return signature(json.loads(text), app=app).delay().get(timeout=PATIENCE_S)


def to_json():
    import json
    flow = chain(here(add, 1, 1), group(here(add, 1), here(add, 2)), here(total))
    return json.dumps(flow)
'''


def write(folder: Path, library: str) -> Path:
    """The workflows in a folder: `flows.py`, importing `celery` or `opsq`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flows.py").write_text(SOURCE.replace("LIBRARY", library))
    (folder / "proj.py").write_text("from flows import *\n\nOdd = ValueError\n")
    return folder
