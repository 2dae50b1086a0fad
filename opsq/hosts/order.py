"""What is signed for hosts: the order and the answer, their bytes, and what an order must satisfy before it is obeyed.

The body is JSON in UTF-8; the bytes that travel are those that are signed, and nobody ever writes them anew.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from opsq.exceptions import OpsqError, UsageError
from opsq.hosts.hostset import HostSet

VERSION = 1
#: A sealed order has this many bytes at least and at most.
SMALLEST, LARGEST = 81, 256 * 1024
#: One signature is for so many hosts at most.
PART_HOSTS = 250
#: The longest time between `iat` and `exp` that hosts accept, and the usual one (seconds).
LONGEST_LIFE_S = 3_600.0
LIFE_S = 60.0
#: How far the clocks of caller and host may be apart before "not valid yet" (seconds).
SKEW_S = 60.0
#: Bytes of each output stream that are kept: of one host, and of all hosts together.
OUTPUT_BYTES = 64 * 1024
OUTPUT_BYTES_ALL = 64 * 1024 * 1024
#: The most that an order may ask a host to keep in memory, of each stream.
LARGEST_OUTPUT = 16 * 1024 * 1024
KILL_AFTER_S = 5.0
LONGEST_TIMEOUT_S = 7 * 86_400.0

Kind = Literal["run", "cancel"]
AnswerState = Literal["accepted", "refused", "ended", "lost"]
_ID = re.compile(r"[0-9a-f]{8,64}")


class Refusal(OpsqError):
    """An order is not carried out; the reason is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Order:
    """What a host is to do. `argv` or `shell` for kind "run"; times in Unix seconds, durations in seconds."""

    kind: Kind
    job: str
    part: int
    targets: str
    by: str
    iat: float
    exp: float
    nonce: str
    argv: tuple[str, ...] | None = None
    shell: str | None = None
    timeout_s: float = 600.0
    kill_after_s: float = KILL_AFTER_S
    output: int = OUTPUT_BYTES
    v: int = VERSION

    def to_bytes(self) -> bytes:
        """The body that is signed."""
        return dumps({name: value for name, value in asdict(self).items() if value is not None})

    @property
    def command(self) -> str:
        """What is run, as a person would type it."""
        import shlex

        return self.shell if self.shell is not None else shlex.join(self.argv or ())

    @classmethod
    def parse(cls, body: bytes) -> Order:
        """Read a body whose signature was checked. Raises Refusal: unknown kinds, fields and versions too."""
        told = loads(body)
        if told is None:
            raise Refusal("the order is no JSON object")
        if told.get("v") != VERSION or isinstance(told["v"], bool):
            raise Refusal(f"the order's version {told.get('v')!r} is not known here: update opsq on this host")
        unknown = sorted(told.keys() - _FIELDS)
        if unknown:
            raise Refusal(f"the order's field {unknown[0]!r} is not known here: update opsq on this host")
        if wrong := next((name for name, is_right in _RIGHT.items() if not is_right(told.get(name))), None):
            raise Refusal(f"the order's field {wrong!r} is missing or wrong")
        if told["kind"] == "run" and (told.get("argv") is None) == (told.get("shell") is None):
            raise Refusal("the order must have either argv or shell")
        argv = told.pop("argv", None)
        return cls(argv=None if argv is None else tuple(argv), **told)

    def in_parts(self, hosts: HostSet) -> list[Order]:
        """The same order for many hosts, in parts with a nonce of their own."""
        names = list(hosts)
        return [
            replace(self, part=at // PART_HOSTS, targets=str(HostSet(names[at : at + PART_HOSTS])), nonce=new_nonce())
            for at in range(0, len(names), PART_HOSTS)
        ]


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


_FIELDS = {field.name for field in fields(Order)}
_RIGHT: Mapping[str, Any] = {
    "kind": lambda value: value in ("run", "cancel"),
    "job": lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None,
    "part": lambda value: isinstance(value, int) and _is_number(value, 0, 1_000_000),
    "targets": lambda value: isinstance(value, str),
    "by": _is_text,
    "iat": lambda value: _is_number(value, 0, 1e11),
    "exp": lambda value: _is_number(value, 0, 1e11),
    "nonce": lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None,
    "argv": lambda value: (
        value is None or (isinstance(value, list) and value != [] and all(map(_is_text, value)) and value[0] != "")
    ),
    "shell": lambda value: value is None or _is_text(value),
    "timeout_s": lambda value: _is_number(value, 0.001, LONGEST_TIMEOUT_S),
    "kill_after_s": lambda value: _is_number(value, 0, 3_600),
    "output": lambda value: isinstance(value, int) and _is_number(value, 0, LARGEST_OUTPUT),
}


@dataclass(frozen=True, slots=True)
class Output:
    """What became of one output stream: how much was written, how much is kept, under which SHA-256."""

    bytes: int
    kept: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host says about an order: `begin` and `end` in Unix seconds, `clock` its offset to Redis in seconds."""

    state: AnswerState
    job: str
    part: int
    nonce: str
    host: str
    instance: str
    reason: str = ""
    exit: int | None = None
    signal: int | None = None
    begin: float | None = None
    end: float | None = None
    out: Output | None = None
    err: Output | None = None
    clock: float | None = None
    v: int = VERSION

    def to_bytes(self) -> bytes:
        """The body that is signed."""
        return dumps(asdict(self))

    @classmethod
    def parse(cls, body: bytes) -> Answer | None:
        """Read a body whose signature was checked; None if it is not understood."""
        told = loads(body)
        if told is None or told.get("v") != VERSION:
            return None
        if not all(is_right(told.get(name)) for name, is_right in _RIGHT_ANSWER.items()):
            return None
        known: dict[str, Any] = {field.name: told.get(field.name) for field in fields(cls)}
        for name in ("out", "err"):
            known[name] = Output(**told[name]) if told.get(name) else None
        return cls(**known)


def _is_output(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and value.keys() == {"bytes", "kept", "sha256"}
        and all(isinstance(value[name], int) and _is_number(value[name], 0, 2**63) for name in ("bytes", "kept"))
        and isinstance(value["sha256"], str)
        and re.fullmatch(r"[0-9a-f]{64}", value["sha256"]) is not None
    )


def _is_moment(value: Any) -> bool:
    return value is None or _is_number(value, -1e11, 1e11)


def _is_code(value: Any) -> bool:
    return value is None or (isinstance(value, int) and _is_number(value, 0, 255))


_RIGHT_ANSWER: Mapping[str, Any] = {
    **{name: _RIGHT[name] for name in ("job", "part", "nonce")},
    **dict.fromkeys(("begin", "end", "clock"), _is_moment),
    **dict.fromkeys(("exit", "signal"), _is_code),
    **dict.fromkeys(("out", "err"), _is_output),
    **dict.fromkeys(("host", "instance", "reason"), _is_text),
    "state": lambda value: value in ("accepted", "refused", "ended", "lost"),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Which order an answer is about, taken from a body that may not be trusted at all."""

    job: str
    part: int
    nonce: str


def subject(body: bytes) -> Subject | None:
    """Which order a body claims to be, for a refusal; None if it is none."""
    told = loads(body)
    if told is None or not all(_RIGHT[name](told.get(name)) for name in ("job", "part", "nonce")):
        return None
    return Subject(told["job"], told["part"], told["nonce"])


def is_for(order: Order, host: str) -> bool:
    """Whether a host is among the targets."""
    try:
        return host in HostSet.parse(order.targets)
    except UsageError:
        return False


def new_nonce() -> str:
    """A number used once."""
    return secrets.token_hex(16)


def new_job_id() -> str:
    """A name for a job that nobody can guess."""
    return secrets.token_hex(6)


def dumps(value: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8, short; text that is no UTF-8 keeps its bytes as escapes."""
    return json.dumps(value, separators=(",", ":")).encode()


def loads(body: bytes) -> dict[str, Any] | None:
    """A JSON object; None if it is anything else, or says a name twice."""
    try:
        found = json.loads(body.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found
