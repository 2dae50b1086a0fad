"""The least that a worker could do with opsq's scripts: read, call, settle; the next turn is sent before a batch runs.

The measure for the installed worker: what that costs more is the price of the runner with its guarantees (leases,
slots, stall thread, time limits, handlers, signals, requests, logs). Ends by SIGTERM.

    python -m benchmarks.bare_loop BROKER_URL [RESULTS_URL]
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from opsq.broker.consumer import Consumer, Leased
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.datastore.connection import client, parse_url

QUEUE = "celery"
#: Messages of a turn; more bring nothing.
BATCH = 128
RESULT_TTL_S = 86_400


class _Headers(msgspec.Struct):
    id: str
    task: str


class _Message(msgspec.Struct):
    body: str
    headers: _Headers


_read = msgspec.json.Decoder(_Message).decode
_read_body = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], dict[str, Any]]).decode
_write = msgspec.json.Encoder().encode


def noop(number: int, payload: str) -> int:  # noqa: ARG001 (the task's signature)
    """The task."""
    return number


TASKS: dict[str, Callable[..., Any]] = {"bench_tasks.noop": noop}


def run(leased: Leased, results: bool) -> list[Settlement]:
    """Run what was leased; what is to be settled."""
    finished = []
    number = leased.number
    done = datetime.now(UTC).isoformat()
    for raw in leased.messages:
        message = _read(raw)
        args, kwargs, _embed = _read_body(base64.b64decode(message.body))
        value = TASKS[message.headers.task](*args, **kwargs)
        if results:
            task_id = message.headers.id
            meta = {"status": "SUCCESS", "result": value, "traceback": None, "children": [], "date_done": done}
            record = _write({**meta, "task_id": task_id})
            finished.append(Settlement(0, number, ("R", keys.result(task_id), RESULT_TTL_S, record), 1))
        else:
            finished.append(Settlement(0, number))
        number += 1
    return finished


def work(consumer: Consumer, results: bool) -> None:
    """Until ended."""
    while True:
        turn = consumer.turn((), BATCH, armed=True)
        while not turn.leased:
            consumer.readable(3600)
            consumer.read_notices()
            turn = consumer.turn((), BATCH, armed=True)
        finished: list[Settlement] = []
        while turn.leased or finished:
            consumer.send(finished, BATCH)
            finished = [settlement for leased in turn.leased for settlement in run(leased, results)]
            turn = consumer.receive()


def main() -> None:
    """Work on the queue of the benchmarks."""
    broker, backend = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    name = "bare@localhost:00000000:0"
    client(broker).zadd(keys.consumers(QUEUE), {name: int((time.time() + 86_400) * 1000)})
    database = parse_url(backend).db if backend else None
    consumer = Consumer(broker, [QUEUE], name, results_db=database)
    consumer.connect(track=True)
    work(consumer, database is not None)


if __name__ == "__main__":
    main()
