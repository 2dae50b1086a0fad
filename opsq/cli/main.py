"""`opsq`: the table of commands, and one group that loads a command when it is called.

Importing this must stay cheap: `opsq --help` imports click and no command.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import click

from opsq._version import __version__
from opsq.cli import errors
from opsq.cli.context import Context
from opsq.cli.frame import Group, add_options, global_options
from opsq.exceptions import UsageError


class Entry(NamedTuple):
    """Where a command is, and its line in `opsq --help`."""

    target: str
    help: str


_PROGRAMS = "opsq.cli.commands.programs"
_CELERYS = "opsq.cli.commands.celery_words"

#: Heading -> commands, in the order of `opsq --help`.
SECTIONS: dict[str, dict[str, Entry]] = {
    "Run and supervise": {
        "up": Entry("opsq.cli.commands.up:up", "Start what this project needs, and keep it running."),
        "down": Entry("opsq.cli.commands.up:down", "Stop everything that `up` started."),
        "status": Entry("opsq.cli.commands.status:status", "What runs, and since when."),
        "start": Entry(f"{_PROGRAMS}:start", "Start programs."),
        "stop": Entry(f"{_PROGRAMS}:stop", "Stop programs."),
        "restart": Entry(f"{_PROGRAMS}:restart", "Stop and start programs."),
        "signal": Entry(f"{_PROGRAMS}:signal", "Send a signal to programs."),
        "scale": Entry(f"{_PROGRAMS}:scale", "Run so many copies of a program."),
        "reload": Entry(f"{_PROGRAMS}:reload", "Read the project's file again, and do what has changed."),
        "logs": Entry("opsq.cli.commands.logs:logs", "What programs wrote."),
        "import": Entry("opsq.cli.commands.importing:import_", "A supervisord.conf as an opsq.toml."),
        "generate": Entry("opsq.cli.commands.generate:generate", "Units for systemd or supervisord."),
    },
    "The processes": {
        "worker": Entry("opsq.cli.commands.worker:worker", "Run tasks, in the foreground."),
        "monitor": Entry("opsq.cli.commands.monitor:monitor", "Show it all in a browser; JSON and metrics."),
        "flower": Entry("opsq.cli.commands.monitor:monitor", "The same, with Flower's flags."),
        "beat": Entry("opsq.cli.commands.beat:beat", "Send periodic tasks when they are due, in the foreground."),
        "agent": Entry("opsq.cli.commands.agent:agent", "Run signed orders on this host, in the foreground."),
    },
    "Look": {
        "queues": Entry("opsq.cli.commands.queues:queues", "What waits: depth, age, consumers; peek, purge."),
        "limits": Entry("opsq.cli.commands.limits:limits", "Rates, concurrency, circuits: how they stand, what waits."),
        "tasks": Entry(
            "opsq.cli.commands.tasks:tasks", "The app's tasks, what runs now and how far, what a run costs."
        ),
        "results": Entry("opsq.cli.commands.results:results", "What came of a task."),
        "result": Entry("opsq.cli.commands.results:result", "Wait for the value of one task (Celery's word)."),
        "dead": Entry("opsq.cli.commands.dead:dead", "Messages that failed for good; show, requeue, drop."),
        "schedule": Entry("opsq.cli.commands.schedule:schedule", "Periodic tasks: last and next runs; pause, add."),
        "workers": Entry("opsq.cli.commands.workers:workers", "The workers that are alive."),
        "events": Entry("opsq.cli.commands.events:events", "What workers and tasks do, while it happens."),
        "why": Entry("opsq.cli.commands.why:why", "Why a task waits, failed, ran twice or is gone."),
        "audit": Entry("opsq.cli.commands.audit:audit", "Whether everything that was taken is accounted for."),
        "hosts": Entry("opsq.cli.commands.hosts:hosts", "The hosts that have joined; invite others."),
        "jobs": Entry("opsq.cli.commands.jobs:jobs", "What was run on hosts, and what came of it."),
    },
    "Act": {
        "run": Entry("opsq.cli.commands.run:run", "Run a task, or a command on hosts."),
        "inspect": Entry("opsq.cli.commands.inspect:inspect", "Ask workers what they run, hold, know; Celery's too."),
        "control": Entry("opsq.cli.commands.inspect:control", "Tell workers to do something; Celery's too."),
    },
    "Celery's words": {
        "call": Entry(f"{_CELERYS}:call", "Send a call of a task by its name."),
        "purge": Entry(f"{_CELERYS}:purge", "Throw away what waits in the app's queues."),
        "list": Entry(f"{_CELERYS}:list_", "Which queues are bound to which exchanges."),
        "report": Entry(f"{_CELERYS}:report", "Software, platform and settings for a bug report."),
        "shell": Entry("opsq.cli.commands.shell:shell", "A Python prompt with the app and its tasks."),
        "graph": Entry("opsq.cli.commands.graph:graph", "The workers as a picture for Graphviz."),
    },
    "Set up": {
        "init": Entry("opsq.cli.commands.init:init", "Write an opsq.toml and a first tasks.py."),
        "migrate-code": Entry(
            "opsq.cli.commands.migrate_code:migrate_code", "A Celery project's imports become opsq's."
        ),
        "join": Entry("opsq.cli.commands.join:join", "Let an operator give orders to this machine."),
        "keys": Entry("opsq.cli.commands.keys:keys", "The keys of operator and host; whom this host trusts."),
        "config": Entry("opsq.cli.commands.config:config", "Every setting, and where it comes from."),
        "completion": Entry("opsq.cli.commands.completion:completion", "What Tab completes, for bash, zsh or fish."),
        "doctor": Entry("opsq.cli.commands.doctor:doctor", "What is wrong here, and what mends it."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

#: Programs that need processes as Linux has them; elsewhere they say so.
LINUX_ONLY = frozenset(
    (
        *("up", "down", "status", "start", "stop", "restart", "signal", "scale", "reload", "logs", "generate"),
        *("beat", "monitor", "flower", "agent", "join", "keys", "hosts", "jobs"),
    )
)

#: Words of supervisorctl, and one of ours without its noun: what to type here.
OTHER_WORDS = {
    "handover": "opsq queues handover --to-celery QUEUE",
    "reread": "opsq reload --dry-run",
    "update": "opsq reload",
    "avail": "opsq status",
    "pid": "opsq status --json",
    "tail": "opsq logs -f NAME",
    "maintail": "opsq logs -f opsq",
    "fg": "opsq logs -f NAME",
    "add": "opsq up NAME",
    "remove": "opsq stop NAME",
    "shutdown": "opsq down",
}

#: Commands of Celery that opsq does not have, and what takes their place.
CELERYS_WORDS = {
    "amqp": "`opsq queues` (peek, purge, move)",
    "logtool": "`opsq tasks --profile`, and `opsq logs` for the lines",
    "migrate": "`opsq queues move` (Celery's queues are taken from as they are)",
    "multi": "`opsq up`, which keeps workers running, and `opsq scale worker 3` for more of them",
    "upgrade": "`opsq config` (old names of settings stay good)",
}

#: Celery's words take options from the environment as in Celery: CELERY_WORKER_LOGLEVEL is `worker --loglevel`.
FROM_ENVIRONMENT = frozenset(("worker", "beat", "events", "inspect", "control", *SECTIONS["Celery's words"], "result"))

EXAMPLES = """
opsq up
opsq status
opsq -A proj worker -Q mail -c 4
opsq run task proj.tasks.add '[2, 3]' --wait
"""


def _refuse_elsewhere(name: str) -> None:
    from opsq import platforms  # it asks the system; most commands need not know

    if not platforms.HAS_PROCESSES:
        raise UsageError(
            f"cannot run `opsq {name}` on {platforms.SYSTEM}",
            why="it needs processes that can be forked and watched as on Linux",
            hint="see docs/platforms.md for what runs where",
        )


class Main(Group):
    """The top: commands by the table, loaded when they are called. All options go to the command."""

    keeps_own = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """All names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command and let it take the options that all have."""
        if cmd_name in LINUX_ONLY:
            _refuse_elsewhere(cmd_name)
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        add_options(command, SHARED)
        if cmd_name in FROM_ENVIRONMENT:
            command.context_settings["auto_envvar_prefix"] = f"CELERY_{cmd_name.upper()}"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names; a word of supervisorctl's or Celery's is answered with ours."""
        if args[0] in OTHER_WORDS:
            raise UsageError(f"{args[0]} is `{OTHER_WORDS[args[0]]}` here")
        if args[0] in CELERYS_WORDS:
            raise UsageError(f"{args[0]} is not here: use {CELERYS_WORDS[args[0]]}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The commands under their headings; none is loaded for this."""
        for heading, section in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, entry.help) for name, entry in section.items()], col_max=12)


def _take(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        ctx.ensure_object(Context).take(str(param.name), value)


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"opsq {__version__}")
        ctx.exit()


SHARED = global_options(_take)
VERSION = click.Option(
    ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)

cli = Main(
    "opsq",
    params=[*SHARED, VERSION],
    examples=EXAMPLES,
    help="A task queue that speaks Celery's protocol over Redis, with its supervisor. "
    "Options may stand before or after the command.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(argv: list[str] | None = None, context: Context | None = None) -> None:
    """Run the command line of this process and exit."""
    try:
        code = run(sys.argv[1:] if argv is None else argv, context or Context())
    except KeyboardInterrupt:  # it came while something else was being told
        code = errors.INTERRUPTED
    sys.exit(code)


def run_for_app(app: Any, argv: list[str] | None = None) -> None:
    """Run the command line for an app that exists already (`app.start()`). Raises SystemExit if that fails."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        words = words[1:]  # Celery's programs hand over sys.argv whole
    if code := run(words, Context(app)):
        raise SystemExit(code)


def run(argv: list[str], context: Context) -> int:
    """Run a command line; every mistake becomes a sentence and an exit code."""
    return errors.guard(lambda: _invoke(argv, context), json="--json" in argv)


def _invoke(argv: list[str], context: Context) -> None:
    with cli.make_context("opsq", list(argv) or ["--help"], obj=context) as ctx:
        cli.invoke(ctx)
