"""`autoretry_for` and its kin: a task whose code raises certain errors is retried by itself."""

from __future__ import annotations

import functools
import inspect
import random
from typing import Any

from opsq.exceptions import Ignore, Retry

_OPTIONS: dict[str, Any] = {
    "autoretry_for": (),
    "dont_autoretry_for": (),
    "retry_kwargs": {},
    "retry_backoff": False,
    "retry_backoff_max": 600,
    "retry_jitter": True,
}


def add_autoretry(task: Any) -> None:
    """Wrap the task's `run`, if it says which errors are to be retried."""
    wanted = {name: getattr(task, name, default) for name, default in _OPTIONS.items()}
    errors, never = tuple(wanted["autoretry_for"]), tuple(wanted["dont_autoretry_for"])
    if not errors or hasattr(task.run, "__retried__"):
        return
    run = task.run

    def again(error: BaseException) -> BaseException:
        how = dict(wanted["retry_kwargs"])
        if wanted["retry_backoff"]:
            how["countdown"] = _backoff(task.request.retries, wanted)
        retry: BaseException = task.retry(exc=error, **how)
        return retry

    @functools.wraps(run)
    def retried(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except (Ignore, Retry, *never):
            raise
        except errors as error:
            raise again(error) from error

    @functools.wraps(run)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run(*args, **kwargs)
        except (Ignore, Retry, *never):
            raise
        except errors as error:
            raise again(error) from error

    if inspect.iscoroutinefunction(run):
        retried = awaited
    retried.__retried__ = run  # type: ignore[attr-defined]
    task.run = retried


def _backoff(retries: int, wanted: dict[str, Any]) -> float:
    """Seconds until the next try: doubled each time up to the maximum, with full jitter if wanted."""
    factor = int(max(1.0, float(wanted["retry_backoff"])))
    seconds = min(int(wanted["retry_backoff_max"]), factor * 2**retries)
    return max(0, random.randrange(seconds + 1) if wanted["retry_jitter"] else seconds)
