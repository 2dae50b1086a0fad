"""A client in a process of its own: publishes, or waits for results, and prints what it took as JSON.

Runs with opsq or with Celery, so it imports nothing but the standard library and the tasks.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from bench_tasks import app, noop  # type: ignore[import-not-found]


def timed(send: Callable[[], Any]) -> dict[str, Any]:
    """Seconds and seconds of CPU of all, after a first call that connects."""
    noop.delay(0, "")
    wall, cpu = time.perf_counter(), time.process_time()
    send()
    return {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def delay(count: int, payload: str) -> dict[str, Any]:
    """`delay()` alone, one by one."""

    def send() -> None:
        for number in range(count):
            noop.delay(number, payload)

    return timed(send)


def send_many(count: int, payload: str) -> dict[str, Any]:
    """opsq's `app.send_many`."""
    return timed(lambda: app.send_many((noop, (number, payload)) for number in range(count)))


def group(count: int, payload: str) -> dict[str, Any]:
    """One group of so many tasks."""
    make = importlib.import_module(os.environ["BENCH_LIBRARY"]).group
    return timed(lambda: make([noop.s(number, payload) for number in range(count)]).apply_async())


def bare_LPUSH(count: int, payload: str) -> dict[str, Any]:
    """redis-py's `lpush` of the bytes that `delay()` writes."""
    client = importlib.import_module("redis").Redis.from_url(os.environ["BENCH_BROKER"])
    noop.delay(0, payload)
    message = client.lindex("celery", 0)

    def send() -> None:
        for _ in range(count):
            client.lpush("celery", message)

    return timed(send)


def round_trips(count: int, payload: str) -> dict[str, Any]:
    """`delay().get()` one after the other: seconds of each, and seconds of CPU of all."""
    for number in range(20):
        noop.delay(number, payload).get(timeout=20)
    seconds = []
    cpu = time.process_time()
    for number in range(count):
        begin = time.perf_counter()
        if noop.delay(number, payload).get(timeout=20) != number:
            raise SystemExit("a wrong result")
        seconds.append(time.perf_counter() - begin)
    return {"each": seconds, "cpu_s": time.process_time() - cpu}


if __name__ == "__main__":
    ways = (delay, send_many, group, bare_LPUSH, round_trips)
    todo = {way.__name__: way for way in ways}[sys.argv[1]]
    print(json.dumps(todo(int(sys.argv[2]), "x" * int(sys.argv[3]))))
