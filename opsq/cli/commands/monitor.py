"""`opsq monitor`: page, JSON and metrics in the foreground; `opsq flower` is the same with Flower's flags."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.foreground import (
    change_process,
    is_patient,
    pidfile,
    process_options,
    refuse_to_detach,
    say_what_has_no_effect,
    set_up_logs,
)
from opsq.cli.frame import command
from opsq.config.options.monitor import BASIC_AUTH_VARIABLE, MONITOR_OPTIONS
from opsq.exceptions import ImproperlyConfigured, SupervisorError, UsageError
from opsq.utils.time import humanize_duration, parse_duration

if TYPE_CHECKING:
    from opsq.monitor.access import Access
    from opsq.monitor.facts import Facts
    from opsq.monitor.server import Place

EXAMPLES = """
opsq -A proj monitor
opsq -A proj monitor --port 8080 --read-only
OPSQ_MONITOR_BASIC_AUTH=anna:secret opsq -A proj monitor --address 0.0.0.0
opsq -A proj flower --basic_auth=anna:secret --url_prefix=flower
"""
logger = logging.getLogger("opsq.monitor")
_TITLE = "opsq monitor"
#: In `run/` of the state directory.
URL_FILE = "monitor.url"
#: How long the page waits for the supervisor's answer (seconds).
_SUPERVISOR_S = 1.0


#: Flags of Flower's that are not needed here, and why: said once when they are used. (Those that decide who may come in
#: are no such flags: they are refused as unknown.)
WITHOUT_EFFECT = {
    "persistent": "the history is kept in Redis",
    "db": "the history is kept in Redis",
    "state_save_interval": "the history is kept in Redis",
    "auto_refresh": "pages follow what happens",
    "natural_time": "times are shown in both ways",
    "inspect_timeout": "workers are not asked, they tell",
    "purge_offline_workers": "workers that have gone are shown for an hour",
    "max_workers": "all are shown",
    "tasks_columns": "columns fit the window",
    "broker_api": "Redis tells all",
    "xheaders": "headers of a proxy on this machine are read",
    "cookie_secret": "cookies hold no secret",
    "debug": "use -l debug",
}


def _flowers_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """They may stand with and without a value, and are not in the help."""
    for name in WITHOUT_EFFECT:
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        function = click.option(*spellings, name, is_flag=False, flag_value="True", hidden=True)(function)
    return function


@command(EXAMPLES)
@click.option("--address", metavar="ADDRESS", help="Where to listen (127.0.0.1); any other demands a password.")
@click.option("--port", type=click.IntRange(1, 65_535), metavar="N", help="The port; default: 5555 or the next free.")
@click.option(
    "--basic-auth", "--basic_auth", "basic_auth", multiple=True, metavar="USER:PASSWORD", help="Who may come in."
)
@click.option("--read-only", is_flag=True, default=None, help="No buttons that act, also with a password.")
@click.option("--url-prefix", "--url_prefix", "url_prefix", metavar="PATH", help="The path behind a reverse proxy.")
@click.option("--certfile", metavar="FILE", help="Certificate (PEM), to serve HTTPS.")
@click.option("--keyfile", metavar="FILE", help="The certificate's key (PEM).")
@click.option(
    "--history",
    "--max_tasks",
    "--max-tasks",
    "history",
    type=click.IntRange(100, 1_000_000),
    metavar="N",
    help="Tasks kept (10000).",
)
@click.option("--history-age", metavar="TIME", help="How long they are kept (7d).")
@click.option("--enable-events/--no-enable-events", "--enable_events/--no-enable_events", default=None,
              help="Have Celery's workers send events (yes).")  # fmt: skip
@_flowers_flags
@process_options
@pass_context
def monitor(context: Context, /, **given: Any) -> None:
    """Show in a browser what runs, what waits and what came of it, and serve JSON and Prometheus metrics.

    Without a password it only shows, and only to this machine. A password is best kept out of command lines:
    OPSQ_MONITOR_BASIC_AUTH, or basic_auth under [monitor] in opsq.toml.
    """
    refuse_to_detach("monitor", given["detach"])
    _hide_password()
    wanted = _wanted(given)
    from opsq.monitor import server

    place = server.Place(
        address=str(wanted["address"]),
        port=wanted["port"],
        prefix=server.prefix_of(wanted["url_prefix"]),
        certfile=wanted["certfile"],
        keyfile=wanted["keyfile"],
    )
    rules = _Rules(given)
    server.check_access(place, rules())
    _check_files(place)
    facts = _facts(context, wanted)
    listener = server.bind(place)
    port = listener.getsockname()[1]
    change_process(given)
    set_up_logs(context.app, given)
    if place.port is None and port != server.DEFAULT_PORT:
        logger.warning("port %d is taken: this monitor listens on %d", server.DEFAULT_PORT, port)
    say_what_has_no_effect("monitor", WITHOUT_EFFECT, given)
    if not is_patient(context.app):
        _check_broker(context)
    with pidfile(given["pidfile"]), _url_file(context, place.url(port)):
        _banner(context, facts, rules(), place.url(port), given["log_format"] == "json")
        server.serve(
            listener, place, facts, rules, when_ready=lambda: _say_ready(place.url(port)), on_reload=rules.reload
        )


def _say_ready(url: str) -> None:
    from opsq.runtime import notify

    logger.info("monitor ready: %s", url)
    notify.ready(url)


def _check_broker(context: Context) -> None:
    """Somebody who types the command hears at once that there is nothing to show."""
    from opsq.datastore.connection import errors

    with errors(context.broker.url):
        context.broker.client.ping()


@contextmanager
def _url_file(context: Context, url: str) -> Iterator[None]:
    """Under `opsq up` a file says where the page is: the port may be another one than usual."""
    if "OPSQ_PROGRAM" not in os.environ:
        yield
        return
    context.state_dir.create()  # that of a program which runs as another user is its own
    path = context.state_dir.run / URL_FILE
    path.write_text(url)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def url_under_supervision(context: Context) -> str | None:
    """Where the page of the monitor is that `opsq up` has started."""
    try:
        return (context.state_dir.run / URL_FILE).read_text()
    except OSError:
        return None


def _banner(context: Context, facts: Facts, rules: Access, url: str, as_json: bool) -> None:
    """Where the page is and what it shows, on stderr."""
    if context.out.quiet or as_json:
        return
    from opsq._version import __version__
    from opsq.datastore.url import masked

    acts = "may act" if rules.may_act else "read-only" if rules.accounts else "read-only, without a password"
    rows = [
        ("page", url),
        ("app", facts.app.main or "(no name)"),
        ("broker", masked(facts.app.broker.url)),
        ("history", f"{facts.history.cap} tasks, {humanize_duration(facts.history.age_s)}"),
        ("access", acts),
    ]
    stream = sys.__stderr__ or sys.stderr
    print(f"opsq monitor {__version__}", file=stream)
    for name, value in rows:
        print(f"  {name:9} {value}", file=stream)
    stream.flush()


def _hide_password() -> None:
    """The process list shows what argv holds: `setproctitle` writes over it."""
    from setproctitle import setproctitle

    setproctitle(_TITLE)


def _wanted(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags, else what `[monitor]` says, else the defaults. `port` is None unless somebody named one."""
    table = _table()
    found: dict[str, Any] = {}
    for option in MONITOR_OPTIONS:
        value = given.get(option.name)
        default = None if option.name == "port" else option.default
        found[option.name] = table.get(option.name, default) if value in (None, ()) else value
    return found


def _table() -> Mapping[str, Any]:
    """`[monitor]` of this folder's opsq.toml."""
    from opsq.config import toml_file

    path = toml_file.find(Path.cwd())
    if path is None:
        return {}
    table = toml_file.load(path).monitor
    for option in MONITOR_OPTIONS:
        value = table.get(option.name)
        several = option.type is list and isinstance(value, str)
        if value is not None and not several and type(value) is not option.type:
            raise toml_file.wrong(path, f"monitor.{option.name} must be of the type {option.type.__name__}")
    return table


class _Rules:
    """Who may come in: the flags, else the environment, else the file, which SIGHUP reads again."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._access = self._read()

    def __call__(self) -> Access:
        """The rules that hold now."""
        return self._access

    def reload(self) -> None:
        """Read the file again; one that cannot be used changes nothing."""
        try:
            fresh = self._read()
        except ImproperlyConfigured as error:
            logger.error("%s; the passwords stay as they are", error)
            return
        if self._access.accounts and not fresh.accounts:
            logger.error("no password is left in the file; the old ones stay")
            return
        self._access = fresh
        logger.info("read again who may come in")

    def _read(self) -> Access:
        from opsq.monitor.access import Access, accounts_of

        wanted = _wanted({**self._given, "basic_auth": ()})
        texts = self._given["basic_auth"] or os.environ.get(BASIC_AUTH_VARIABLE) or wanted["basic_auth"]
        try:
            accounts = accounts_of([texts] if isinstance(texts, str) else texts)
        except ValueError:
            raise ImproperlyConfigured(
                "cannot read --basic-auth", why="it is not USER:PASSWORD", hint="--basic-auth anna:secret"
            ) from None
        return Access(accounts, bool(wanted["read_only"]))


def _check_files(place: Place) -> None:
    if bool(place.certfile) != bool(place.keyfile):
        raise UsageError("HTTPS needs both --certfile and --keyfile")
    if place.certfile and place.keyfile:
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(place.certfile, place.keyfile)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"cannot use {place.certfile} with {place.keyfile}", why=str(error)) from None


def _facts(context: Context, wanted: Mapping[str, Any]) -> Facts:
    from opsq.events.event import Channels
    from opsq.monitor.collector import Collector, Where
    from opsq.monitor.facts import Facts
    from opsq.monitor.store import History

    app = context.app
    try:
        age_s = parse_duration(str(wanted["history_age"]))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--history-age") from None
    history = History(app.broker, int(wanted["history"]), age_s)
    collector = Collector(
        history,
        app.backend.get_meta if app.backend.keeps_results else None,
        ask_celery=bool(wanted["enable_events"]),
        where=Where(
            Channels.of(app.broker.where.db, app.conf.broker_transport_options),
            app.conf.event_exchange,
            app.conf.control_exchange,
        ),
    )
    return Facts(app, history, collector, lambda: _programs(context))


def _programs(context: Context) -> Sequence[Mapping[str, Any]] | None:
    """The programs of this folder's supervisor; None if there is none."""
    from opsq.supervisor import client
    from opsq.supervisor.messages import Status

    if client.keeper(context.state_dir) is None:
        return None
    try:
        programs: Sequence[Mapping[str, Any]] = client.ask(context.state_dir, Status(), _SUPERVISOR_S)["programs"]
    except SupervisorError:
        return None
    return programs
