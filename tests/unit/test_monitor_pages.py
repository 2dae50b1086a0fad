"""Pages of what others wrote: hosts may say anything of themselves, and a page still comes, with all of it escaped."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.monitor import pages

COMMON: dict[str, Any] = {
    "title": "Page",
    "here": "",
    "pages": (),
    "said": "",
    "may_act": True,
    "read_only": "",
    "token": "t",
    "monitor": None,
}
TEMPLATES = pages.environment("/ops")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just("<script>") | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FACTS = st.dictionaries(
    st.sampled_from(["system", "version", "tags", "slots", "free", "load", "cpus", "refusing", "os"]), ANYTHING
)


def rendered(name: str, **values: Any) -> str:
    return TEMPLATES.get_template(f"{name}.html").render(**COMMON, **values)


@given(FACTS, st.sampled_from(["present", "stopped", "silent"]))
def test_hosts_may_say_anything_of_themselves(facts: dict[str, Any], state: str) -> None:
    host = {"name": "<b>web", "state": state, "since": 1.0, "seen": None, "facts": facts}
    text = rendered("hosts", **pages.hosts([host]))
    assert "&lt;b&gt;web" in text
    assert "<script>" not in text


def test_a_schedule_shows_next_and_last_runs() -> None:
    now = time.time()
    entry = {
        "name": "nightly",
        "task": "proj.report",
        "schedule": "0 3 * * *",
        "zone": "Europe/Berlin",
        "enabled": True,
    }
    run = {"next_run": now + 7205, "last_run": now - 3605, "total_runs": 12, "last_id": "a/b"}
    text = rendered("schedule", entries=[{**entry, **run}, {**entry, **run, "enabled": False, "last_id": None}])
    assert "in 2h" in text
    assert "1h ago" in text
    assert 'href="/ops/task/a%2Fb"' in text
    assert "paused" in text


@given(ANYTHING)
def test_any_value_can_be_shown(value: Any) -> None:
    assert isinstance(pages._value(value), str)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 ms"), (0.0042, "4 ms"), (0.5, "0.5s"), (75, "1m 15s"), (None, "\u2013")]
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert pages._duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (1.25, "1.2"), (12_345, "12\u202f345"), (None, "\u2013")])
def test_counts_are_readable(number: float | None, text: str) -> None:
    assert pages._count(number) == text
