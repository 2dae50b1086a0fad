"""What is said over the control socket: one JSON line there, one back; the verbs are those of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from opsq import exceptions
from opsq.exceptions import OpsqError, SupervisorError

#: Grows when a verb changes its meaning; `down` is understood in every version.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants. `repeatable`: harmless when it is asked a second time after a lost answer."""

    verb: ClassVar[str]
    repeatable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Status(Request):
    """How everything stands."""

    verb = "status"


@dataclass(frozen=True, slots=True)
class Up(Request):
    """Bring programs up. `app_named`: the user named the app, so another one that runs is an error."""

    verb = "up"
    plan: Mapping[str, Any]
    names: list[str]
    app_named: bool


@dataclass(frozen=True, slots=True)
class Reload(Request):
    """Make what runs what a newer plan says: start what is new, stop what has gone, restart what has changed.

    `again`: what has not changed is told to read its code and settings again, if it has a signal for that.
    """

    verb = "reload"
    repeatable = False
    plan: Mapping[str, Any]
    dry_run: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class Down(Request):
    """Stop all programs, then the supervisor itself."""

    verb = "down"


@dataclass(frozen=True, slots=True)
class Start(Request):
    """Start programs, by name, group or "all"."""

    verb = "start"
    names: list[str]


@dataclass(frozen=True, slots=True)
class Stop(Request):
    """Stop programs; they stay stopped."""

    verb = "stop"
    names: list[str]


@dataclass(frozen=True, slots=True)
class Restart(Request):
    """Stop programs and start them again."""

    verb = "restart"
    repeatable = False
    names: list[str]


@dataclass(frozen=True, slots=True)
class Signal(Request):
    """Send a signal to the main processes of programs."""

    verb = "signal"
    repeatable = False
    names: list[str]
    signal: int


_ALL = (Status, Up, Reload, Down, Start, Stop, Restart, Signal)
KINDS: Mapping[str, type[Request]] = {kind.verb: kind for kind in _ALL}


def write_request(request: Request) -> bytes:
    """The line of a request."""
    return _line({"version": VERSION, "verb": request.verb, **asdict(request)})


def read_request(line: bytes) -> Request:
    """The request of a line. Raises SupervisorError."""
    try:
        data = json.loads(line)
        verb, version = data.pop("verb"), data.pop("version")
        if version != VERSION and verb != Down.verb:
            raise SupervisorError(
                "the supervisor that runs here is of another version of opsq", hint="opsq down, then opsq up"
            )
        return KINDS[verb](**data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SupervisorError("the supervisor did not understand the request", why=repr(error)) from None


def write_values(values: Mapping[str, Any]) -> bytes:
    """The line of an answer."""
    return _line({"version": VERSION, "values": values})


def write_error(error: OpsqError) -> bytes:
    """The line of an answer that is an error."""
    name = type(error).__name__
    told = {"class": name, "what": error.what, "why": error.why, "hint": error.hint}
    return _line({"version": VERSION, "error": told})


def read_answer(line: bytes) -> Mapping[str, Any]:
    """The values of an answer; raises the error that it is."""
    data = json.loads(line)
    if error := data.get("error"):
        kind = getattr(exceptions, error["class"], SupervisorError)
        raise kind(error["what"], why=error["why"], hint=error["hint"])
    values: Mapping[str, Any] = data["values"]
    return values


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"
