"""A client in a process of its own: publishes, or waits for results, and prints what it took as JSON.

Runs with opsq or with Celery, so it imports nothing but the standard library and the tasks.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from bench_tasks import noop  # type: ignore[import-not-found]


def publish(count: int, payload: str) -> dict[str, Any]:
    """`delay()` alone: seconds and seconds of CPU of all."""
    noop.delay(0, payload)
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(count):
        noop.delay(number, payload)
    return {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


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
    todo = {"publish": publish, "round_trips": round_trips}[sys.argv[1]]
    print(json.dumps(todo(int(sys.argv[2]), "x" * int(sys.argv[3]))))
