"""`opsq schedule`: the entries of the schedule with last and next run; run, pause, resume, add and remove one."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import click

from opsq.broker import schedules as store
from opsq.broker.schedules import EntryFacts
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.cli.output import Column
from opsq.cli.params import Duration, Json, limit_option, limited
from opsq.exceptions import BrokerError, TaskError, TimeoutError, UsageError, did_you_mean

COLUMNS = (
    Column("name", "ENTRY", cut="end"),
    Column("schedule", "SCHEDULE", cut="end"),
    Column("last", "LAST RUN"),
    Column("next", "NEXT RUN"),
    Column("paused", "PAUSED", "yes"),
    Column("task", "TASK", cut="start", extra=True),
    Column("runs", "RUNS", "number", extra=True),
    Column("zone", "ZONE", extra=True),
    Column("app", "APP", extra=True),
)
NEXT_COLUMNS = (
    Column("at", "AT"),
    Column("in", "IN", "seconds"),
    Column("name", "ENTRY", cut="end"),
    Column("task", "TASK", cut="start", extra=True),
    Column("zone", "ZONE", extra=True),
)
#: How long `run` waits for the beat (seconds).
PATIENCE_S = 5.0

EXAMPLES = """
opsq -A proj schedule
opsq schedule next 20
opsq schedule run nightly
opsq schedule pause nightly
opsq schedule add hourly proj.tasks.clean --every 1h
"""


@group(EXAMPLES, invoke_without_command=True)
@limit_option
@click.pass_context
@pass_context
def schedule(context: Context, ctx: click.Context, limit: int) -> None:
    """The entries of the schedule with their last and next run, in the time zone of each."""
    if ctx.invoked_subcommand is not None:
        return
    found = _entries(context)
    several = len({entry.app for entry in found}) > 1
    rows = [_row(entry, context.out.json, several) for entry in limited(found, limit)]
    context.out.table("schedule", COLUMNS, rows, total=len(found), empty="the schedule is empty")
    for app in sorted({entry.app for entry in found}):
        if store.leader(context.broker, app) is None:
            context.out.say(f"no beat ticks for {app}: opsq up, or opsq beat")


def _row(entry: EntryFacts, as_data: bool, several: bool) -> dict[str, Any]:
    """As scripts get it (Unix seconds), or as people read it."""
    last, then = entry.last_run_unix, entry.next_run_unix
    row: dict[str, Any] = {"name": entry.name, "task": entry.task, "schedule": entry.schedule, "zone": entry.zone}
    row |= {"last": last, "next": then, "runs": entry.total_runs, "paused": not entry.enabled}
    if as_data:
        return {**row, "app": entry.app, "source": entry.source, "last_id": entry.last_id, "trouble": entry.trouble}
    zone = _zone(entry.zone)
    row |= {"last": _shown(last, zone), "next": _shown(then, zone)}
    return {**row, "app": entry.app if several else None}


def _shown(unix_s: float | None, zone: tzinfo) -> str | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, zone).strftime("%Y-%m-%d %H:%M:%S")


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


NEXT_EXAMPLES = """
opsq schedule next
opsq schedule next 20 --json
"""


@schedule.command("next", examples=NEXT_EXAMPLES, short_help="The next runs of all entries, in order.")
@click.argument("count", type=click.IntRange(1), default=10)
@pass_context
def upcoming(context: Context, count: int) -> None:
    """The next runs of all entries, in order."""
    now = time.time()
    found = _entries(context)
    streams = [_runs(entry, now) for entry in found if entry.enabled]
    merged = heapq.merge(*streams, key=lambda run: run[0])
    runs = [run for run, _number in zip(merged, range(count), strict=False)]
    rows = [
        {
            "at": at if context.out.json else _shown(at, _zone(entry.zone)),
            "in": max(at - now, 0),
            "name": entry.name,
            "task": entry.task,
            "zone": entry.zone,
        }
        for at, entry in runs
    ]
    context.out.table("runs", NEXT_COLUMNS, rows, empty="nothing is due: no entries, or all are paused")


def _runs(entry: EntryFacts, now: float) -> Iterator[tuple[float, EntryFacts]]:
    """When an entry runs from now on; once if only the beat can tell."""
    from opsq.beat.entry import NEVER_MS, Entry
    from opsq.schedules import portable

    if entry.next_run_unix is None:
        return
    at_ms = int(entry.next_run_unix * 1000)
    yield max(at_ms / 1000, now), entry
    if entry.data is None:
        return
    found = portable.from_data(entry.data)
    found.tz = _zone(entry.zone)
    known = Entry(entry.name, entry.task, found)
    _runs_now, at_ms = known.due_between(at_ms, int(now * 1000))
    while True:
        at_ms = known.next_ms(at_ms)
        if at_ms >= NEVER_MS:
            return
        yield at_ms / 1000, entry


RUN_EXAMPLES = """
opsq schedule run nightly
opsq schedule run nightly --json
"""


@schedule.command("run", examples=RUN_EXAMPLES, short_help="Have the beat send an entry's task now.")
@click.argument("name")
@pass_context
def run(context: Context, name: str) -> None:
    """Have the beat send an entry's task now, paused or not; its next run stays as it is. Prints the task's id."""
    entry = _entry(context, name)
    if store.leader(context.broker, entry.app) is None:
        raise BrokerError(f"cannot run {name!r}", why=f"no beat ticks for {entry.app}", hint="opsq up, or opsq beat")
    order = store.order_run(context.broker, entry.app, name)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        done = next((each for each in store.entries(context.broker, entry.app) if each.name == name), None)
        if done is not None and done.order == order and done.trouble:
            raise TaskError(f"cannot send {name!r}", why=done.trouble)
        if done is not None and done.order == order:
            if context.out.json:
                context.out.document({"name": name, "task": entry.task, "id": done.last_id})
            else:
                context.out.line(str(done.last_id))
            return
        time.sleep(0.02)
    raise TimeoutError(f"the beat has not sent {name!r} within {PATIENCE_S:.0f} s", hint="opsq logs beat")


@schedule.command(examples="opsq schedule pause nightly", short_help="Have entries fire no more until resumed.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def pause(context: Context, names: Sequence[str]) -> None:
    """Have entries fire no more until they are resumed."""
    for entry in [_entry(context, name) for name in names]:
        changed = store.pause(context.broker, entry.app, entry.name)
        context.out.say(f"paused: {entry.name}" if changed else f"{entry.name} was paused already")


@schedule.command(examples="opsq schedule resume nightly", short_help="Have paused entries fire again.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def resume(context: Context, names: Sequence[str]) -> None:
    """Have paused entries fire again; what they missed meanwhile is not made up."""
    for entry in [_entry(context, name) for name in names]:
        changed = store.resume(context.broker, entry.app, entry.name)
        context.out.say(f"resumed: {entry.name}" if changed else f"{entry.name} was not paused")


ADD_EXAMPLES = """
opsq -A proj schedule add hourly proj.tasks.clean --every 1h
opsq -A proj schedule add report proj.tasks.report --cron '0 8 * * mon-fri'
opsq -A proj schedule add poll proj.tasks.poll --every 5s --overlap skip
opsq -A proj schedule add add proj.tasks.add --every 1d --args '[2, 3]'
"""


@schedule.command(examples=ADD_EXAMPLES, short_help="Add an entry, which runs until it is removed.")
@click.argument("name")
@click.argument("task")
@click.option("--every", type=Duration(), metavar="S", help="Each so often: 90, 5m, 1h30m.")
@click.option("--cron", metavar="FIELDS", help="Minute, hour, day of month, month, day of week, in one text.")
@click.option("--timezone", metavar="ZONE", help="Of --cron; default: the app's.")
@click.option("--args", type=Json(list, "'[2, 3]'"), default="[]", help="Positional arguments, a JSON list.")
@click.option("--kwargs", type=Json(dict, "'{\"x\": 2}'"), default="{}", help="Keyword arguments, a JSON object.")
@click.option("--queue", metavar="QUEUE", help="Where it is sent; default: as the app routes it.")
@click.option("--priority", type=click.IntRange(0, 9), metavar="N", help="0 is served first.")
@click.option("--expires", type=Duration(), metavar="S", help="Not run when it has waited so long.")
@click.option("--jitter", type=Duration(), metavar="S", help="Send up to so much later, differently each time.")
@click.option("--overlap", type=click.Choice(["allow", "skip"]), help="skip: not while its last run is unfinished.")
@click.option("--missed", type=click.Choice(["once", "all", "none"]), help="What becomes of missed runs; once.")
@click.option("--missed-limit", type=click.IntRange(1), metavar="N", help="Of --missed all: at most N; 100.")
@pass_context
def add(context: Context, /, name: str, task: str, every: float | None, cron: str | None, **given: Any) -> None:
    """Add an entry, which the beat runs from now on until it is removed; it is kept in Redis."""
    from opsq.beat import definitions
    from opsq.beat.beat import name_of

    if (every is None) == (cron is None):
        raise UsageError("one of --every and --cron is needed", hint="opsq schedule add --help")
    options = {key: given.pop(key) for key in ("queue", "priority", "expires")}
    definition = {
        "task": task,
        "schedule": {"every": every} if every is not None else {"crontab": cron},
        "options": {key: value for key, value in options.items() if value is not None},
        **{key: value for key, value in given.items() if value not in (None, [], {})},
    }
    app = context.app
    read = definitions.read(app, {name: definition}, "added")
    if read.problems:
        raise UsageError(f"cannot add the entry {name!r}", why=read.problems[0].partition(" is left out: ")[2])
    if name in definitions.of_app(app).entries:
        raise UsageError(f"cannot add the entry {name!r}", why="the app has one of this name", hint="use another name")
    store.add(context.broker, name_of(app), name, definition)
    context.out.say(f"added: {name} ({task})")
    app.import_tasks()
    if task not in app.tasks:
        near = did_you_mean(task, app.tasks)
        told = f"{name_of(app)} itself has no task {task}, it is sent by its name"
        context.out.say(f"{told}; {near}" if near else told)
    if store.leader(context.broker, name_of(app)) is None:
        context.out.say(f"no beat ticks for {name_of(app)}: opsq up, or opsq beat")


@schedule.command(examples="opsq schedule remove hourly", short_help="Remove entries that were added by command.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def remove(context: Context, names: Sequence[str]) -> None:
    """Remove entries that were added by command; those of the app's code can be paused."""
    for entry in [_entry(context, name) for name in names]:
        if not store.remove(context.broker, entry.app, entry.name):
            raise UsageError(
                f"cannot remove {entry.name!r}",
                why="it stands in the database" if entry.source == "database" else "it stands in the app's code",
                hint=f"opsq schedule pause {entry.name!r}",
            )
        context.out.say(f"removed: {entry.name}")


# -- which entries -----------------------------------------------------------------------------------------------------


def _entries(context: Context) -> list[EntryFacts]:
    """What Redis knows, of the app that is named or of all; with what an app defines that no beat has seen yet."""
    from opsq.app.discovery import named_app
    from opsq.beat.beat import name_of

    if context.app_spec is None and named_app() is None and context.app.main == "opsq":
        return store.entries(context.broker)
    app = name_of(context.app)
    known = {entry.name: entry for entry in store.entries(context.broker, app)}
    for entry in _defined(context, app):
        known.setdefault(entry.name, entry)
    return sorted(known.values(), key=lambda entry: entry.name)


def _defined(context: Context, name: str) -> list[EntryFacts]:
    """The entries that the app's code and the operator's commands define, as if they began now."""
    from opsq.beat import definitions
    from opsq.schedules import portable

    app = context.app
    app.import_tasks()
    app.finalize()
    own = definitions.of_app(app)
    added = definitions.read(app, store.added(context.broker, name), "added")
    for problem in (*own.problems, *added.problems):
        context.out.say(problem)
    now_ms = int(time.time() * 1000)
    found = []
    for entry in {**added.entries, **own.entries}.values():
        text, data = portable.to_text(entry.schedule), portable.to_data(entry.schedule)
        due = None if entry.is_asked or not entry.enabled else entry.next_ms(now_ms) / 1000
        found.append(
            EntryFacts(
                name, entry.name, entry.task, text, entry.zone, None, due, 0, entry.enabled, entry.source, data=data
            )
        )
    return found


def _entry(context: Context, name: str) -> EntryFacts:
    """The entry of this name. Raises UsageError with the nearest ones."""
    found = _entries(context)
    same = [entry for entry in found if entry.name == name]
    if len(same) == 1:
        return same[0]
    if same:
        apps = " or ".join(f"-A {entry.app}" for entry in same)
        raise UsageError(f"several apps have an entry {name!r}", hint=f"say which: {apps}")
    hint = did_you_mean(name, [entry.name for entry in found], "opsq schedule")
    raise UsageError(f"there is no entry {name!r} in the schedule", hint=hint)
