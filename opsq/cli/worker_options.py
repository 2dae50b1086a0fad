"""The options of `opsq worker`: every one of Celery's, in the order of the help."""

from __future__ import annotations

import click

from opsq.cli.foreground import DETACH, PROCESS_OPTIONS
from opsq.cli.params import names

OPTIONS = (
    click.option("-n", "--hostname", metavar="NAME", help="Node name; %h host, %n its first part, %d its domain."),
    click.option("-l", "--loglevel", metavar="LEVEL", default="warning", show_default=True, help="In any case."),
    click.option("-c", "--concurrency", metavar="N|auto", help="Tasks at once; default: the CPUs (asyncio: 100)."),
    click.option("-P", "--pool", metavar="POOL", help="prefork (default), solo, threads, asyncio, gevent, eventlet."),
    click.option(
        "-Q", "--queues", multiple=True, callback=names, metavar="LIST", help="Queues; default: all of the app."
    ),
    click.option("-X", "--exclude-queues", multiple=True, callback=names, metavar="LIST", help="Queues to leave out."),
    click.option("-I", "--include", multiple=True, callback=names, metavar="LIST", help="More modules with tasks."),
    click.option("--time-limit", type=click.FloatRange(0), metavar="S", help="Hard time limit of a task, seconds."),
    click.option(
        "--soft-time-limit", type=click.FloatRange(0), metavar="S", help="Soft time limit of a task, seconds."
    ),
    click.option("--max-tasks-per-child", type=click.IntRange(0), metavar="N", help="Replace a child after N tasks."),
    click.option(
        "--max-memory-per-child",
        type=click.IntRange(0),
        metavar="KIB",
        help="Replace a child that has grown beyond KIB.",
    ),
    click.option(
        "--prefetch-multiplier",
        type=click.IntRange(0),
        metavar="N",
        help="Most messages in a child's hand; 0 = automatic.",
    ),
    click.option(
        "--lease",
        allow_from_autoenv=False,
        type=click.FloatRange(0.3),
        metavar="S",
        help="Peers take over this long after its last sign of life; 15.",
    ),
    click.option("--purge", "--discard", "purge", is_flag=True, help="Empty the queues first."),
    *PROCESS_OPTIONS,
    click.option(
        "-E",
        "--task-events",
        "--events",
        "events",
        is_flag=True,
        help="Send task events always, not only when somebody listens.",
    ),
    click.option("-O", "--optimization", metavar="NAME", help="(Celery) Always fair here."),
    click.option("--disable-prefetch", is_flag=True, help="A child holds no message but the one it runs."),
    click.option("--without-gossip", is_flag=True, help="(Celery) There is none: what it tells is in Redis."),
    click.option("--without-mingle", is_flag=True, help="Do not ask Celery's workers what is revoked."),
    click.option("--without-heartbeat", is_flag=True, help="Send no worker-heartbeat events; leases go on."),
    click.option(
        "--heartbeat-interval", type=click.FloatRange(0), metavar="S", help="Between two heartbeat events; 2."
    ),
    click.option("--autoscale", metavar="MAX,MIN", help="As many children as are needed between MIN and MAX."),
    click.option(
        "--reload",
        allow_from_autoenv=False,
        is_flag=True,
        help="In development: read the code again when a source file changes.",
    ),
    click.option("-B", "--beat", is_flag=True, help="Run the scheduler of periodic tasks too."),
    click.option("-s", "--schedule", "--schedule-filename", "schedule", metavar="FILE", help="(Celery) Kept in Redis."),
    click.option("--scheduler", metavar="CLASS", help="With -B: where its entries come from, module:Class."),
    click.option("-S", "--statedb", metavar="FILE", help="(Celery)"),
    click.option("--pool-start-method", metavar="NAME", help="(Celery)"),
    DETACH,
    click.option("--executable", metavar="FILE", help="(Celery)"),
    click.option("--loader", metavar="NAME", help="(Celery)"),
    click.option("--skip-checks", is_flag=True, help="(Celery) There are none."),
)

#: Options of Celery's whose effect does not exist here: what to say once when they are used.
WITHOUT_EFFECT = {
    "statedb": "revoked tasks are kept in Redis; the file is not needed",
    "schedule": "when entries last ran is kept in Redis; the file is not needed",
    "pool_start_method": "children are forked from a clean template",
    "detach": "use `opsq up`: it keeps the worker running",
    "executable": "it is for --detach",
    "loader": "modules are found by -A and --include",
}
