"""What `opsq tasks` and `opsq results` share: the filters of the monitor's history, and how its tasks are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from opsq.cli.output import Column
from opsq.cli.params import Duration, options

if TYPE_CHECKING:
    from opsq.broker.broker import Broker
    from opsq.monitor.store import Wanted

COLUMNS = (
    Column("id", "ID"),
    Column("state", "STATE"),
    Column("name", "TASK", cut="start"),
    Column("runtime", "TOOK", "seconds"),
    Column("outcome", "OUTCOME", cut="end"),
    Column("updated", "CHANGED", "time", extra=True),
    Column("call", "ARGS", cut="end", extra=True),
    Column("worker", "WORKER", cut="start", extra=True),
    Column("queue", "QUEUE", cut="end", extra=True),
)

_OPTIONS = (
    click.option("--name", metavar="NAME", default="", help="Tasks with this in their name; * stands for anything."),
    click.option("--state", metavar="STATE", default="", help="In these states, with commas: FAILURE,RETRY."),
    click.option("-Q", "--queue", metavar="QUEUE", default="", help="Of this queue."),
    click.option("--worker", metavar="NODE", default="", help="On workers with this in their name."),
    click.option("--since", metavar="TIME", type=Duration(), help="Changed within this time: 90, 5m, 12h, 7d."),
    click.option("--grep", metavar="TEXT", default="", help="With this text in id, name, arguments, result or error."),
)
_NAMES = ("name", "state", "queue", "worker", "since", "grep")

#: `--name --state --queue --worker --since --grep`.
filter_options = options(_OPTIONS)


def is_filtered(given: dict[str, Any]) -> bool:
    """Whether any of the filters is there."""
    return any(given[name] not in ("", None) for name in _NAMES)


def find(broker: Broker, given: dict[str, Any], limit: int, only: frozenset[str] = frozenset()) -> tuple[Any, bool]:
    """Rows of the history that fit, latest first, and whether there are more. `only`: no other states than these."""
    from opsq.monitor.record import described
    from opsq.monitor.store import History

    wanted = _wanted(given, only)
    if only and not wanted.states:
        return [], False
    page = History(broker).find(wanted, limit)
    return [described(record) for record in page.records], page.older is not None


def one(broker: Broker, task_id: str) -> dict[str, Any] | None:
    """A task of the history that has ended."""
    from opsq.monitor.record import OPEN

    told = any_of(broker, task_id)
    return None if told is None or told["state"] in OPEN else told


def any_of(broker: Broker, task_id: str) -> dict[str, Any] | None:
    """A task of the history."""
    from opsq.monitor.record import described
    from opsq.monitor.store import History

    record = History(broker).get([task_id]).get(task_id)
    return None if record is None else described(record)


def _wanted(given: dict[str, Any], only: frozenset[str]) -> Wanted:
    import time

    from opsq.monitor.query import states_named
    from opsq.monitor.store import Wanted

    states = states_named(given["state"])
    since_s = given["since"]
    return Wanted(
        name=given["name"],
        states=(states & only if states else only) if only else states,
        queue=given["queue"],
        worker=given["worker"],
        since=0.0 if since_s is None else time.time() - since_s,
        grep=given["grep"],
    )


def for_people(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its call and its outcome as texts."""
    kwargs = "" if row["kwargs"] in ("", "{}") else f" {row['kwargs']}"
    return {**row, "call": f"{row['args']}{kwargs}", "outcome": row["exception"] or row["result"] or row["note"] or ""}
