"""What is to run: programs as values; a plan is all of them, their app, and what it was made from."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from opsq.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class Answer:
    """A program is ready when it answers `expect` to `send` on a Unix socket."""

    socket: str
    send: str
    expect: str


@dataclass(frozen=True, slots=True)
class Program:
    """One program: what is executed, and what happens when it ends. The words are supervisord's.

    Log files: None for `stdout_logfile` means log/NAME.log; for `stderr_logfile` that it goes where stdout goes, "auto"
    that it has log/NAME.stderr.log; stderr's limits are stdout's where they are None.
    """

    name: str
    command: tuple[str, ...]
    directory: str
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    umask: int = -1
    group: str | None = None
    autostart: bool = True
    autorestart: str = "unexpected"
    exitcodes: tuple[int, ...] = (0,)
    startsecs: float = 1.0
    startretries: int = 3
    stopsignal: int = signal.SIGTERM
    stopwaitsecs: float = 10.0
    stopasgroup: bool = False
    reloadsignal: int | None = None
    killasgroup: bool = True
    priority: int = 999
    depends_on: Mapping[str, str] = field(default_factory=dict)
    ready: str = "running"
    answer: Answer | None = None
    stdout_logfile: str | None = None
    stderr_logfile: str | None = None
    log_max_bytes: int = 50_000_000
    log_backups: int = 10
    stderr_log_max_bytes: int | None = None
    stderr_log_backups: int | None = None

    def to_data(self) -> dict[str, Any]:
        """As JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """What `to_data` made."""
        answer = data.get("answer")
        return cls(
            **{
                **data,
                "command": tuple(data["command"]),
                "exitcodes": tuple(data["exitcodes"]),
                "answer": Answer(**answer) if answer else None,
            }
        )


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker of the app; kept for those who ask the supervisor what waits, it never connects itself.

    `priorities`: what the transport options say about the lists of each queue.
    """

    url: str
    key_prefix: str = ""
    priorities: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """All programs, the app that ours work for (what `-A` said, or None), and its broker.

    `origin`: what whoever made it was told (folder, flags, files, number of copies), to make it once more.
    """

    app: str | None = None
    programs: Mapping[str, Program] = field(default_factory=dict)
    broker: Broker | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """As JSON can carry it."""
        programs = [program.to_data() for program in self.programs.values()]
        broker = asdict(self.broker) if self.broker else None
        return {"app": self.app, "programs": programs, "broker": broker, "origin": self.origin}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """What `to_data` made."""
        programs = [Program.from_data(each) for each in data["programs"]]
        broker = Broker(**data["broker"]) if data["broker"] else None
        return cls(data["app"], {program.name: program for program in programs}, broker, data.get("origin", {}))

    def with_more(self, newer: Plan) -> Plan:
        """This plan and what a newer one adds or changes."""
        origin = {**newer.origin, "scale": {**self.origin.get("scale", {}), **newer.origin.get("scale", {})}}
        return Plan(newer.app or self.app, {**self.programs, **newer.programs}, newer.broker or self.broker, origin)

    def without(self, names: Iterable[str]) -> Plan:
        """This plan with fewer programs."""
        gone = set(names)
        programs = {name: program for name, program in self.programs.items() if name not in gone}
        return replace(self, programs=programs)

    def changed_in(self, newer: Plan) -> list[str]:
        """Names of the programs that both plans have and that differ in more than the group that they belong to."""
        both = {name: program for name, program in self.programs.items() if name in newer.programs}
        return [
            name
            for name, mine in both.items()
            if replace(mine, group=newer.programs[name].group) != newer.programs[name]
        ]

    def missing_in(self, newer: Plan) -> list[str]:
        """Names of the programs that a newer plan no longer has."""
        return [name for name in self.programs if name not in newer.programs]

    def needed_by(self, names: Iterable[str]) -> set[str]:
        """The programs of these names and all that they depend on."""
        needed: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in needed and name in self.programs:
                needed.add(name)
                waiting.extend(self.programs[name].depends_on)
        return needed


def check(plan: Plan) -> None:
    """Refuse what can never be started: dependencies that do not exist or go in a circle."""
    for program in plan.programs.values():
        for other, condition in program.depends_on.items():
            if other not in plan.programs:
                raise wrong(program.name, f"it depends on {other!r}, which is no program here")
            if condition not in ("started", "ready"):
                raise wrong(program.name, f'{other!r} can be "started" or "ready", not {condition!r}')
            if program.name in plan.needed_by([other]):
                raise wrong(program.name, f"it and {other!r} depend on each other")


def wrong(name: str, why: str) -> ImproperlyConfigured:
    """The error for a program that cannot be used."""
    return ImproperlyConfigured(f"cannot use the program {name!r}", why=why)
