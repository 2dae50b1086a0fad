"""What the commands that are processes share: who they run as, where they log, their pidfile, and what ends them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from opsq.cli.params import options
from opsq.exceptions import UsageError

_LEVEL = click.option(
    "-l", "--loglevel", metavar="LEVEL", default="warning", show_default=True, help="Log this and worse, in any case."
)
#: The options that all of our processes have.
PROCESS_OPTIONS = (
    click.option("-f", "--logfile", metavar="FILE", help="Log there instead of to stderr."),
    click.option(
        "--log-format",
        allow_from_autoenv=False,
        type=click.Choice(["text", "json"]),
        default="text",
        help="One JSON object a line: json.",
    ),
    click.option("--pidfile", metavar="FILE", help="Write the pid there; refuse if that process lives."),
    click.option("--uid", metavar="USER", help="Become this user."),
    click.option("--gid", metavar="GROUP", help="Become this group."),
    click.option("--umask", metavar="OCTAL", help="File mode mask."),
)
DETACH = click.option("-D", "--detach", is_flag=True, help="(Celery) `opsq up` does it.")

#: `--loglevel`, those, and `--detach`.
process_options = options((_LEVEL, *PROCESS_OPTIONS, DETACH))


def refuse_to_detach(name: str, wanted: bool) -> None:
    """Raises UsageError that names the command which does it."""
    if wanted:
        raise click.UsageError(f"opsq does not detach: `opsq up` keeps the {name} running, `opsq down` ends it")


def change_process(given: dict[str, Any]) -> None:
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
            _check_readable(given["uid"])


def _check_readable(user: str) -> None:
    """Raises UsageError when who we are now cannot load what is still to be imported."""
    for path in (os.__file__, __file__, click.__file__):
        if not os.access(path, os.R_OK):
            hint = "install opsq and its Python where that user can read them, not in another one's home"
            raise UsageError(f"cannot run as the user {user!r}", why=f"it may not read {path}", hint=hint)


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


def log_level(given: dict[str, Any]) -> int:
    """The number of the level that is asked for. Raises click's BadParameter."""
    from opsq.runtime import logs

    try:
        return logs.level_number(given["loglevel"])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--loglevel") from None


def set_up_logs(app: Any, given: dict[str, Any]) -> Any:
    """Celery's log set-up: by the app's own receivers of `setup_logging` if there are any, else ours.

    Raises UsageError when the log file cannot be written.
    """
    from opsq import signals
    from opsq.runtime import logs

    conf, level = app.conf, log_level(given)
    look = logs.Look(
        conf.worker_log_format or logs.FORMAT,
        conf.worker_task_log_format or logs.TASK_FORMAT,
        conf.worker_log_datefmt,
        conf.worker_task_log_datefmt,
        _has_colors(conf.worker_log_color, given["logfile"]),
    )
    told = {"loglevel": level, "logfile": given["logfile"], "format": look.format, "colorize": look.color}
    if signals.setup_logging.send(None, **told):
        return None

    as_json, hijack_root = given["log_format"] == "json", conf.worker_hijack_root_logger
    try:
        buffer = logs.set_up(level, look, as_json=as_json, logfile=given["logfile"], hijack_root=hijack_root)
    except OSError as error:
        raise UsageError(f"cannot log to {given['logfile']}", why=(error.strerror or str(error)).lower()) from None
    signals.after_setup_logger.send(None, logger=logging.getLogger(), **told)
    told["format"] = look.task_format
    signals.after_setup_task_logger.send(None, logger=logging.getLogger("celery.task"), **told)
    return buffer


def _has_colors(wish: bool | None, logfile: str | None) -> bool:
    """Whether lines have colours: never in a file or with --no-color; else as the setting says, or in a terminal."""
    flags = click.get_current_context().find_root().obj.flags
    if logfile or flags.get("no_color"):
        return False
    if wish is not None:
        return bool(wish)
    plain = flags.get("plain") or os.environ.get("NO_COLOR")
    return not plain and bool(sys.__stderr__ and sys.__stderr__.isatty())


def check_settings(app: Any) -> None:
    """Raises ImproperlyConfigured for settings that ask for what opsq does not have."""
    from opsq.config import standing

    standing.check(app.conf)


def warn_at_start(app: Any, name: str) -> None:
    """What is said once in the log of a process (`name`): that it runs as root, and which settings have no effect."""
    from opsq.config import standing
    from opsq.platforms import C_FORCE_ROOT

    logger = logging.getLogger(f"opsq.{name}")
    if hasattr(os, "geteuid") and os.geteuid() == 0 and not C_FORCE_ROOT:
        logger.warning(
            "the %s runs as root, and so does whatever is sent to it: use --uid USER, user = in opsq.toml or a "
            "supervisord.conf, User= in a unit of systemd, or set C_FORCE_ROOT=1 if it is meant",
            name,
        )
    if given := standing.without_effect(app.conf):
        logger.info("settings without effect here: %s (`opsq config NAME` says why)", ", ".join(given))


def say_what_has_no_effect(name: str, without_effect: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Log of a process (`name`) which of the options that are given have no effect, and why not."""
    logger = logging.getLogger(f"opsq.{name}")
    for option, why in without_effect.items():
        if given[option]:
            logger.warning("--%s has no effect: %s", option.replace("_", "-"), why)


def pidfile(path: str | None) -> AbstractContextManager[None]:
    """Hold the pidfile while the process runs; a stale one is taken over, a live one refuses. No path: none."""
    from opsq.runtime import pidfile

    return pidfile.held_by_me(Path(path).absolute()) if path else nullcontext()


def is_patient(app: Any) -> bool:
    """Whether a broker that cannot be reached at start is waited for.

    Under a supervisor or systemd it is: nobody reads an error there, and the broker may be starting too. Somebody who
    types the command wants to hear it. `broker_connection_retry_on_startup` decides if it is set.
    """
    wish = app.conf.broker_connection_retry_on_startup
    return bool(os.environ.get("NOTIFY_SOCKET")) if wish is None else bool(wish)


def on_signals(numbers: tuple[signal.Signals, ...], action: Callable[[], None]) -> None:
    """Call this when one of these signals comes."""
    for number in numbers:
        signal.signal(number, lambda *_: action())
