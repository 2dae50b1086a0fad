"""The limit: one process, the same script, nothing else around the task. `python -m benchmarks.bare_loop URL RESULTS`.

It decodes the message and its body, calls the function, writes the result, and asks for the next batch before it runs
this one. No gate, no slots, no request, no signals, no limits, no thread.
"""

from __future__ import annotations

import binascii
import sys
from typing import Any

import msgspec

from opsq.broker.consumer import Consumer, Settlement
from opsq.datastore import keys

BATCH = 128


class Headers(msgspec.Struct):
    """What the loop needs of the headers."""

    id: str
    task: str


class Message(msgspec.Struct):
    """What the loop needs of the message."""

    body: str
    headers: Headers


decode = msgspec.json.Decoder(Message).decode
decode_body = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], dict[str, Any]]).decode
encode = msgspec.json.Encoder().encode


def run(raw: bytes, number: int, queue: int, results: bool) -> Settlement:
    """One message."""
    message = decode(raw)
    args, kwargs, _embed = decode_body(binascii.a2b_base64(message.body))
    value = noop(*args, **kwargs)
    if not results:
        return Settlement(queue, number)
    task_id = message.headers.id
    record = {"status": "SUCCESS", "result": value, "traceback": None, "children": [], "task_id": task_id}
    return Settlement(queue, number, ("R", keys.result(task_id), 86_400, encode(record)), 1)


def noop(number: int, payload: str = "") -> int:
    """The task."""
    del payload
    return number


def main(url: str, results: str) -> None:
    """Drain the queue as it comes, until nothing is left."""
    name = "bare@loop:00000000:0"
    consumer = Consumer(url, ["celery"], name, results_db=None if results == "off" else int(results))
    consumer.connect()
    consumer.script(_REGISTER, [keys.consumers("celery")], [name])
    print("ready", flush=True)
    sys.stdin.readline()
    turn = consumer.turn((), BATCH)
    settlements: list[Settlement] = []
    while turn.leased:
        consumer.send(settlements, BATCH)
        settlements = []
        for leased in turn.leased:
            for offset, raw in enumerate(leased.messages):
                settlements.append(run(raw, leased.number + offset, leased.queue, results != "off"))
        turn = consumer.receive()
    consumer.turn(settlements, 0)
    consumer.close()


class _Register:
    text = "return redis.call('ZADD', KEYS[1], '9e15', ARGV[1])"


_REGISTER: Any = _Register()

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
