"""`opsq worker`: a worker in the foreground, with every option of Celery's."""

from __future__ import annotations

import gc
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsq import platforms
from opsq.cli.context import Context, pass_context
from opsq.cli.foreground import (
    change_process,
    check_settings,
    log_level,
    pidfile,
    refuse_to_detach,
    say_what_has_no_effect,
    set_up_logs,
    warn_at_start,
)
from opsq.cli.open_command import Open
from opsq.cli.params import options
from opsq.cli.user_options import with_defaults
from opsq.cli.worker_options import OPTIONS, WITHOUT_EFFECT
from opsq.config import toml_file
from opsq.exceptions import UsageError

if TYPE_CHECKING:
    from opsq.worker.alone import Alone
    from opsq.worker.newcomer import Newcomer
    from opsq.worker.worker import Worker

EXAMPLES = """
opsq -A proj worker -l info
opsq -A proj worker -Q mail,celery -c 4
opsq worker -A proj -P solo -l debug
"""

_NEWCOMER = "opsq.worker.newcomer"


class _Worker(Open):
    """The flags that are not given are those of `[worker]`, if this is a worker of `opsq up`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the table, then parse. A process that becomes the template of another one tells that what is wrong."""
        with _telling(ctx):
            ctx.default_map = self._table(os.environ.get(toml_file.WORKER_FLAGS))
            return super().parse_args(ctx, args)

    def _table(self, path: str | None) -> dict[str, Any] | None:
        """The table by names of parameters; log level info, as for all that `opsq up` starts."""
        if not path:
            return None
        table = toml_file.load(Path(path)).worker if os.path.exists(path) else {}
        options = [param for param in self.params if isinstance(param, click.Option)]
        by_name = {name[2:].replace("-", "_"): each for each in options for name in each.opts if name[:2] == "--"}
        found: dict[str, Any] = {"loglevel": "info"}
        for key, value in table.items():
            option = by_name.get(key.replace("-", "_"))
            if option is None:
                raise toml_file.unknown(Path(path), key, "key of [worker]", sorted(by_name))
            several = option.multiple and not isinstance(value, list)
            found[str(option.name)] = [value] if several else value
        return found


def _telling(ctx: click.Context) -> AbstractContextManager[None]:
    """Whatever goes wrong is told to the worker that has started this process by exec (after SIGHUP), if one has."""
    from opsq.runtime.parent import TEMPLATE_LINK

    if TEMPLATE_LINK not in os.environ:
        return nullcontext()
    from opsq.worker.newcomer import Newcomer

    ctx.meta[_NEWCOMER] = newcomer = Newcomer.from_environment()
    return newcomer.telling()


@click.command(cls=_Worker, examples=EXAMPLES)
@options(OPTIONS)
@pass_context
def worker(context: Context, /, **given: Any) -> None:
    """Run a worker in the foreground.

    SIGTERM or Ctrl-C stop it when what runs has ended, a second one at once. SIGHUP reads code and settings again and
    replaces its children one by one; nothing is interrupted, and code that cannot be imported changes nothing.
    """
    from opsq import signals
    from opsq.worker import greenchild

    newcomer: Newcomer | None = click.get_current_context().meta.get(_NEWCOMER)
    if newcomer is not None:
        with newcomer.telling():
            newcomer.serve(_prepare(context, given, newcomer))
    if (told := greenchild.told()) is not None:
        greenchild.serve(_prepare(context, given, None, told.setup.worker_id), told)
    refuse_to_detach("worker", given["detach"])
    change_process(given)
    made = _prepare(context, given, None)
    app, node = made.app, made.hostname
    signals.celeryd_after_setup.send(node, instance=made, conf=app.conf)
    with pidfile(given["pidfile"]), _beat_beside(app, given):
        if given["purge"]:
            _purge(app, made.plan.setup.queues)
        _banner(context, app, made.plan, given["log_format"] == "json")
        say_what_has_no_effect("worker", WITHOUT_EFFECT, given)
        warn_at_start(app, "worker")
        code = made.run(lambda: logging.getLogger("celery.worker").info("%s ready.", made.plan.setup.node))
    gc.freeze()  # all that is left goes with the process: searching it for circles takes longer than the stop
    sys.exit(code)


def _prepare(context: Context, given: dict[str, Any], newcomer: Newcomer | None, own_id: str = "") -> Any:
    """A worker that has all it needs. `newcomer`, or the id: this process belongs to one that runs already."""
    from opsq import signals
    from opsq.concurrency.base import pool_named
    from opsq.utils.nodenames import default_nodename, node_format
    from opsq.worker.assemble import LEASE_S, Wishes, equip

    app = context.app
    _configure(app, given)
    app.import_tasks()
    node = default_nodename(given["hostname"])
    if newcomer is not None:
        pool = pool_named(given["pool"] or app.conf.worker_pool or "prefork").name
        newcomer.keep(app, node, pool, given["lease"] or LEASE_S)
        node, given["pool"] = newcomer.told.node, newcomer.told.pool
    for name in ("logfile", "pidfile"):
        given[name] = given[name] and node_format(given[name], node)
    made = _kind_of_worker(given)(app, node)
    signals.celeryd_init.send(node, instance=made, conf=app.conf, options=with_defaults(app, "worker", given))
    buffer = set_up_logs(app, given)
    check_settings(app)
    told = newcomer.told if newcomer is not None else None
    wishes = Wishes(
        queues=given["queues"],
        exclude=[*given["exclude_queues"], *(told.cancelled if told else ())],
        also=told.also if told else (),
        concurrency=_concurrency(given["concurrency"]),
        pool=given["pool"],
        prefetch=given["prefetch_multiplier"],
        lease_s=given["lease"],
        heartbeat_s=0 if given["without_heartbeat"] else given["heartbeat_interval"],
        autoscale=_autoscale(given["autoscale"]),
        log_level=log_level(given),
        reload=given["reload"],
        mingles=not given["without_mingle"],
    )
    state = context.state_dir
    state.create()
    state.slots.mkdir(mode=0o700, parents=True, exist_ok=True)
    equip(made, wishes, state.slots, buffer, newcomer.told.worker_id if newcomer else own_id)
    return made


def _kind_of_worker(given: dict[str, Any]) -> type[Worker | Alone]:
    """A parent with children; where processes cannot be looked after, one process alone with the pools it has."""
    if platforms.HAS_PROCESSES:
        from opsq.worker.worker import Worker

        return Worker
    from opsq.worker import alone

    if given["beat"]:
        raise UsageError(f"cannot run a beat on {platforms.SYSTEM}", why="it is a process of its own, forked")
    given["pool"] = given["pool"] or alone.POOLS[0]
    if given["pool"] not in alone.POOLS:
        raise UsageError(
            f"cannot run the pool {given['pool']} on {platforms.SYSTEM}",
            why="it needs processes that can be forked and watched as on Linux",
            hint="-P solo, or -P threads -c N",
        )
    return alone.Alone


def _beat_beside(app: Any, given: dict[str, Any]) -> AbstractContextManager[None]:
    """`-B`: the beat in a process of its own, which ends with the worker."""
    if not given["beat"]:
        return nullcontext()
    from opsq.cli.commands.beat import beside

    return beside(app, given["scheduler"])


def _concurrency(text: str | None) -> int | None:
    if text in (None, "auto"):
        return None
    try:
        return int(text or 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor 'auto'", param_hint="--concurrency") from None


def _autoscale(text: str | None) -> tuple[int, int] | None:
    """Celery's MAX,MIN; without MIN it is 0."""
    if text is None:
        return None
    try:
        most, _, least = text.partition(",")
        return int(most), int(least or 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not MAX,MIN", param_hint="--autoscale") from None


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
    if given["disable_prefetch"]:
        app.conf.put_flag("worker_disable_prefetch", True, "--disable-prefetch")
    if given["events"]:
        app.conf.put_flag("worker_send_task_events", True, "--task-events")
    if given["include"]:
        app.conf.put_flag("include", [*(app.conf.include or ()), *given["include"]], "--include")


def _purge(app: Any, queues: list[str]) -> None:
    from opsq.broker.moving import purge

    for name in queues:
        purge(app.broker, name)


def _banner(context: Context, app: Any, plan: Any, as_json: bool) -> None:
    """What runs where, on stderr, unless quiet or where every line is JSON."""
    if context.out.quiet or as_json:
        return
    from opsq.datastore.url import masked

    setup = plan.setup
    mine = sorted(name for name in app.tasks if not name.startswith("celery."))
    shown = ", ".join(mine[:8]) + (f" and {len(mine) - 8} more" if len(mine) > 8 else "")
    results = masked(app.backend.url) if app.backend.keeps_results else "not kept"
    rows = [
        ("app", app.main or "(no name)"),
        ("broker", masked(setup.url)),
        ("results", results),
        ("queues", ", ".join(setup.queues)),
        _size(plan.terms, setup.pool),
        ("tasks", shown or "none"),
    ]
    stream = sys.__stderr__ or sys.stderr
    print(f"{setup.node}  opsq {plan.version}", file=stream)
    for name, value in rows:
        print(f"  {name:9} {value}", file=stream)
    stream.flush()


def _size(terms: Any, pool: str) -> tuple[str, str]:
    if terms.caps.at_once > 1:
        return "at once", f"{terms.caps.at_once} ({pool})"
    count = str(terms.most) if terms.least == terms.most else f"{terms.least} to {terms.most}"
    return "children", f"{count} ({pool})"
