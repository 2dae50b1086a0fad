"""The pages: HTML from templates, everything in them escaped, complete without JavaScript."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from opsq import states
from opsq.monitor import actions, charts
from opsq.monitor.facts import Facts
from opsq.monitor.minutes import CHART_MINUTES
from opsq.monitor.query import PAGE_SIZE, Query
from opsq.utils.time import humanize_duration

#: Most characters of a value that are shown.
_SHOWN = 20_000
_NOTHING = "\u2013"
#: What was done, in words.
SAID: Mapping[str, str] = {
    "requeued": "Back in its queue.",
    "dropped": "Dropped.",
    "sent": "Sent again, as this new task.",
    "paused": "Paused: nothing more is taken from the queue.",
    "resumed": "Resumed.",
}
STATE_FILTERS = ("STARTED", "RECEIVED", "SUCCESS", "FAILURE", "RETRY", "REVOKED", "REJECTED")


def environment(base: str) -> Environment:
    """The templates; `base`: the path that stands before every link."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        duration=_duration,
        ago=_ago,
        roughly=_roughly,
        age=_age,
        iso=_iso,
        clock=_clock,
        count=_count,
        size=_size,
        value=_value,
        segment=_segment,
    )
    made.globals.update(base=base, chart=charts.line, SAID=SAID)
    return made


def overview(facts: Facts) -> dict[str, Any]:
    """What runs, what waits, what ended."""
    told = facts.overview()
    minutes = told["minutes"]
    stacks = [(each["ok"], each["retried"], each["failed"]) for each in minutes]
    whole = minutes[-2] if len(minutes) > 1 else {"ok": 0, "retried": 0, "failed": 0}
    done = sum(sum(stack) for stack in stacks)
    failed = sum(stack[2] for stack in stacks)
    words = f"Tasks ended in each of the last {CHART_MINUTES} minutes: {done} in all, {failed} failed"
    for queue in told["queues"]:
        counts = [sum(minute["counts"].values()) for minute in queue["minutes"]]
        queue["rate_chart"] = charts.line(counts, f"ended in each of the last {CHART_MINUTES} minutes: {sum(counts)}")
        ages = [each["oldest"] for each in queue["depths"]]
        words_of_age = "age of the first message, noted in the last hour"
        queue["age_chart"] = charts.line([*ages, queue["oldest"]], words_of_age)
        depths = [each["waiting"] for each in queue["depths"]]
        words_of = f"waiting, noted in the last hour, now {queue['waiting']}"
        queue["depth_chart"] = charts.line([*depths, queue["waiting"]], words_of)
    return {
        **told,
        "chart": charts.bars(stacks, ("ok", "retried", "failed"), words, width=600, height=72),
        "rate": (whole["ok"] + whole["retried"] + whole["failed"]) / 60,
        "done": done,
        "failed": failed,
        "busy": sum(worker["busy"] or 0 for worker in told["workers"] if worker["alive"]),
        "alive": sum(1 for worker in told["workers"] if worker["alive"]),
        "waiting": sum(queue["waiting"] for queue in told["queues"]),
        "dead": sum(queue["dead"] for queue in told["queues"]),
        "oldest": max((queue["oldest"] or 0 for queue in told["queues"]), default=0),
        "running": facts.running()[:20],
        "latest": facts.tasks(Query().wanted(), 10)["tasks"],
    }


def tasks(facts: Facts, query: Query) -> dict[str, Any]:
    """A page of the history."""
    page = facts.tasks(query.wanted(), PAGE_SIZE, query.before)
    older = query.link(before=page["older"]) if page["older"] else None
    newest = query.link(before="") if query.before else None
    return {
        "tasks": page["tasks"],
        "query": query,
        "older": older,
        "newest": newest,
        "filters": [("", query.link(state="", before=""))]
        + [(state, query.link(state=state, before="")) for state in STATE_FILTERS],
        "queues": facts.queue_names(),
    }


def task(told: Mapping[str, Any]) -> dict[str, Any]:
    """One task."""
    return {
        "task": told,
        "again": told["state"] not in (states.RECEIVED, states.STARTED) and actions.call_of(told) is not None,
        "chain": [link for link in told["chain"] if len(told["chain"]) > 1],
    }


def hosts(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The hosts; what each says of itself may be anything."""
    rows = []
    for host in found:
        facts = host["facts"]
        slots, free = facts.get("slots"), facts.get("free")
        rows.append(
            {
                **host,
                "texts": {name: _short(facts.get(name)) for name in ("system", "version", "refusing", "load", "cpus")},
                "tags": [_short(tag) for tag in facts["tags"]] if isinstance(facts.get("tags"), list) else [],
                "busy": f"{slots - free} of {slots}" if isinstance(slots, int) and isinstance(free, int) else _NOTHING,
            }
        )
    return {"hosts": rows}


def _short(value: Any) -> str:
    return "" if value in (None, "") else _value(value)[:200]


# -- filters -----------------------------------------------------------------------------------------------------------


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _NOTHING
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else f"{seconds * 1000:.2g} ms"
    return humanize_duration(seconds)


def _ago(unix_s: float | None) -> str:
    if not unix_s:
        return _NOTHING
    seconds = time.time() - unix_s
    if seconds < -1:
        return f"in {_roughly(-seconds)}"
    return "now" if seconds < 1 else f"{_roughly(seconds)} ago"


def _age(unix_s: float) -> str:
    return _roughly(max(time.time() - unix_s, 0.0))


def _roughly(seconds: float | None) -> str:
    """The largest unit only: seconds of what was hours ago say nothing."""
    if seconds is None:
        return _NOTHING
    return humanize_duration(int(seconds)).partition(" ")[0]


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clock(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _count(number: float | None) -> str:
    if number is None:
        return _NOTHING
    if isinstance(number, float) and number < 100 and not number.is_integer():
        return f"{number:.1f}"
    return f"{number:,.0f}".replace(",", "\u202f")


def _size(number: int | None) -> str:
    if number is None:
        return _NOTHING
    return f"{number / 1e6:.0f} MB" if number < 1e9 else f"{number / 1e9:.2f} GB"


def _value(value: Any) -> str:
    """A value of any kind, for reading."""
    if isinstance(value, str):
        return value[:_SHOWN]
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=repr)
    except (ValueError, RecursionError, TypeError):
        text = "(it cannot be shown)"
    return text[:_SHOWN]


def _segment(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="", errors="replace")


def link(path: str, **values: str) -> str:
    """A path with a query, without what is empty."""
    found = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(found)}" if found else path
