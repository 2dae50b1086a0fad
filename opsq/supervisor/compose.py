"""What `opsq up` starts in a folder: our own programs, a row each in one table, and those of the project's file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opsq.config import toml_file
from opsq.config.toml_file import SERVICES, ProjectFile
from opsq.exceptions import UsageError
from opsq.project import find_django
from opsq.runtime import notify, statedir
from opsq.runtime.statedir import StateDir
from opsq.supervisor import celery_commands, plan, private_redis, supervisord_file, tables
from opsq.supervisor.plan import Broker, Plan, Program

#: The app of a worker for which nobody named one.
OWN_APP = "opsq.app.own"
_MAKES_AN_APP = re.compile(r"^\w+(?:\s*:[^=]+)?\s*=\s*(?:\w+\.)?(?:App|Celery)\(", re.MULTILINE)
_USES_OPSQ = re.compile(r"^\s*(?:from|import)\s+opsq\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where and for what: the folder, its file, the app (None: nobody named one), broker and results given by flags.

    `reload`: workers read their code again when a file changes; `found`: what a supervisord file says, which then takes
    the place of `file`; `scale`: how many copies of a program; `origin`: what `find_place` was told, so that it can be
    told once more.
    """

    state: StateDir
    folder: Path
    file: ProjectFile
    app: str | None
    broker: str | None = None
    results: str | None = None
    reload: bool = False
    found: supervisord_file.Found | None = None
    scale: Mapping[str, int] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scalable(self) -> tuple[str, ...]:
        """What may run in several copies."""
        own = ("worker",) if "worker" in self.services else ()
        return (*own, *(self.found.sections if self.found else self.file.programs))

    @property
    def services(self) -> tuple[str, ...]:
        """Which of our own programs are wanted."""
        if self.file.services is not None:
            return self.file.services
        if (self.file.programs or self.found) and self.app is None:
            return ()
        taken = celery_commands.roles(self._commands(), self.app)
        return tuple(name for name in SERVICES if name not in taken)

    def _commands(self) -> Iterator[tuple[str, ...]]:
        if self.found is not None:
            yield from (program.command for program in self.found.programs.values())
            return
        for table in self.file.programs.values():
            with suppress(KeyError, ValueError):  # what is wrong is told of the program
                yield tables.words(table["command"])


def find_place(
    state: StateDir,
    here: Path,
    flags: Mapping[str, Any],
    supervisord: str | None = None,
    scale: Mapping[str, int] | None = None,
) -> Place:
    """What the flags, the environment and the project's file say about this folder. Raises ImproperlyConfigured.

    `supervisord`: a supervisord.conf that is read instead of the project's file.
    """
    app = flags.get("app") or os.environ.get("OPSQ_APP")
    path = toml_file.find(here) if supervisord is None else None
    file = toml_file.load(path) if path is not None else ProjectFile(here / "opsq.toml")
    beside = path is not None and path.parent.is_dir() and not app
    named = app or file.app
    django = find_django(here) if supervisord is None and not named else None
    folder = django.folder if django is not None else file.path.parent if beside else here
    scale = scale or {}
    config = os.environ.get("OPSQ_CONFIG")
    told = {"app": app, **{name: flags.get(name) for name in ("broker", "result_backend", "reload")}}
    return Place(
        state,
        folder,
        file,
        named or (django.app if django is not None else None),
        told["broker"],
        told["result_backend"],
        bool(told["reload"]),
        supervisord_file.read(Path(supervisord), here, scale) if supervisord is not None else None,
        scale,
        {"here": str(here), "flags": told, "config": config, "supervisord": supervisord, "scale": dict(scale)},
    )


def same_place(state: StateDir, origin: Mapping[str, Any], scale: Mapping[str, int]) -> Place:
    """The place that a running plan was made for, as it is described now."""
    scale = {**origin.get("scale", {}), **scale}
    if origin.get("config"):
        os.environ["OPSQ_CONFIG"] = origin["config"]
    return find_place(state, Path(origin["here"]), origin["flags"], origin["supervisord"], scale)


def compose(place: Place) -> Plan:
    """The plan. Asks the app for its broker, and makes the private Redis ready to start if there is none."""
    programs: dict[str, Program] = {}
    services = place.services
    named, spec = ask_app(place) if services else (None, None)
    place = replace(place, app=place.app or spec)
    private = bool(services) and named is None
    for name in SERVICES:
        if private if name == private_redis.NAME else name in services:
            programs[name] = _OURS[name](place, private)
    if named is not None and "agent" in programs:
        programs["agent"] = replace(programs["agent"], environment={"OPSQ_BROKER_URL": named.url})
    programs |= _named_in_file(place, programs)
    for name in place.scale:
        programs |= _copies(place, name, programs)
    if place.found is not None:
        programs |= place.found.programs
    needs = {private_redis.NAME: "ready"} if private else {}
    programs = {name: celery_commands.as_ours(program, needs) for name, program in programs.items()}
    shared = _shared_environment(place, private)
    programs = {
        name: replace(
            program,
            environment={**shared, **_told(program), **program.environment},
            depends_on=_needed(program, programs),
        )
        for name, program in programs.items()
    }
    app = (place.app or OWN_APP) if "worker" in services else place.app
    broker = Broker(statedir.redis_url(place.state)) if private else named
    made = Plan(app, programs, broker, place.origin)
    plan.check(made)
    return made


def _told(program: Program) -> dict[str, str]:
    """A worker stops by itself just before it would be killed: what it holds is settled."""
    celerys = celery_commands.written(program)
    ours = "worker" in program.command and any(Path(word).name == "opsq" for word in program.command)
    is_worker = celerys.name == "worker" if celerys is not None else ours
    return {notify.STOPWAITSECS: f"{program.stopwaitsecs:g}"} if is_worker else {}


def _named_in_file(place: Place, ours: Mapping[str, Program]) -> dict[str, Program]:
    made: dict[str, Program] = {}
    for name, table in place.file.programs.items():
        if name in SERVICES and name not in ours and "command" not in table:
            continue  # it changes one of ours that is not needed here
        copies = None if name in SERVICES else place.scale.get(name)
        made |= tables.programs_from_table(name, table, place.file.path.parent, ours.get(name), copies)
    return made


def _copies(place: Place, name: str, programs: Mapping[str, Program]) -> dict[str, Program]:
    """The further workers that `opsq scale` wants; each has a node name of its own. Raises UsageError."""
    if name in SERVICES and name != "worker":
        raise UsageError(f"cannot scale {name}", why="there is one of it")
    if name not in SERVICES or name not in programs:
        return {}
    worker = programs[name]
    made = {name: replace(worker, group=name)}
    for number in range(1, place.scale[name]):
        copy = f"{name}_{number:02d}"
        made[copy] = replace(worker, name=copy, group=name, command=(*worker.command, f"--hostname={copy}@%h"))
    return made


def _needed(program: Program, programs: Mapping[str, Program]) -> dict[str, str]:
    """What it depends on: of a group all its programs; none of ours that is not needed here (with a broker: redis)."""
    needed: dict[str, str] = {}
    for name, how in program.depends_on.items():
        members = [each.name for each in programs.values() if name in (each.name, each.group)]
        if name in programs and program.group == name:
            members = [name]  # a group that depends on its own first member
        needed |= dict.fromkeys(members or ([] if name in SERVICES else [name]), how)
    return needed


def _shared_environment(place: Place, private: bool) -> dict[str, str]:
    """How programs learn of broker and results: never by their command line, which others can read."""
    broker = statedir.redis_url(place.state) if private else place.broker
    keys = str(statedir.keys_directory())
    found = {"OPSQ_BROKER_URL": broker, "OPSQ_RESULT_BACKEND": place.results, "OPSQ_KEYS_DIR": keys}
    return {name: url for name, url in found.items() if url}


def _redis(place: Place, _private: bool) -> Program:
    return private_redis.program(place.state, place.file.redis)


def _own(place: Place, private: bool, words: list[str], flags: Mapping[str, Any]) -> Program:
    """One of our processes: always wanted, ready when it says so, after the private Redis if that is its broker."""
    return Program(
        name=words[-1],
        command=(sys.executable, "-m", "opsq", *words, *_as_flags({"loglevel": "info", **flags})),
        directory=str(place.folder),
        autorestart="always",
        startretries=10,
        ready="notify",
        depends_on={private_redis.NAME: "ready"} if private else {},
    )


def _worker(place: Place, private: bool) -> Program:
    """Its flags are in `[worker]`, which it reads itself, and again when it is told to; a supervisord.conf has none."""
    flags = {"loglevel": place.found is not None and "info", "reload": place.reload}
    made = _own(place, private, ["-A", place.app or OWN_APP, "worker"], flags)
    if place.found is None:
        made = replace(made, environment={toml_file.WORKER_FLAGS: str(place.file.path)})
    return replace(made, stopwaitsecs=60, reloadsignal=signal.SIGHUP)


def _beat(place: Place, private: bool) -> Program:
    return _own(place, private, ["-A", place.app or OWN_APP, "beat"], place.file.beat)


def _monitor(place: Place, private: bool) -> Program:
    """Its flags are in `[monitor]`, which it reads itself: a password must not stand in a command line."""
    return _own(place, private, ["-A", place.app or OWN_APP, "monitor"], {})


def _agent(place: Place, private: bool) -> Program:
    """It serves the host, not the app: it is told where the broker is, and never loads the app to find it."""
    return replace(_own(place, private, ["agent"], place.file.agent), stopwaitsecs=60)


#: A row for each of our programs; the flag says whether there is a private Redis.
_OURS: Mapping[str, Callable[[Place, bool], Program]] = {
    "redis": _redis,
    "worker": _worker,
    "beat": _beat,
    "monitor": _monitor,
    "agent": _agent,
}


def _as_flags(table: Mapping[str, Any]) -> list[str]:
    """Long options of a command from a table: true is the bare flag, false nothing, lists are joined by commas."""
    words: list[str] = []
    for name, value in table.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words.append(f"{flag}={','.join(map(str, value))}")
        elif value is not False:
            words.append(f"{flag}={value}")
    return words


def ask_app(place: Place) -> tuple[Broker | None, str | None]:
    """Import the app in a process that ends at once, and hear which broker it (or its surroundings) names.

    The app's own name is heard too: that of a Django project stands in its manage.py. Raises UsageError.
    """
    command = [sys.executable, "-m", "opsq.app.probe", *(["-A", place.app] if place.app else [])]
    environment = dict(os.environ)
    environment |= _shared_environment(place, private=False)
    told = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True, check=False)
    if told.returncode == 0:
        try:
            answer = json.loads(told.stdout.splitlines()[-1])
            url, prefix, priorities = answer["broker_url"], answer["key_prefix"], answer["priorities"]
            return Broker(url, prefix, priorities) if url else None, answer["spec"]
        except (ValueError, KeyError, IndexError):
            pass
    lines = [line for line in told.stderr.splitlines() if line.strip()]
    hint = lines.pop().removeprefix("hint: ") if lines and lines[-1].startswith("hint: ") else ""
    if told.returncode == 2 and lines:
        raise UsageError(lines[-1], hint=hint)
    why = lines[-1] if lines else f"its import ended with exit code {told.returncode}"
    raise UsageError(f"cannot load the app {place.app or OWN_APP!r}", why=why, hint=hint)


def file_with_app(folder: Path) -> str | None:
    """A file of this folder that makes an app, for a hint."""
    for path in sorted(folder.glob("*.py")):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if _USES_OPSQ.search(text) and _MAKES_AN_APP.search(text):
            return path.name
    return None
