"""`opsq events`: what workers tell of themselves and of their tasks, while it happens."""

from __future__ import annotations

import fnmatch
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.open_command import Open
from opsq.cli.output import harmless
from opsq.cli.params import Duration
from opsq.events.event import Channels, Event
from opsq.events.receiver import Receiver
from opsq.events.state import State

EXAMPLES = """
opsq events
opsq events --dump | grep failed
opsq events --type 'task-*' --task 'mail.*' --json
opsq events --worker 'celery@web1' --limit 100
"""

#: How often the screen is drawn, and the end of the time is looked for (seconds).
TICK_S = 0.5
#: What Celery's `events` calls some types.
_WORDS = {"worker-offline": "shutdown", "worker-online": "started", "worker-heartbeat": "heartbeat"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are shown: globs, empty = any."""

    types: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()

    def has(self, event: Event, state: State) -> bool:
        """Whether an event is shown; `state` has taken it in, and knows the names of tasks."""
        known = state.tasks.get(str(event.get("uuid")))
        name = event.get("name") or (known.name if known else None)
        return (
            _any(event["type"], self.types)
            and _any(event.get("hostname"), self.workers)
            and _any(event.get("uuid"), self.ids)
            and _any(name, self.tasks)
        )


def _any(text: Any, globs: tuple[str, ...]) -> bool:
    return not globs or (isinstance(text, str) and any(fnmatch.fnmatchcase(text, glob) for glob in globs))


def _celerys_of_processes(function: Callable[..., Any]) -> Callable[..., Any]:
    """What Celery's `events` takes when it runs as a process of its own."""
    for names in (("-f", "--logfile"), ("--pidfile",), ("--uid",), ("--gid",), ("--umask",), ("--executable",)):
        function = click.option(*names, metavar="TEXT", help="(Celery) For --camera.")(function)
    return function


@click.command(cls=Open, examples=EXAMPLES)
@click.option("-d", "--dump", is_flag=True, help="A line an event, also in a terminal; in a pipe that is so anyway.")
@click.option("--type", "types", multiple=True, metavar="GLOB", help="Only events like task-failed or worker-*.")
@click.option("--task", "tasks", multiple=True, metavar="GLOB", help="Only of tasks with such a name.")
@click.option("--worker", "workers", multiple=True, metavar="GLOB", help="Only of such workers (node names).")
@click.option("--id", "ids", multiple=True, metavar="GLOB", help="Only of such task ids.")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="End after N events; 0 = never.")
@click.option("--timeout", type=Duration(), metavar="S", help="End after so long.")
@click.option("-c", "--camera", metavar="CLASS", help="(Celery) `opsq monitor` keeps the history.")
@click.option("-F", "--frequency", "--freq", "frequency", type=float, metavar="S", help="(Celery) For --camera.")
@click.option("-r", "--maxrate", metavar="RATE", help="(Celery) For --camera.")
@click.option("-l", "--loglevel", metavar="LEVEL", help="(Celery) For --camera.")
@click.option("-D", "--detach", is_flag=True, help="(Celery) For --camera.")
@_celerys_of_processes
@pass_context
def events(
    context: Context, /, dump: bool, limit: int, timeout: float | None, camera: str | None, detach: bool, **given: Any
) -> None:
    """What workers tell of themselves and of their tasks, while it happens: opsq's and Celery's.

    In a terminal a screen of workers and of the latest tasks, until Ctrl-C. While somebody listens, opsq's workers tell
    of their tasks; Celery's do so with -E.
    """
    if camera or detach:
        raise click.UsageError(
            "no snapshots are taken: `opsq monitor` keeps the history of tasks, `opsq tasks` shows it"
        )
    wanted = Wanted(given["types"], given["tasks"], given["workers"], given["ids"])
    stream = _stream(context, timeout)
    try:
        if context.out.terminal and not (dump or context.out.json or context.out.plain):
            _screen(context, stream, wanted)
        else:
            _lines(context, stream, wanted, limit)
    except KeyboardInterrupt:
        return  # as Celery's ends


def _stream(context: Context, timeout_s: float | None) -> Iterator[tuple[Receiver, list[Event]]]:
    """What is heard, as long as is wanted."""
    from opsq.datastore.connection import errors

    broker, conf = context.broker, context.app.conf
    channels = Channels.of(broker.where.db, conf.broker_transport_options)
    receiver = Receiver(broker.url, channels, conf.event_exchange, conf.control_exchange)
    until = None if timeout_s is None else time.monotonic() + timeout_s
    with errors(broker.url):
        for heard in receiver.listen(TICK_S if until is None else min(TICK_S, timeout_s or 0)):
            yield receiver, heard
            if until is not None and time.monotonic() >= until:
                return


# -- lines -------------------------------------------------------------------------------------------------------------


def _lines(context: Context, stream: Iterator[tuple[Receiver, list[Event]]], wanted: Wanted, limit: int) -> None:
    state, shown, told = State(), 0, ""
    if not context.out.json:
        _say("-> evdump: starting capture...")
    for receiver, heard in stream:
        if receiver.trouble != told:
            told = receiver.trouble
            context.out.say(f"lost the broker, connecting anew: {told}" if told else "the broker is back")
        for event in heard:
            state.event(event)
            if wanted.has(event, state):
                _say(json.dumps(event, default=str) if context.out.json else line(event, state))
                shown += 1
                if shown == limit:
                    return


def _say(text: str) -> None:
    print(text)
    sys.stdout.flush()


def line(event: Event, state: State) -> str:
    """An event as a line, as Celery's `events --dump` writes it."""
    rest = {name: event[name] for name in sorted(event) if name not in ("timestamp", "type", "hostname", "uuid")}
    kind, task = event["type"], ""
    if kind.startswith("task-"):
        task = f" {_task(event, state)}"
        if kind in ("task-received", "task-sent"):
            rest = {name: value for name, value in rest.items() if name not in ("name", "args", "kwargs")}
    fields = ", ".join(f"{name}={value}" for name, value in rest.items())
    word = _WORDS.get(kind, kind.replace("-", " "))
    return harmless(f"{event.get('hostname')} [{_moment(event)}] {word}{':' if fields else ''}{task} {fields}")


def _task(event: Event, state: State) -> str:
    task_id = str(event.get("uuid"))
    known = state.tasks.get(task_id)
    if known is None or known.name is None:
        return task_id
    return f"{known.name}({task_id}) args={known.args} kwargs={known.kwargs}"


def _moment(event: Event) -> str:
    at = event.get("timestamp")
    try:
        return str(datetime.fromtimestamp(float(at or 0), UTC))
    except (TypeError, ValueError, OverflowError, OSError):
        return str(at)


# -- the screen --------------------------------------------------------------------------------------------------------


def _screen(context: Context, stream: Iterator[tuple[Receiver, list[Event]]], wanted: Wanted) -> None:
    from rich.live import Live

    from opsq.cli.event_screen import Screen

    screen = Screen(color=context.out.rich)
    with Live(console=screen.console, screen=True, auto_refresh=False) as live:
        for receiver, heard in stream:
            for event in heard:
                screen.state.event(event)
                if wanted.has(event, screen.state):
                    screen.take(event)
            if screen.due():
                live.update(screen.draw(receiver.trouble), refresh=True)
