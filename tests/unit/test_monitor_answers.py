"""What the monitor writes: metrics for Prometheus, JSON for everybody, charts; and what addresses mean."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from opsq.exceptions import UsageError
from opsq.monitor import api, charts, metrics
from opsq.monitor.actions import call_of
from opsq.monitor.metrics import Family
from opsq.monitor.query import Query, limit


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")), st.floats(0, 1e12))
def test_any_name_is_a_label_that_prometheus_reads(name: str, value: float) -> None:
    lines = metrics._family(Family("opsq_x", "gauge", "Help."), [({"name": name}, value)])
    [family] = text_string_to_metric_families("\n".join(lines) + "\n")
    [sample] = family.samples
    assert sample.labels == {"name": name}
    assert sample.value == pytest.approx(value)


def test_json_has_no_numbers_that_json_does_not_have() -> None:
    told = json.loads(api.encode({"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": 1.5, "e": object}))
    assert told == {"a": None, "b": [None, {"c": None}], "d": 1.5, "e": str(object)}


def test_a_value_without_end_is_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert b"\\u2026" in api.encode(endless)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e9)), max_size=80), st.text(max_size=20))
def test_charts_are_escaped_and_stay_in_their_frame(values: list[float | None], title: str) -> None:
    drawn = str(charts.line(values, f"<script>{title}"))
    assert "<script>" not in drawn
    assert "nan" not in drawn
    assert drawn.count("<svg") == drawn.count("</svg>") == 1


def test_bars_say_in_words_what_they_show() -> None:
    drawn = str(charts.bars([(3, 1, 0), (0, 0, 2)], ("ok", "retried", "failed"), "6 ended", width=100, height=20))
    assert drawn.count("<rect") == 3
    assert 'aria-label="6 ended"' in drawn


@pytest.mark.parametrize("values", [{"state": "DONE"}, {"since": "yesterday"}])
def test_an_address_that_makes_no_sense_is_a_mistake(values: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Query.of(values)


def test_an_address_is_bounded() -> None:
    assert len(Query.of({"q": "x" * 9999}).q) == 300
    assert limit({"limit": "999999999"}) == 1000
    with pytest.raises(UsageError):
        limit({"limit": "-1"})


def test_a_link_keeps_what_is_asked_for() -> None:
    query = Query.of({"q": "a&b", "state": "failure", "before": "1.5:x"})
    assert query.link(before="") == "?q=a%26b&state=failure"


def _told(args: str, kwargs: str = "{}", **more: Any) -> dict[str, Any]:
    return {"name": "proj.add", "args": args, "kwargs": kwargs, "stored": None, **more}


def test_a_call_is_known_from_what_was_written_of_it() -> None:
    assert call_of(_told("(1, 'x', None, [2.5])", "{'k': True}")) == ([1, "x", None, [2.5]], {"k": True})
    stored = {"args": [1], "kwargs": {"a": "…"}}
    assert call_of(_told("(...)", stored=stored)) == ([1], {"a": "…"})


@pytest.mark.parametrize(
    "told",
    [
        _told("(1, 'xxx...", "{}"),
        _told("(<object at 0x7f>,)"),
        _told("(datetime.datetime(2026, 1, 1),)"),
        _told("({1, 2},)"),
        _told("(b'x',)"),
        _told("[...]"),
        _told("(1,)", "'x'"),
        _told("(1, 2)  "),
        _told("(" * 5000),
        _told(""),
        _told("(1,)", name=""),
    ],
)
def test_a_call_that_is_not_known_exactly_is_not_sent_again(told: dict[str, Any]) -> None:
    assert call_of(told) is None
