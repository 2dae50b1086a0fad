"""opsq's own small app: what a worker runs when no app is named, so that a bare installation can be tried."""

from __future__ import annotations

import time

from opsq.app.base import App

app = App("opsq", set_as_current=False)
app.home = None


@app.task(name="opsq.ping", shared=False)
def ping() -> str:
    """Answer "pong"."""
    return "pong"


@app.task(name="opsq.sleep", shared=False)
def sleep(seconds: float = 1.0) -> float:
    """Take some time, then return how much."""
    time.sleep(seconds)
    return seconds
