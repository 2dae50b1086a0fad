"""The one place of the command line that catches errors: a class becomes a sentence and an exit code.

0 done; 1 the work failed; 2 usage; 3 cannot reach; 4 refused; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import click

from opsq import exceptions

DONE, FAILED, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130

#: The first class that fits decides.
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (exceptions.UsageError, USAGE),
    (exceptions.ImproperlyConfigured, USAGE),
    (exceptions.NotRegistered, USAGE),
    (exceptions.BrokerError, UNREACHABLE),
    (exceptions.SupervisorError, UNREACHABLE),
    (exceptions.HostsError, UNREACHABLE),
    (exceptions.TimeoutError, UNREACHABLE),
    (exceptions.RefusedError, REFUSED),
    (exceptions.SecurityError, REFUSED),
    (exceptions.OpsqError, FAILED),
    (click.UsageError, USAGE),
    (click.ClickException, FAILED),
    (PermissionError, REFUSED),
    (OSError, FAILED),
)


class Told(NamedTuple):
    """An error as the user reads it."""

    what: str
    why: str | None
    hint: str | None
    exit_code: int

    def write(self, json: bool) -> None:
        """One line and a hint on stderr; with `json` one object on stdout, so that there is always JSON to read."""
        if json:
            import json as jsonlib  # not paid for by command lines that go well

            error = {"what": self.what, "why": self.why, "hint": self.hint}
            print(jsonlib.dumps({"error": error}), flush=True)
            return
        stream = sys.__stderr__ or sys.stderr  # a worker may have turned `sys.stderr` into log lines
        print(f"opsq: {self.what}: {self.why}" if self.why else f"opsq: {self.what}", file=stream)
        if self.hint:
            print(f"hint: {self.hint}", file=stream)


#: What click says of values, and what is said instead.
_PLAINER = (
    ("is not a valid integer range", "is no whole number"),
    ("is not a valid integer", "is no whole number"),
    ("is not a valid float range", "is no number"),
    ("is not a valid float", "is no number"),
)


def guard(work: Callable[[], None], json: bool = False) -> int:
    """Do the work of a command line; the exit code. Nothing but SystemExit comes out of here."""
    try:
        work()
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        _stop_writing()
        return DONE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        told = tell(error)
        if told is None:
            sys.excepthook(type(error), error, error.__traceback__)
            told = Told(
                "opsq failed", f"{type(error).__name__}: {error}", "please report this, with the lines above", 1
            )
        told.write(json)
        return told.exit_code
    finally:
        # By `python -m` Python would end itself by the signal if an interrupt came inside a text that was executed (as
        # those of data classes are while a module is imported), handled or not; the next text makes it forget that.
        exec("")
    return DONE


def tell(error: Exception) -> Told | None:
    """The sentence for an error; None when it is nobody's mistake but opsq's own."""
    code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), None)
    if code is None:
        return None
    if isinstance(error, exceptions.OpsqError):
        return Told(_one_line(error.what), _one_line(error.why) or None, error.hint or None, code)
    if isinstance(error, click.ClickException):
        return _of_click(error, code)
    assert isinstance(error, OSError)
    what = f"cannot use {error.filename}" if error.filename else "the system refused"
    return Told(what, (error.strerror or str(error)).lower(), None, code)


def _of_click(error: click.ClickException, code: int) -> Told:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return Told("a command is missing", None, f"{_path(error)} --help", code)
    message = error.format_message().rstrip(".")
    what = message[:1].lower() + message[1:]
    for wordy, plain in _PLAINER:
        what = what.replace(wordy, plain)
    hint = f"{_path(error)} --help"
    if isinstance(error, click.BadParameter) and (variable := _variable(error)):
        hint = f"the value is of the variable {variable}"
    if isinstance(error, click.NoSuchOption):
        what = f"no such option: {error.option_name}"
        if error.possibilities:
            hint = f"did you mean {' or '.join(sorted(error.possibilities)[:3])}?"
    return Told(_one_line(what), None, hint, code)


def _variable(error: click.BadParameter) -> str | None:
    """The variable of the environment that the value was in, if it was."""
    ctx = error.ctx
    if ctx is None:
        return None
    for param in ctx.command.params:
        from_variable = ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.ENVIRONMENT
        if from_variable and (param is error.param or error.param_hint in param.opts):
            return str(param.envvar or f"{ctx.auto_envvar_prefix}_{param.name}".upper())
    return None


def _path(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    return ctx.command_path if ctx is not None else "opsq"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _stop_writing() -> None:
    """The reader has gone; what is still buffered must not fail again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
