"""The frame of the command line: where options may stand, what errors look like, what the help costs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from opsq import App, exceptions
from opsq.cli import errors
from opsq.cli.context import Context
from opsq.cli.frame import command, group
from opsq.cli.main import cli, run


def words(*line: str) -> list[str]:
    """A command line as the command itself gets it."""
    return cli.sorted_words(click.Context(cli, obj=Context()), list(line))


@pytest.mark.parametrize(
    "line",
    [
        ["-A", "proj", "worker", "-l", "info"],
        ["worker", "-A", "proj", "-l", "info"],
        ["-l", "info", "-A", "proj", "worker"],
        ["-linfo", "-Aproj", "worker"],
        ["--loglevel=info", "--app=proj", "worker"],
        ["-l", "info", "worker", "-A", "proj"],
    ],
)
def test_options_of_a_command_may_stand_before_it(line: list[str]) -> None:
    found = words(*line)
    assert found[0] == "worker"
    context = Context()
    with cli.make_context("opsq", line, obj=context) as top:
        assert top.obj is context
        name, worker, rest = cli.resolve_command(top, [*top._protected_args, *top.args])
        assert worker is not None
        inner = worker.make_context(name, rest, parent=top)
    assert context.app_spec == "proj"
    assert inner.params["loglevel"].lower() == "info"


def test_a_cluster_of_short_options_may_stand_before_the_command() -> None:
    assert words("-BEA", "proj", "worker", "-c", "4") == ["worker", "-BEA", "proj", "-c", "4"]


def test_a_value_that_looks_like_a_command_is_no_command() -> None:
    assert words("-A", "tasks", "worker") == ["worker", "-A", "tasks"]
    assert words("-n", "worker", "worker") == ["worker", "-n", "worker"]


def test_the_options_of_a_command_below_a_group_may_stand_before_the_group() -> None:
    assert words("--wait", "run", "task", "x")[0] == "run"
    inner = cli.get_command(click.Context(cli), "run")
    assert isinstance(inner, click.Group)
    found = inner.sorted_words(click.Context(inner), ["--wait", "--json", "task", "x"])  # type: ignore[attr-defined]
    assert found == ["--json", "task", "--wait", "x"]


def test_nothing_behind_two_dashes_is_moved() -> None:
    assert words("--", "-A", "proj", "worker") == ["--", "-A", "proj", "worker"]


def test_a_commands_own_option_wins_over_the_shared_one_of_that_name() -> None:
    from opsq.cli.frame import Shared, add_options

    @command("opsq x")
    @click.option("-q", "--quick", is_flag=True)
    def own(quick: bool) -> None:
        click.echo(str(quick))

    shared = [Shared(["-q", "--quiet"], is_flag=True, expose_value=False), Shared(["--json"], is_flag=True)]
    add_options(own, shared)
    assert [option.name for option in own.params] == ["quick", "json"]


# -- errors ----------------------------------------------------------------------------------------------------------


def outcome(error: BaseException, capfd: pytest.CaptureFixture[str], as_json: bool = False) -> tuple[int, str, str]:
    def fail() -> None:
        raise error

    code = errors.guard(fail, as_json)
    out, err = capfd.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.UsageError("x"), 2),
        (exceptions.ImproperlyConfigured("x"), 2),
        (exceptions.NotRegistered("x"), 2),
        (exceptions.BrokerError("x"), 3),
        (exceptions.OperationalError("x"), 3),
        (exceptions.SupervisorError("x"), 3),
        (exceptions.TimeoutError("x"), 3),
        (exceptions.RefusedError("x"), 4),
        (PermissionError(13, "Permission denied", "/x"), 4),
        (exceptions.OpsqError("x"), 1),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1),
        (click.UsageError("x"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 0),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(
    error: BaseException, code: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_stop_writing", lambda: None)  # it would close this process's output
    found, out, err = outcome(error, capfd)
    assert found == code
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2


def test_an_error_says_what_why_and_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    error = exceptions.BrokerError("cannot reach Redis at x:1", why="connection refused", hint="start it")
    assert outcome(error, capfd) == (
        3,
        "",
        "opsq: cannot reach Redis at x:1: connection refused\nhint: start it\n",
    )
    code, out, err = outcome(error, capfd, as_json=True)
    assert (code, err) == (3, "")
    told = {"what": "cannot reach Redis at x:1", "why": "connection refused", "hint": "start it"}
    assert json.loads(out) == {"error": told}


def test_what_is_absent_in_an_error_is_null(capfd: pytest.CaptureFixture[str]) -> None:
    _code, out, _err = outcome(exceptions.OpsqError("x"), capfd, as_json=True)
    assert json.loads(out) == {"error": {"what": "x", "why": None, "hint": None}}


def test_a_mistake_of_opsqs_own_keeps_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    code, _out, err = outcome(ZeroDivisionError("oh"), capfd)
    assert code == 1
    assert "Traceback" in err
    assert "opsq failed: ZeroDivisionError: oh" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["wrker"], "no such command: wrker"),
        (["queues", "peek"], "missing argument 'QUEUE'"),
        (["queues", "--limt", "3"], "no such option: --limt"),
        (["queues", "--limit", "x"], "invalid value for '--limit'"),
        (["run"], "a command is missing"),
        (["--nonsense", "queues"], "no such option: --nonsense"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_a_hint(
    line: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(line, Context()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    first, hint = err.splitlines()
    assert first.startswith(f"opsq: {message}")
    assert hint.startswith("hint: ")


def test_help_begins_with_examples(capfd: pytest.CaptureFixture[str]) -> None:
    for line in ([], ["--help"], ["-h"], ["queues", "--help"], ["dead", "requeue", "--help"], ["run", "task", "-h"]):
        assert run(line, Context()) == 0
        out, err = capfd.readouterr()
        assert out.startswith("Examples:\n  opsq ")
        assert err == ""


def test_every_example_fits_in_80_columns() -> None:
    def lines_of(command: click.Command, found: dict[str, str], words: str) -> dict[str, str]:
        found.update(dict.fromkeys(getattr(command, "examples", "").splitlines(), words))
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), name)
                assert inner is not None
                lines_of(inner, found, f"{words} {name}")
        return found

    assert not {words: line for line, words in lines_of(cli, {}, "opsq").items() if len(line.strip()) > 78}


def test_a_group_lists_its_commands() -> None:
    @group("opsq g")
    def outer() -> None: ...

    @outer.command(examples="opsq g inner")
    def inner() -> None: ...

    text = outer.get_help(click.Context(outer, info_name="g"))
    assert "inner" in text


@pytest.mark.parametrize("call", ["main.main(['--help'])", "main.run_for_app(None, ['--help'])"])
def test_an_interrupt_inside_executed_text_is_an_exit_code_too(tmp_path: Path, call: str) -> None:
    """Data classes execute text while a module is imported; `python -m` remembers an interrupt that came there."""
    (tmp_path / "interrupted.py").write_text(
        f"from opsq.cli import main\nmain._invoke = lambda *_: exec('raise KeyboardInterrupt')\n{call}\n"
    )
    argv = [sys.executable, "-m", "interrupted"]
    assert subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False).returncode == 130


# -- programs that call it themselves --------------------------------------------------------------------------------


def test_an_app_can_run_the_command_line_for_itself(capfd: pytest.CaptureFixture[str]) -> None:
    app = App("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)
    with pytest.raises(SystemExit) as end:
        app.start(["prog", "queues", "--json"])
    assert end.value.code == 3
    assert json.loads(capfd.readouterr().out)["error"]["what"] == "cannot reach Redis at 127.0.0.1:1"
    app = App("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)
    with pytest.raises(SystemExit) as end:
        app.start(["queues", "-b", "redis://127.0.0.1:2/0"])
    assert end.value.code == 3
    assert "127.0.0.1:2" in capfd.readouterr().err
    app.start(["--version"])


# -- cost ------------------------------------------------------------------------------------------------------------


def cpu_s(code: str, folder: Path) -> float:
    """CPU seconds of a program whose modules are compiled already, as installed ones are."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_help_costs_at_most_six_times_a_bare_interpreter(tmp_path: Path) -> None:
    ours = "from opsq.cli.main import main; main(['--help'])"
    pairs = [(cpu_s("pass", tmp_path), cpu_s(ours, tmp_path)) for _ in range(15)]
    assert min(own for _bare, own in pairs) <= 6 * min(bare for bare, _own in pairs)


def test_the_help_imports_no_command_and_nothing_heavy() -> None:
    code = "import sys; from opsq.cli.main import run, Context; run(['--help'], Context()); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded: Any = set(found.stdout.splitlines()[-1].split())
    assert not loaded & {"redis", "rich", "msgspec", "asyncio", "psutil", "cryptography", "json", "opsq.app"}
    assert not any(name.startswith("opsq.cli.commands") for name in loaded)
