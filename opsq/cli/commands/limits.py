"""`opsq limits`: rates, concurrency limits and circuit breakers: how they stand, and what waits for them."""

from __future__ import annotations

from typing import Any

from opsq.broker import limited as store
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import Column
from opsq.cli.params import limit_option, limited
from opsq.utils.time import humanize_duration

COLUMNS = (
    Column("name", "LIMIT", cut="start"),
    Column("kind", "OF", extra=True),
    Column("rate_text", "RATE"),
    Column("places", "RUNNING"),
    Column("circuit_text", "CIRCUIT"),
    Column("waiting", "WAITING", "number"),
    Column("lanes", "LANES", "number", extra=True),
    Column("keys", "BY", cut="end", extra=True),
)

EXAMPLES = """
opsq limits
opsq limits --json
"""


@command(EXAMPLES)
@limit_option
@pass_context
def limits(context: Context, limit: int) -> None:
    """What tasks and queues are limited to, how that stands now, and how many messages wait for it.

    Workers tell of their limits when they start. What waits here is in Redis and counts as LIMITED in `opsq queues`.
    """
    broker = context.broker
    found = store.states(broker, context.queue_names())
    rows = [state.to_data() for state in limited(found, limit)]
    if not context.out.json:
        rows = [{**row, **_texts(row)} for row in rows]
    context.out.table("limits", COLUMNS, rows, total=len(found), empty="nothing is limited here")


def in_words(state: store.LimitState) -> str:
    """How one limit stands, for a sentence: `5/s, 2 of 2 run, circuit open 3s`."""
    texts = _texts(state.to_data())
    places, circuit = texts["places"], state.circuit not in (None, "closed") and texts["circuit_text"]
    parts = [texts["rate_text"], places and f"{places} run", circuit and f"circuit {circuit}"]
    return ", ".join(part for part in parts if part)


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """What people read."""
    keys = [key for key in (row["rate_key"], row["concurrency_key"]) if key]
    return {
        "rate_text": _rate(row["rate"], row["scope"]),
        "places": _places(row["running"], row["max_concurrency"]),
        "circuit_text": _circuit(row["circuit"], row["open_for"], row["failures"]),
        "keys": " ".join(dict.fromkeys(keys)),
    }


def _rate(rate: float | None, scope: str | None) -> str:
    if not rate:
        return ""
    count, unit = next(
        (rate * seconds, unit)
        for seconds, unit in ((1, "s"), (60, "m"), (3600, "h"))
        if rate * seconds >= 1 or unit == "h"
    )
    return f"{count:.10g}/{unit}" + (" a worker" if scope == "worker" else "")


def _places(running: int | None, most: int | None) -> str:
    if not most:
        return ""
    return f"{most} a key" if running is None else f"{running} of {most}"


def _circuit(state: str | None, open_s: float | None, failures: int) -> str:
    if state == "open":
        return f"open {humanize_duration(open_s)}" if open_s else "open, to be probed"
    if state == "closed" and failures:
        return f"closed ({failures} failed)"
    return state or ""
