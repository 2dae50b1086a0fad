"""`opsq up`, `status`, `down` and what they say, with programs of a project's own."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from pathlib import Path

import pytest
from support.supervised import Supervised, python_program

from opsq.runtime.process import is_alive, send_signal, wait_end
from opsq.supervisor import scribe

SLEEPS = "import time; time.sleep(1000)"
QUICK = "startsecs = 0"


def test_up_starts_what_the_file_says_and_down_leaves_nothing(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    reboots, *said = shop.opsq("up").stderr.splitlines()
    assert reboots == "it will not come back after a reboot by itself: opsq generate systemd"
    assert said == [
        "running: web",
        f"logs: {shop.state.log}",
        "follow them: opsq logs -f",
        "stop everything: opsq down",
    ]
    assert "already up" in shop.opsq("up").stderr
    assert "RUNNING" in shop.opsq("status").stdout
    assert "everything is down" in shop.opsq("down").stderr
    assert shop.leftovers() == []
    assert sorted(path.name for path in shop.state.run.iterdir()) == ["daemon.lock", "slots"]
    assert "nothing is up here" in shop.opsq("down").stderr
    assert "reboot" not in shop.opsq("up", "-d").stderr


def test_status_for_scripts(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=f'{QUICK}\ngroup = "site"'))
    assert shop.opsq("status", code=3).stderr.startswith("opsq: no supervisor runs here")
    shop.opsq("up")
    told = json.loads(shop.opsq("status", "--json").stdout)
    assert {"pid", "keeper_pid", "version", "since"} <= set(told["supervisor"])
    assert told["supervisor"]["pid"] == shop.process("daemon").pid
    assert told["supervisor"]["keeper_pid"] == shop.process("keeper").pid
    assert (told["queues"], told["hosts"]) == ([], {})
    (web,) = told["programs"]
    assert (web["name"], web["group"], web["state"], web["ready"], web["restarts"], web["reason"]) == (
        ("web", "site", "RUNNING", True, 0, None)
    )
    assert web["pid"] == shop.process("web").pid
    assert web["memory_bytes"] > 1_000_000
    assert web["cpu_percent"] >= 0
    assert shop.opsq("status", "site").returncode == 0
    unknown = shop.opsq("status", "wep", code=2).stderr
    assert "no program 'wep' here" in unknown
    assert "did you mean web?" in unknown


def test_status_says_1_when_a_wanted_program_does_not_run(shop: Supervised) -> None:
    shop.toml(
        python_program("web", SLEEPS, more=QUICK) + "[programs.bad]\ncommand = '/does/not/exist'\nstartretries = 0\n"
    )
    said = shop.opsq("up", code=1).stderr
    assert "opsq: bad is FATAL: cannot be started:" in said
    assert "No such file or directory" in said
    shop.opsq("status", code=1)
    assert shop.opsq("status", "web").returncode == 0
    shop.opsq("stop", "bad")
    shop.opsq("status")


def test_two_projects_do_not_know_each_other(shop: Supervised, tmp_path: Path) -> None:
    other = Supervised(tmp_path / "other", shop.spawner, shop.wait_for)
    for each in (shop, other):
        each.toml(python_program("web", SLEEPS, more=QUICK))
        each.opsq("up")
    assert shop.process("web") != other.process("web")
    shop.opsq("down")
    assert other.has("web", state="RUNNING")
    other.opsq("down")


def test_commands_find_the_project_from_below(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    (shop.folder / "deep" / "er").mkdir(parents=True)
    shop.opsq("up")
    below = Supervised(shop.folder / "deep" / "er", shop.spawner, shop.wait_for)
    assert "web" in below.opsq("status").stdout
    below.opsq("down")


def test_a_very_long_path_works(shop: Supervised, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a-rather-long-name-of-a-folder"] * 5)
    folder.mkdir(parents=True)
    deep = Supervised(folder, shop.spawner, shop.wait_for)
    deep.toml(python_program("web", SLEEPS, more=QUICK))
    deep.opsq("up")
    assert deep.state.control_socket.parent == deep.state.short
    deep.opsq("status")
    deep.opsq("down")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("brocker_url = 'redis://x'", "'brocker_url' is no setting"),
        ("[programs.web]\ncomand = 'x'", "'comand' is no key of [programs.web]"),
        ("[programs.web]\nuser = 'x'", "its 'command' is missing"),
        ("[programs.web]\ncommand = 'x'\nstopsignal = 'NOPE'", "stopsignal = 'NOPE' cannot be"),
        ("[programs.web]\ncommand = 'x'\nstartsecs = 'long'", "startsecs = 'long' cannot be: it must be a number"),
        ("[programs.web]\ncommand = 'x'\ndirectory = 'nowhere'", "there is no such directory"),
        ("[programs.web]\ncommand = 'x'\nuser = 'nobody-of-this-name'", "no such user"),
        ("[programs.web]\ncommand = '%(ENV_NOT_SET_ANYWHERE)s'", "the variable NOT_SET_ANYWHERE is not set"),
        ("[programs.web]\ncommand = 'x'\ndepends_on = { db = 'ready' }", "it depends on 'db', which is no program"),
        ("[programs.all]\ncommand = 'x'", "cannot use the program 'all'"),
        ("services = ['wroker']", "'wroker' is no service"),
        ("[worker]\nconcurency = 4", "'concurency' is no key of [worker]"),
        ("[redis]\nappendfsync = 'sometimes'", "appendfsync = 'sometimes'"),
        ("app = ", "not valid TOML"),
        ("app = 'nowhere'", "cannot find the app 'nowhere'"),
    ],
)
def test_a_mistake_in_the_file_is_one_clear_line(shop: Supervised, text: str, says: str) -> None:
    shop.toml(text)
    said = shop.opsq("up", code=2).stderr
    assert says in said
    assert shop.leftovers() == []


def test_unknown_names_are_usage_errors(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    assert "no program 'wbe' here" in shop.opsq("up", "wbe", code=2).stderr
    shop.opsq("up")
    for verb in ("start", "stop", "restart"):
        assert "did you mean web?" in shop.opsq(verb, "wbe", code=2).stderr
    assert "'NOPE' is no signal" in shop.opsq("signal", "NOPE", "web", code=2).stderr
    assert "no log of 'wbe' here" in shop.opsq("logs", "wbe", code=2).stderr


def test_a_state_directory_that_cannot_be_written_is_one_clear_line(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS))
    (shop.folder / ".opsq").write_text("in the way")
    said = shop.opsq("up", code=1).stderr
    assert f"cannot write the state directory {shop.state.root}: file exists" in said
    refused = shop.opsq("--state-dir", "/proc/nobody-can-write-here", "up", code=None)
    assert refused.returncode in (1, 4)
    assert "cannot write the state directory" in refused.stderr


def test_what_is_left_of_a_dead_supervisor_does_not_hinder(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    shop.opsq("up")
    for name in ("keeper", "daemon", "scribe", "web"):
        os.kill(shop.process(name).pid, signal.SIGSTOP)  # nobody may act on the end of another one
    for process in [shop.process(name) for name in ("keeper", "daemon", "scribe", "web")]:
        os.kill(process.pid, signal.SIGKILL)
    shop.wait_for(lambda: not shop.leftovers())
    assert (shop.state.run / "control.sock").exists()
    assert shop.opsq("status", code=3).returncode == 3
    shop.opsq("up")
    shop.opsq("status")


def test_init_writes_what_up_can_start_and_touches_nothing(shop: Supervised) -> None:
    shop.opsq("init")
    toml = (shop.folder / "opsq.toml").read_text()
    (shop.folder / "tasks.py").write_text("# mine")
    said = shop.opsq("init").stderr
    assert "is there already: left as it is" in said
    assert (shop.folder / "opsq.toml").read_text() == toml
    assert (shop.folder / "tasks.py").read_text() == "# mine"


def test_the_sockets_are_for_this_user_alone(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    shop.opsq("up")
    assert shop.state.run.stat().st_mode & 0o777 == 0o700
    for path in (shop.state.control_socket, shop.state.keeper_socket):
        assert path.stat().st_mode & 0o777 == 0o600


def test_several_ups_at_once_start_one_of_each(shop: Supervised, opsq_argv: list[str]) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    ups = [shop.spawner([*opsq_argv, "up"], cwd=shop.folder, env=shop.environment) for _ in range(4)]
    assert [up.wait() for up in ups] == [0] * 4
    for text in ("keeper.py {", "-S " + str(Path(scribe.__file__)), "-P -m opsq.supervisor", "time.sleep"):
        assert shop.copies(text) == 1, text
    shop.opsq("down")


def test_a_keeper_that_hears_no_daemon_ends_the_programs_itself(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    shop.opsq("up")
    keeper, web = shop.process("keeper"), shop.process("web")
    send_signal(shop.process("daemon"), signal.SIGSTOP)
    send_signal(keeper, signal.SIGTERM)
    assert wait_end(keeper, 15)
    assert not is_alive(web)
    assert shop.leftovers() == []
    shop.opsq("up")
    assert shop.has("web", state="RUNNING", restarts=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose the user")
def test_a_program_runs_as_its_user(shop: Supervised) -> None:
    code = "import os, time; open('/dev/stdout', 'w').write(f'{os.getuid()} {os.getgroups()}'); time.sleep(1000)"
    shop.toml(
        python_program("web", code, more=f"{QUICK}\nuser = 'nobody'\ndirectory = '/'").replace(
            json.dumps(sys.executable), '"python3"'
        )
    )
    shop.opsq("up")
    nobody = pwd.getpwnam("nobody")
    shop.wait_for(lambda: shop.log("web") == f"{nobody.pw_uid} [{nobody.pw_gid}]".encode())
