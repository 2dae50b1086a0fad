"""What came of messages by the minute, as charts and tables show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from opsq.broker import stats

#: Minutes that the charts show.
CHART_MINUTES = 60
#: Outcomes that count as done well; all others but retries count as gone wrong.
_DONE_WELL = ("succeeded", "ignored")
_RETRIED = "retried"


def rate(minutes: Sequence[stats.Minute]) -> float:
    """Messages that ended in a second, over the last minute that is whole."""
    return sum(minutes[-2].counts.values()) / 60 if len(minutes) > 1 else 0.0


def summed(series: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Minutes of several queues as one series: done well, retried, gone wrong, and the time that tasks took."""
    found: dict[int, Counter[str]] = {}
    for minutes in series:
        for minute in minutes:
            counts = found.setdefault(minute["unix_minute"], Counter())
            counts["runtime_s"] += minute["runtime_s"]
            for state, count in minute["counts"].items():
                kind = "ok" if state in _DONE_WELL else "retried" if state == _RETRIED else "failed"
                counts[kind] += count
    return [
        {"unix_minute": minute, **{kind: found[minute][kind] for kind in ("ok", "retried", "failed", "runtime_s")}}
        for minute in sorted(found)
    ][-CHART_MINUTES:]
