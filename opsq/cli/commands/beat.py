"""`opsq beat`: the scheduler of periodic tasks in the foreground; and the same beside a worker (`worker -B`)."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.foreground import (
    change_process,
    check_settings,
    is_patient,
    on_signals,
    pidfile,
    process_options,
    refuse_to_detach,
    set_up_logs,
    warn_at_start,
)
from opsq.cli.open_command import Open
from opsq.exceptions import UsageError

EXAMPLES = """
opsq -A proj beat -l info
opsq -A proj beat --max-interval 5 --pidfile /run/proj/beat.pid
opsq -A proj worker -B -l info
"""
#: Schedulers of others whose schedule is the app's settings, as ours is.
SAME = ("PersistentScheduler", "Scheduler")
#: Those whose schedule is in Django's database.
DJANGO = ("django", "django_celery_beat.schedulers.DatabaseScheduler")
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: A beat beside a worker that ended by itself is started again after so long (seconds).
START_AGAIN_S = 1.0


@click.command(cls=Open, examples=EXAMPLES)
@click.option("-s", "--schedule", "--schedule-filename", "schedule", metavar="FILE", help="(Celery) Kept in Redis.")
@click.option("-S", "--scheduler", metavar="CLASS", help="django: entries in Django's database; or module:Class.")
@click.option("--max-interval", type=click.FloatRange(0), metavar="S", help="Sleep at most so long between two looks.")
@click.option("-n", "--hostname", metavar="NAME", help="(Celery) A beat is known by its app.")
@click.option(
    "--enable-remote-control/--no-enable-remote-control", default=None, help="(Celery) Its lease tells that it lives."
)
@click.option("--executable", metavar="FILE", help="(Celery)")
@process_options
@pass_context
def beat(context: Context, /, **given: Any) -> None:
    """Send the app's periodic tasks when they are due.

    Of several beats of one app one ticks; another one takes over when it ends. SIGTERM or Ctrl-C end it, SIGHUP
    starts it anew with today's code.
    """
    from opsq import signals
    from opsq.runtime import notify

    refuse_to_detach("beat", given["detach"])
    app = context.app
    scheduler = check_scheduler(given["scheduler"] or app.conf.beat_scheduler)
    change_process(given)
    set_up_logs(app, given)
    check_settings(app)
    warn_at_start(app, "beat")
    made = _prepared(app, given["max_interval"], scheduler)
    again = False

    def start_again() -> None:
        nonlocal again
        again = True
        made.stop()

    on_signals(ENDING, made.stop)
    on_signals((signal.SIGHUP,), start_again)
    with pidfile(given["pidfile"]):
        _banner(context, made, given["log_format"] == "json")
        logging.getLogger("celery.beat").info("beat: Starting...")
        signals.beat_init.send(made)
        made.run(notify.ready, patient=is_patient(app))
        notify.stopping()
    logging.getLogger("celery.beat").info("beat: Shutting down...")
    if again:
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def check_scheduler(name: Any) -> str:
    """The scheduler that is meant: of SAME, DJANGO[0], or a class of the program's own. Raises UsageError."""
    text = str(name or SAME[0])
    path = text.replace(":", ".")
    if path in DJANGO:
        return _check_django(text)
    module, _, kind = path.rpartition(".")
    if kind in SAME and module.partition(".")[0] in ("", "celery", "opsq"):
        return kind
    from opsq.beat.scheduler import scheduler_class

    scheduler_class(text)
    return text


def _check_django(text: str) -> str:
    """Raises UsageError where there is no Django project."""
    if importlib.util.find_spec("django") is None:
        why, hint = "Django is not installed", "pip install 'opsq[django]'"
    elif not os.environ.get("DJANGO_SETTINGS_MODULE"):
        why, hint = "DJANGO_SETTINGS_MODULE is not set", "set it in the app's module, as in docs/django.md"
    else:
        return DJANGO[0]
    raise UsageError(f"cannot use the scheduler {text!r}", why=why, hint=hint)


def _prepared(app: Any, max_interval_s: float | None, scheduler: str) -> Any:
    """The beat, with all that the app's modules add to the schedule."""
    from opsq.beat.beat import Beat

    app.import_tasks()
    app.finalize()
    source = None if scheduler in SAME else _database() if scheduler == DJANGO[0] else _own(scheduler)
    return Beat(app, max_interval_s=max_interval_s or app.conf.beat_max_loop_interval or None, source=source)


def _own(name: str) -> Any:
    from opsq.beat.scheduler import FromScheduler, scheduler_class

    kind = scheduler_class(name)
    return lambda app, _own: FromScheduler(app, kind(app))


def _database() -> Any:
    from opsq.contrib.django.setup import set_up

    set_up()
    return importlib.import_module("opsq.contrib.django.schedules").Database


def _banner(context: Context, made: Any, as_json: bool) -> None:
    if context.out.quiet or as_json:
        return
    from opsq._version import __version__
    from opsq.datastore.url import masked

    entries = ", ".join(list(made.own.entries)[:8]) or "none"
    more = len(made.own.entries) - 8
    rows = [
        ("app", made.name),
        ("broker", masked(made.broker.url)),
        ("timezone", str(made.app.timezone)),
        ("entries", made.source.place or entries + (f" and {more} more" if more > 0 else "")),
    ]
    stream = sys.__stderr__ or sys.stderr
    print(f"opsq beat {__version__} is starting.", file=stream)
    for name, value in rows:
        print(f"  {name:9} {value}", file=stream)
    stream.flush()


# -- beside a worker ---------------------------------------------------------------------------------------------------


@contextmanager
def beside(app: Any, scheduler: str | None) -> Iterator[None]:
    """Run a beat in a process of its own while the block runs; it ends with this process, however that ends."""
    found = check_scheduler(scheduler or app.conf.beat_scheduler)
    child = _fork(lambda: _keep(app, found))
    try:
        yield
    finally:
        _end(child)


def _fork(work: Callable[[], None]) -> int:
    """A process that does the work and dies with this one; its pid. No signal is lost on the way."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    child = os.fork()
    if not child:
        _be_child(work, parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    return child


def _be_child(work: Callable[[], None], parent: int) -> NoReturn:
    from opsq.runtime.parent import die_with_parent

    code = 1
    try:
        die_with_parent(parent)
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        os.environ.pop("NOTIFY_SOCKET", None)  # the worker speaks for both
        work()
        code = 0
    except BaseException:
        logging.getLogger("celery.beat").exception("beat: ended by an error")
    finally:
        logging.shutdown()
        os._exit(code)


def _keep(app: Any, scheduler: str) -> None:
    """Keep a beat running until told to end: what cannot be is said, and tried again."""
    stopping = False
    current = 0

    def stop() -> None:
        nonlocal stopping
        stopping = True
        if current:
            with suppress(ProcessLookupError):  # it has just ended, and this process has not taken note of it yet
                os.kill(current, signal.SIGTERM)

    on_signals(ENDING, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while not stopping:
        current = _fork(lambda: _tick(app, scheduler))
        if stopping:
            stop()
        status = os.waitpid(current, 0)[1]
        current = 0
        if not stopping:
            logging.getLogger("celery.beat").error("beat: ended (%s), another one starts", _how(status))
            time.sleep(START_AGAIN_S)


def _tick(app: Any, scheduler: str) -> None:
    from opsq import signals

    made = _prepared(app, None, scheduler)
    on_signals(ENDING, made.stop)
    signals.beat_embedded_init.send(made)
    made.run(patient=True)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end(child: int) -> None:
    try:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
