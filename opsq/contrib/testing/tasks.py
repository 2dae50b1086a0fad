"""The task that a worker is tried with."""

from __future__ import annotations

from opsq.app.registry import shared_task


@shared_task(name="celery.ping")
def ping() -> str:
    """Answer."""
    return "pong"
