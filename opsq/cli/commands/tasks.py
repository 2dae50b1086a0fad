"""`opsq tasks`: the tasks that the app knows and what runs now, the latest ones from the history, what each costs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from opsq.app.discovery import named_app
from opsq.app.routes import Routes
from opsq.broker import workers
from opsq.cli import history, task_profile, task_progress
from opsq.cli.commands.task_revoke import revoke
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.cli.output import Column
from opsq.cli.params import limit_option, limited

COLUMNS = (
    Column("name", "TASK", cut="start"),
    Column("queue", "QUEUE", cut="start"),
    Column("running", "RUNNING", "number"),
    Column("options", "OPTIONS", cut="end"),
)

#: Shown where a task says something else than this.
OPTIONS: dict[str, Any] = {
    "bind": False,
    "acks_late": False,
    "ignore_result": False,
    "track_started": False,
    "max_retries": 3,
    "default_retry_delay": 180,
    "time_limit": None,
    "soft_time_limit": None,
    "rate_limit": None,
    "expires": None,
    "serializer": "json",
    "reject_on_worker_lost": None,
}

EXAMPLES = """
opsq tasks
opsq -A proj tasks --json
opsq tasks --state FAILURE --since 1h
opsq tasks --name mail --grep anna@example.org --limit 20
opsq tasks --watch
opsq tasks --profile
opsq tasks revoke 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
"""


@group(EXAMPLES, invoke_without_command=True)
@history.filter_options
@click.option("--watch", is_flag=True, help="What runs now and how far it is, shown again each second.")
@click.option("--profile", is_flag=True, help="How long each task takes, and what a run costs; of the last 7 days.")
@limit_option
@click.pass_context
@pass_context
def tasks(context: Context, ctx: click.Context, /, limit: int, watch: bool, profile: bool, **given: Any) -> None:
    """The app's tasks with what they say about themselves, and what runs now on the workers.

    Without an app, the tasks that workers know; -A tells more of them.

    With a filter: the latest calls that fit, from the history that the monitor keeps.
    """
    if ctx.invoked_subcommand is not None:
        return
    if watch and not profile:
        task_progress.watch(context, limit)
    if profile:
        task_profile.show(context, limit)
        return
    if history.is_filtered(given):
        _history(context, limit, given)
        return
    app = context.app
    app.import_tasks()
    running = task_progress.running(context)
    counts = Counter(row["task"] for row in running)
    routes = Routes(app.conf)
    names = _names(context)
    rows = [_task(routes, app.tasks.get(name), name, counts[name]) for name in limited(names, limit)]
    if context.out.json:
        context.out.document({"tasks": rows, "running": task_progress.as_data(running)})
        return
    for row in rows:
        row["options"] = ", ".join(f"{key}={value}" for key, value in row["options"].items())
    context.out.table("tasks", COLUMNS, rows, total=len(names), empty="the app has no tasks")
    if running:
        context.out.line("")
        context.out.table("running", task_progress.COLUMNS, running)


tasks.add_command(revoke)


def _history(context: Context, limit: int, given: dict[str, Any]) -> None:
    rows, more = history.find(context.broker, given, limit)
    shown = rows if context.out.json else [history.for_people(row) for row in rows]
    context.out.table("history", history.COLUMNS, shown, empty="nothing in the history fits (opsq monitor keeps it)")
    if more:
        context.out.say(f"{len(rows)} shown, there are more; --limit 0 shows all")


def _names(context: Context) -> list[str]:
    """The tasks of the app; those that workers know, too, when no app is named."""
    names = set(context.app.tasks)
    if named_app(context.app_spec) is None:
        names.update(known for record in workers.live(context.broker) for known in record["tasks"] or ())
    return sorted(name for name in names if not name.startswith("celery."))  # those are opsq's own parts


def _task(routes: Routes, task: Any, name: str, running: int) -> dict[str, Any]:
    """`task` is None when only workers know it: its options and where it is sent are then unknown."""
    if task is None:
        return {"name": name, "queue": None, "running": running, "options": {}}
    said = {name: getattr(task, name, default) for name, default in OPTIONS.items()}
    return {
        "name": task.name,
        "queue": routes.route(task.name, task.call_options, task=task).shown,
        "running": running,
        "options": {name: value for name, value in said.items() if value != OPTIONS[name]},
    }
