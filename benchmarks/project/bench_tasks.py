"""The tasks of the benchmarks, the same for opsq and for Celery: only the import differs, as in any program."""

from __future__ import annotations

import asyncio
import importlib
import os
import time

Celery = importlib.import_module(os.environ["BENCH_LIBRARY"]).Celery

# An app that names its broker and no backend keeps no results, in both.
app = Celery("bench_tasks", broker=os.environ["BENCH_BROKER"], backend=os.environ.get("BENCH_BACKEND"))


@app.task
def noop(number, payload):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Nothing but a small result."""
    return number


@app.task
def spin(seconds):  # type: ignore[no-untyped-def]
    """Some work: takes so much CPU."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@app.task
def mark(name, seconds):  # type: ignore[no-untyped-def]
    """Write down when it began (Unix seconds); then take so long."""
    line = f"{name} {time.time()}\n".encode()
    descriptor = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line)
    os.close(descriptor)
    time.sleep(seconds)


@app.task
async def async_noop(number, payload):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Nothing but a small result."""
    return number


@app.task
async def async_mark(name, seconds):  # type: ignore[no-untyped-def]
    """Write down when it began (Unix seconds); then sleep so long."""
    line = f"{name} {time.time()}\n".encode()
    descriptor = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line)
    os.close(descriptor)
    await asyncio.sleep(seconds)
