"""`opsq worker`: a worker in the foreground, with every option of Celery's."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.params import Command

EXAMPLES = """
opsq -A proj worker -l info
opsq -A proj worker -Q mail,celery -c 4
opsq worker -A proj -P solo -l debug
"""

#: Options of Celery's whose effect does not exist (yet) here: what to say once when they are used.
WITHOUT_EFFECT = {
    "statedb": "revoked tasks are kept in Redis; the file is not needed",
    "events": "events are not sent by this version",
    "autoscale": "this version does not scale by itself; use -c",
    "beat": "this version has no beat",
    "schedule": "this version has no beat",
    "scheduler": "this version has no beat",
    "pool_start_method": "children are forked from a clean template",
    "detach": "use `opsq up`: it keeps the worker running",
    "executable": "it is for --detach",
    "loader": "modules are found by -A and --include",
}


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _names(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """Comma-separated names, the option given once or several times."""
    return [name for value in values for name in value.split(",") if name]


OPTIONS = (
    click.option("-n", "--hostname", metavar="NAME", help="Node name; %h host, %n its first part, %d its domain."),
    click.option("-l", "--loglevel", metavar="LEVEL", default="warning", show_default=True, help="In any case."),
    click.option("-c", "--concurrency", metavar="N|auto", help="Children; default: the CPUs this process may use."),
    click.option("-P", "--pool", metavar="POOL", help="prefork (default) or solo."),
    click.option(
        "-Q", "--queues", multiple=True, callback=_names, metavar="LIST", help="Queues; default: all of the app."
    ),
    click.option("-X", "--exclude-queues", multiple=True, callback=_names, metavar="LIST", help="Queues to leave out."),
    click.option("-I", "--include", multiple=True, callback=_names, metavar="LIST", help="More modules with tasks."),
    click.option("--time-limit", type=float, metavar="S", help="Hard time limit of a task, seconds."),
    click.option("--soft-time-limit", type=float, metavar="S", help="Soft time limit of a task, seconds."),
    click.option("--max-tasks-per-child", type=int, metavar="N", help="Replace a child after N tasks."),
    click.option("--max-memory-per-child", type=int, metavar="KIB", help="Replace a child that has grown beyond KIB."),
    click.option(
        "--prefetch-multiplier", type=int, metavar="N", help="Most messages in a child's hand; 0 = automatic."
    ),
    click.option("--lease", type=float, metavar="S", help="Peers take over this long after its last sign of life; 15."),
    click.option("--purge", "--discard", "purge", is_flag=True, help="Empty the queues first."),
    click.option("-f", "--logfile", metavar="FILE", help="Log there instead of to stderr."),
    click.option(
        "--log-format", type=click.Choice(["text", "json"]), default="text", help="One JSON object a line: json."
    ),
    click.option("--pidfile", metavar="FILE", help="Write the pid there; refuse if that process lives."),
    click.option("--uid", metavar="USER", help="Become this user."),
    click.option("--gid", metavar="GROUP", help="Become this group."),
    click.option("--umask", metavar="OCTAL", help="File mode mask."),
    click.option("-E", "--task-events", "--events", "events", is_flag=True, help="(Celery) Send task events."),
    click.option("-O", "--optimization", metavar="NAME", help="(Celery) Always fair here."),
    click.option("--disable-prefetch", is_flag=True, help="(Celery) Nothing waits behind a long task here."),
    click.option("--without-gossip", is_flag=True, help="(Celery) There is none."),
    click.option("--without-mingle", is_flag=True, help="(Celery) There is none."),
    click.option("--without-heartbeat", is_flag=True, help="(Celery) Leases take its place."),
    click.option("--heartbeat-interval", type=float, metavar="S", help="(Celery) Leases take its place."),
    click.option("--autoscale", metavar="MAX,MIN", help="(Celery)"),
    click.option("-B", "--beat", is_flag=True, help="(Celery)"),
    click.option("-s", "--schedule", "--schedule-filename", "schedule", metavar="FILE", help="(Celery)"),
    click.option("--scheduler", metavar="CLASS", help="(Celery)"),
    click.option("-S", "--statedb", metavar="FILE", help="(Celery)"),
    click.option("--pool-start-method", metavar="NAME", help="(Celery)"),
    click.option("-D", "--detach", is_flag=True, help="(Celery) `opsq up` does it."),
    click.option("--executable", metavar="FILE", help="(Celery)"),
    click.option("--loader", metavar="NAME", help="(Celery)"),
    click.option("--skip-checks", is_flag=True, help="(Celery) There are none."),
)


@click.command(cls=Command, examples=EXAMPLES)
@_options
@pass_context
def worker(context: Context, /, **given: Any) -> None:
    """Run a worker in the foreground.

    SIGTERM or Ctrl-C stop it when what runs has ended, a second one at once; SIGHUP replaces its children.
    """
    from opsq import signals
    from opsq.worker.children import TEMPLATE_FACTS, TEMPLATE_LINK

    if given["detach"]:
        raise click.UsageError("opsq does not detach: `opsq up` keeps the worker running, `opsq down` ends it")
    _change_process(given)
    app = context.app
    _configure(app, given)
    app.import_tasks()
    link, facts = os.environ.pop(TEMPLATE_LINK, ""), os.environ.pop(TEMPLATE_FACTS, "")
    from opsq.worker.assemble import Wishes, build, node_name, with_node

    node = node_name(given["hostname"])
    for name in ("logfile", "pidfile"):
        given[name] = with_node(given[name], node)
    signals.celeryd_init.send(node, instance=None, conf=app.conf, options=given)
    buffer = _set_up_logs(app, given)

    wishes = Wishes(
        queues=given["queues"],
        exclude=given["exclude_queues"],
        hostname=given["hostname"],
        concurrency=_concurrency(given["concurrency"]),
        pool=given["pool"],
        prefetch=given["prefetch_multiplier"],
        lease_s=given["lease"],
    )
    state = context.state_dir
    state.create()
    state.slots.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = build(app, wishes, state.slots, buffer)
    if link:
        made.serve_as_template(link, facts)
    with _pidfile(given["pidfile"]):
        if given["purge"]:
            _purge(app, made.plan.setup.queues)
        _banner(context, app, made.plan, given["log_format"] == "json")
        _say_what_has_no_effect(given)
        code = made.run(lambda: logging.getLogger("celery.worker").info("%s ready.", made.plan.setup.node))
    sys.exit(code)


def _concurrency(text: str | None) -> int | None:
    if text in (None, "auto"):
        return None
    try:
        return int(text or 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor 'auto'", param_hint="--concurrency") from None


def _change_process(given: dict[str, Any]) -> None:
    """umask, group and user, in this order: the last one takes the right to do the others."""
    if given["umask"]:
        os.umask(_umask(given["umask"]))
    if given["gid"]:
        os.setgid(_group(given["gid"]))
    if given["uid"]:
        from opsq.runtime.spawn import run_as

        who = run_as(given["uid"])
        if who.uid is not None:
            os.setgroups(who.groups or ())
            if not given["gid"]:
                os.setgid(who.gid or 0)
            os.setuid(who.uid)


def _umask(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no octal number", param_hint="--umask") from None


def _group(name: str) -> int:
    import grp

    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise click.BadParameter(f"there is no group {name!r}", param_hint="--gid") from None


def _configure(app: Any, given: dict[str, Any]) -> None:
    """Flags that are settings."""
    names = {
        "time_limit": "task_time_limit",
        "soft_time_limit": "task_soft_time_limit",
        "max_tasks_per_child": "worker_max_tasks_per_child",
        "max_memory_per_child": "worker_max_memory_per_child",
    }
    for flag, setting in names.items():
        if given[flag] is not None:
            app.conf.put_flag(setting, given[flag], "--" + flag.replace("_", "-"))
    if given["include"]:
        app.conf.put_flag("include", [*(app.conf.include or ()), *given["include"]], "--include")


def _set_up_logs(app: Any, given: dict[str, Any]) -> Any:
    """Celery's log set-up: by the app's own receivers of `setup_logging` if there are any, else ours."""
    from opsq import signals
    from opsq.runtime import logs

    try:
        level = logs.level_number(given["loglevel"])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--loglevel") from None
    told = {"loglevel": level, "logfile": given["logfile"], "format": app.conf.worker_log_format, "colorize": False}
    if signals.setup_logging.send(None, **told):
        return None

    buffer = logs.set_up(
        level,
        format=app.conf.worker_log_format or logs.FORMAT,
        task_format=app.conf.worker_task_log_format or logs.TASK_FORMAT,
        as_json=given["log_format"] == "json",
        logfile=given["logfile"],
        hijack_root=app.conf.worker_hijack_root_logger,
    )
    signals.after_setup_logger.send(None, logger=logging.getLogger(), **told)
    signals.after_setup_task_logger.send(None, logger=logging.getLogger("celery.task"), **told)
    return buffer


def _pidfile(path: str | None) -> AbstractContextManager[None]:
    """Hold the pidfile while the worker runs; a stale one is taken over, a live one refuses."""
    from opsq.runtime import pidfile

    return pidfile.held_by_me(Path(path).absolute()) if path else nullcontext()


def _purge(app: Any, queues: list[str]) -> None:
    from opsq.datastore import keys

    for name in queues:
        app.broker.client.delete(*[app.broker.key(key) for key in keys.priority_lists(name)])


def _banner(context: Context, app: Any, plan: Any, as_json: bool) -> None:
    """What runs where, on stderr, unless quiet or where every line is JSON."""
    if context.out.quiet or as_json:
        return
    from opsq.datastore.connection import masked

    setup = plan.setup
    mine = sorted(name for name in app.tasks if not name.startswith("celery."))
    shown = ", ".join(mine[:8]) + (f" and {len(mine) - 8} more" if len(mine) > 8 else "")
    results = masked(app.backend.url) if app.backend.keeps_results else "not kept"
    rows = [
        ("app", app.main or "(no name)"),
        ("broker", masked(setup.url)),
        ("results", results),
        ("queues", ", ".join(setup.queues)),
        ("children", f"{plan.concurrency} ({setup.pool})"),
        ("tasks", shown or "none"),
    ]
    stream = sys.__stderr__ or sys.stderr
    print(f"{setup.node}  opsq {plan.version}", file=stream)
    for name, value in rows:
        print(f"  {name:9} {value}", file=stream)
    stream.flush()


def _say_what_has_no_effect(given: dict[str, Any]) -> None:
    logger = logging.getLogger("opsq.worker")
    for name, why in WITHOUT_EFFECT.items():
        if given[name]:
            logger.warning("--%s has no effect: %s", name.replace("_", "-"), why)
