"""`opsq run task` and `opsq run host-batch`: their options. What they do is loaded when it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import Command, group
from opsq.cli.params import Duration, Json

EXAMPLES = """
opsq run task proj.tasks.add '[2, 3]' --wait
opsq run task opsq.ping --wait
opsq run host-batch uptime
opsq run host-batch --hosts 'web[01-40],!web07' 'df -h / | tail -1'
"""


@group(EXAMPLES)
def run() -> None:
    """Run something: a task on the workers, or a command on hosts."""


TASK_EXAMPLES = """
opsq run task proj.tasks.add '[2, 3]'
opsq run task proj.tasks.send '[]' '{"to": "a@b.example"}' --countdown 5m
opsq run task proj.tasks.report --wait --timeout 30s
opsq run task opsq.ping --wait
"""


@run.command(examples=TASK_EXAMPLES, short_help="Send a call of a task.")
@click.argument("name")
@click.argument("args", type=Json(list, "'[1, \"a\"]'"), default="[]")
@click.argument("kwargs", type=Json(dict, "'{\"a\": 1}'"), default="{}")
@click.option("--wait", is_flag=True, help="Wait for the value and print it as JSON.")
@click.option("--timeout", type=Duration(), metavar="TIME", help="Wait this long at most: 30, 5m.")
@click.option("-Q", "--queue", metavar="QUEUE", help="Send it to this queue.")
@click.option("--countdown", type=Duration(), metavar="TIME", help="Run it after this time.")
@pass_context
def task(
    context: Context,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    wait: bool,
    timeout: float | None,
    queue: str | None,
    countdown: float | None,
) -> None:
    """Send a call of the task NAME with ARGS (a JSON list) and KWARGS (a JSON object); prints its id.

    With --wait its value is printed instead. Exit code: 0 done; 1 the task failed; 2 no such task, or no place for
    results; 3 no answer in time, or no worker for its queue.
    """
    from opsq.cli.commands.run_task import run_task

    run_task(context, name, args, kwargs, wait, timeout, queue, countdown)


HOST_EXAMPLES = """
opsq run host-batch uptime
opsq run host-batch --hosts 'web[01-40],!web07' systemctl restart nginx
opsq run host-batch --hosts @db --timeout 30 'df -h / | tail -1'
opsq run host-batch --json hostname
"""


class HostBatch(Command):
    """Its own options end at the first word that is none: the rest is the command for the hosts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_interspersed_args = False


@run.command(cls=HostBatch, name="host-batch", examples=HOST_EXAMPLES, short_help="Run a command on hosts.")
@click.argument("words", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--hosts", metavar="EXPR", help="web[01-40], web*, @group, !name; default: all that are there.")
@click.option(
    "--timeout", type=Duration(), metavar="TIME", default=600.0, help="End the command after this time (10m)."
)
@pass_context
def host_batch(context: Context, words: tuple[str, ...], hosts: str | None, timeout: float) -> None:
    """Run CMD on every host that has joined (on this one when it is alone), and tell what came of it.

    Several words are a program and its arguments; a single word with blanks or shell characters is a line for the
    host's /bin/sh. Exit code: 0 all succeeded; 1 it failed somewhere; 4 a host refused; 3 only silence is to blame;
    130 interrupted (what was begun is cancelled).
    """
    from opsq.cli.commands.run_hosts import run_on_hosts

    run_on_hosts(context, words, hosts, timeout)
