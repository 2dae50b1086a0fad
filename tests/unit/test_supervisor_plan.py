"""Programs from tables, plans as values."""

from __future__ import annotations

import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.config.options.programs import PROGRAM_OPTIONS
from opsq.exceptions import ImproperlyConfigured
from opsq.supervisor import plan, toml_text
from opsq.supervisor.plan import Answer, Broker, Plan, Program
from opsq.supervisor.tables import COPIES, program_from_table, programs_from_table


def made(folder: Path, **table: Any) -> Program:
    (program,) = programs_from_table("web", {"command": "web --port 80", **table}, folder).values()
    return program


def test_a_table_in_supervisords_words_becomes_a_program(tmp_path: Path) -> None:
    program = made(
        tmp_path,
        autorestart=True,
        stopsignal="HUP",
        umask="022",
        exitcodes=[0, 2],
        environment={"PORT": 80},
        startsecs=5,
    )
    assert program.command == ("web", "--port", "80")
    assert program.directory == str(tmp_path)
    assert (program.autorestart, program.stopsignal, program.umask) == ("always", signal.SIGHUP, 0o022)
    assert (program.exitcodes, program.environment, program.startsecs) == ((0, 2), {"PORT": "80"}, 5)


def test_every_option_of_the_table_is_a_value_of_a_program() -> None:
    fields = set(Program.__dataclass_fields__)
    assert {option.name for option in PROGRAM_OPTIONS} - {*COPIES} <= fields
    read = ("command", "directory", "umask", "exitcodes", "stopsignal", "environment", "depends_on", *COPIES)
    for option in PROGRAM_OPTIONS:
        if option.name not in read:
            assert Program.__dataclass_fields__[option.name].default == option.default, option.name


def test_a_table_for_one_of_ours_changes_only_what_it_says(tmp_path: Path) -> None:
    base = Program("worker", ("opsq", "worker"), "/", {"A": "1", "B": "1"}, ready="notify", stopwaitsecs=60)
    changed = program_from_table("worker", {"stopwaitsecs": 5, "environment": {"B": "2"}}, tmp_path, base)
    assert (changed.command, changed.stopwaitsecs, changed.environment) == (base.command, 5, {"A": "1", "B": "2"})


def test_variables_of_the_environment_stand_in_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PORT", "81")
    program = made(tmp_path, command=["web", "%(ENV_SHOP_PORT)s"], environment={"X": "p%(ENV_SHOP_PORT)sq"})
    assert (program.command, program.environment) == (("web", "81"), {"X": "p81q"})


def test_numprocs_means_several_programs_of_one_group(tmp_path: Path) -> None:
    table = {"command": "web --port 80%(process_num)02d", "numprocs": 3, "environment": {"N": "%(process_num)d"}}
    made = programs_from_table("web", table, tmp_path)
    assert list(made) == ["web", "web_01", "web_02"]
    assert [program.command[2] for program in made.values()] == ["8000", "8001", "8002"]
    assert {program.group for program in made.values()} == {"web"}
    assert made["web_02"].environment == {"N": "2"}
    named = programs_from_table("web", {**table, "process_name": "w%(process_num)d", "numprocs_start": 5}, tmp_path)
    assert list(named) == ["w5", "w6", "w7"]
    assert list(programs_from_table("web", table, tmp_path, copies=1)) == ["web"]


@pytest.mark.parametrize("numprocs", [-1, 1.5, True, "2", 10_000])
def test_a_number_of_copies_that_cannot_be_is_named(tmp_path: Path, numprocs: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="numprocs"):
        programs_from_table("web", {"command": "x", "numprocs": numprocs}, tmp_path)


def test_log_files_are_whole_paths_and_their_folder_must_be_there(tmp_path: Path) -> None:
    program = made(tmp_path, stdout_logfile="web.log", stderr_logfile="auto")
    assert (program.stdout_logfile, program.stderr_logfile) == (str(tmp_path / "web.log"), "auto")
    assert made(tmp_path, stdout_logfile="none").stdout_logfile == "/dev/null"
    assert made(tmp_path, stdout_logfile="/dev/stdout").stdout_logfile is None
    with pytest.raises(ImproperlyConfigured, match="there is no directory"):
        made(tmp_path, stdout_logfile="nowhere/web.log")
    with pytest.raises(ImproperlyConfigured, match="it is no file"):
        made(tmp_path, stdout_logfile=".")


@pytest.mark.parametrize(
    "table",
    [
        {"command": []},
        {"command": 3},
        {"startsecs": -1},
        {"startsecs": True},
        {"startretries": 1.5},
        {"autostart": "yes"},
        {"autorestart": "sometimes"},
        {"exitcodes": 3},
        {"environment": {"A": []}},
        {"umask": "9"},
        {"ready": "soon"},
        {"stopsignal": 99},
        {"group": 3},
        {"stopasgroup": True, "killasgroup": False},
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_key(tmp_path: Path, table: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        made(tmp_path, **table)
    assert next(iter(table)) in str(error.value)


def test_dependencies_in_a_circle_are_refused() -> None:
    programs = {
        "a": Program("a", ("a",), "/", depends_on={"b": "ready"}),
        "b": Program("b", ("b",), "/", depends_on={"c": "started"}),
        "c": Program("c", ("c",), "/", depends_on={"a": "ready"}),
    }
    with pytest.raises(ImproperlyConfigured, match="depend on each other"):
        plan.check(Plan(None, programs))


def test_needed_by_follows_dependencies() -> None:
    names = {"web": "cache", "cache": "db", "db": None, "other": None}
    programs = {
        name: Program(name, (name,), "/", depends_on={needs: "ready"} if needs else {}) for name, needs in names.items()
    }
    assert Plan(None, programs).needed_by(["web"]) == {"web", "cache", "db"}


texts = st.text(max_size=8)
programs = st.builds(
    Program,
    name=texts,
    command=st.lists(texts, min_size=1).map(tuple),
    directory=texts,
    environment=st.dictionaries(texts, texts, max_size=3),
    user=st.none() | texts,
    exitcodes=st.lists(st.integers(0, 255)).map(tuple),
    startsecs=st.floats(0, 100),
    depends_on=st.dictionaries(texts, st.sampled_from(["started", "ready"]), max_size=2),
    answer=st.none() | st.builds(Answer, texts, texts, texts),
)


@given(st.lists(programs, max_size=3), st.none() | texts, st.none() | st.builds(Broker, texts, texts))
def test_a_plan_survives_json(made: list[Program], app: str | None, broker: Broker | None) -> None:
    before = Plan(app, {program.name: program for program in made}, broker)
    after = Plan.from_data(json.loads(json.dumps(before.to_data())))
    assert after == before
    assert before.changed_in(after) == []


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="%\0"), max_size=12)
PROGRAMS = st.builds(
    Program,
    name=st.from_regex(r"[\w][\w.@+=,~-]*", fullmatch=True).filter(lambda name: name not in ("opsq", "all")),
    command=st.lists(TEXTS, min_size=1, max_size=4).map(tuple),
    directory=st.just("/"),
    environment=st.dictionaries(TEXTS, TEXTS, max_size=3),
    umask=st.integers(0, 0o777),
    group=st.just("g"),
    autostart=st.booleans(),
    autorestart=st.sampled_from(["always", "never", "unexpected"]),
    exitcodes=st.lists(st.integers(0, 255), max_size=3).map(tuple),
    startsecs=st.integers(0, 1000).map(float),
    stopsignal=st.sampled_from([int(signal.SIGTERM), int(signal.SIGUSR1)]),
    stopasgroup=st.booleans(),
    priority=st.integers(-10, 2000),
    stdout_logfile=st.sampled_from([None, "/tmp/a b.log"]),
    stderr_logfile=st.sampled_from([None, "auto", "/tmp/e.log"]),
    stderr_log_backups=st.sampled_from([None, 3]),
)


@given(PROGRAMS)
def test_what_import_writes_means_the_same_program(program: Program) -> None:
    tables = tomllib.loads(toml_text.text([program]))["programs"]
    assert programs_from_table(program.name, tables[program.name], Path("/")) == {program.name: program}
