"""`app.add_periodic_task`: a call and when it is due, as an entry of `beat_schedule`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What an entry says beside Celery's keys, and so is no option of `apply_async`.
_OWN_KEYS = ("jitter", "overlap", "missed", "missed_limit", "missed_age")


def entry_of(
    schedule: Any, sig: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str | None, options: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Name and entry. Without a name it is the call as a text, so that the same call has one entry."""
    if isinstance(sig, str):
        task, own_args, own_kwargs, own_options = sig, (), {}, {}
    elif isinstance(sig, Mapping):  # a signature, or one as plain data
        task, own_args = sig["task"], tuple(sig.get("args") or ())
        own_kwargs, own_options = dict(sig.get("kwargs") or {}), dict(sig.get("options") or {})
    else:
        task, own_args, own_kwargs, own_options = sig.name, (), {}, {}
    entry = {
        "schedule": schedule,
        "task": task,
        "args": (*args, *own_args),
        "kwargs": {**own_kwargs, **kwargs},
        **{key: options.pop(key) for key in _OWN_KEYS if key in options},
        "options": {**own_options, **options},
    }
    return name or _call_as_text(entry), entry


def _call_as_text(entry: Mapping[str, Any]) -> str:
    words = [*map(repr, entry["args"]), *(f"{key}={value!r}" for key, value in entry["kwargs"].items())]
    return f"{entry['task']}({', '.join(words)})"
