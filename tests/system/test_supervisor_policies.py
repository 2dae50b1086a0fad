"""What the words of a program's table do: streams, folders, groups, order, copies; and a file that is read again."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from support.supervised import Supervised, python_program

from opsq.runtime.process import is_alive, send_signal, wait_end

SLEEPS = "import time; time.sleep(1000)"
QUICK = "startsecs = 0"
#: Numbers on both streams, so that a byte that went elsewhere is seen.
BOTH = """
import sys, time
for n in range(10**9):
    print(n, flush=True); print(n, file=sys.stderr, flush=True); time.sleep(0.001)
"""
#: A child in the group's own hands: it notes what it hears.
FAMILY = """
import os, signal, time
def heard(name):
    def hear(signum, frame):
        print(name, signum, flush=True)
        os._exit(0)
    return hear
if os.fork() == 0:
    signal.signal(signal.SIGTERM, heard("child"))
    print("ready", flush=True)
    time.sleep(1000)
def main(signum, frame):
    os.wait()
    heard("main")(signum, frame)
signal.signal(signal.SIGTERM, main)
time.sleep(1000)
"""
#: Each line in one write; which of several it is stands in front.
WHOLE_LINES = """
import os, time
for n in range(5000):
    os.write(1, b"%(process_num)d %d\\n" % n)
os.write(1, b"end\\n")
time.sleep(1000)
"""
LEAVES_A_CHILD = (
    "import os, time\nif os.fork() == 0:\n    time.sleep(777)\nprint('ready', flush=True)\ntime.sleep(1000)"
)


def unbroken(content: bytes) -> int:
    """How many lines there are, each number once and in order."""
    lines = content.rpartition(b"\n")[0].split(b"\n")
    assert [int(line) for line in lines] == list(range(len(lines)))
    return len(lines)


@pytest.mark.parametrize("victim", ["scribe", "daemon", "keeper"])
def test_kills_cost_neither_stream_a_line(shop: Supervised, tmp_path: Path, victim: str) -> None:
    out, err = tmp_path / "out.log", tmp_path / "err.log"
    more = f"{QUICK}\nstdout_logfile = '{out}'\nstderr_logfile = '{err}'"
    shop.toml(python_program("both", BOTH, more=more))
    shop.opsq("up")
    for _ in range(3):
        size = err.stat().st_size if err.exists() else 0
        shop.replaced(victim, shop.kill(victim))
        shop.wait_for(lambda size=size: out.exists() and err.exists() and err.stat().st_size > size + 200, 15)
    shop.until("both", state="RUNNING", restarts=0)
    shop.opsq("down")
    assert unbroken(out.read_bytes()) > 100
    assert abs(unbroken(out.read_bytes()) - unbroken(err.read_bytes())) <= 1


def test_programs_that_share_a_file_overwrite_nothing_also_over_rotation(shop: Supervised) -> None:
    log = shop.folder / "shared.log"
    more = f"{QUICK}\nnumprocs = 3\nstdout_logfile = 'shared.log'\nlog_max_bytes = 3000\nlog_backups = 1000"
    shop.toml(python_program("w", WHOLE_LINES, more=more))
    shop.opsq("up")

    def content() -> bytes:
        parts = sorted(log.parent.glob("shared.log.*"))
        return b"".join(path.read_bytes() for path in [*parts, log] if path.exists())

    shop.wait_for(lambda: content().count(b"end\n") == 3, 20)
    lines = content().decode().splitlines()
    for number in range(3):
        mine = [int(line.split()[1]) for line in lines if line.startswith(f"{number} ")]
        assert mine == list(range(5000))


def test_logs_follow_a_file_that_lies_elsewhere_and_show_errors_with_it(shop: Supervised) -> None:
    code = "import sys, time\nprint('said', flush=True)\nprint('complained', file=sys.stderr, flush=True)"
    code += "\ntime.sleep(1000)"
    shop.toml(python_program("web", code, more=f"{QUICK}\nstdout_logfile = 'web.log'\nstderr_logfile = 'auto'"))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("web.stderr") == b"complained\n")
    shop.wait_for(lambda: (shop.folder / "web.log").read_bytes() == b"said\n")
    assert shop.opsq("logs", "web").stdout == "web | said\nweb.stderr | complained\n"
    shop.opsq("down")
    shop.toml(python_program("web", code, more=QUICK))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("web") == b"said\ncomplained\n")
    assert (shop.folder / "web.log").read_bytes() == b"said\n"


def test_nowhere_is_a_place_for_output_that_is_never_rotated(shop: Supervised) -> None:
    code = "import sys, time\nsys.stdout.write('x' * 10**6); sys.stdout.flush()\nopen('done', 'w').close()"
    code += "\ntime.sleep(1000)"
    shop.toml(python_program("web", code, more=f"{QUICK}\nstdout_logfile = 'none'\nlog_max_bytes = 1000"))
    shop.opsq("up")
    shop.wait_for(lambda: (shop.folder / "done").exists())
    shop.opsq("down")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("adopted", [False, True])
def test_stopasgroup_signals_the_whole_group(shop: Supervised, adopted: bool) -> None:
    shop.toml(python_program("web", FAMILY, more=f"{QUICK}\nstopasgroup = true"))
    shop.opsq("up")
    shop.wait_for(lambda: b"ready" in shop.log("web"))
    if adopted:
        shop.replaced("keeper", shop.kill("keeper"))
        shop.until("web", state="RUNNING")
    shop.opsq("stop", "web")
    assert shop.log("web").splitlines() == [b"ready", b"child 15", b"main 15"]


@pytest.mark.parametrize(("killasgroup", "left"), [("true", 0), ("false", 1)])
def test_killasgroup_says_whether_children_end_with_it(shop: Supervised, killasgroup: str, left: int) -> None:
    shop.toml(python_program("web", LEAVES_A_CHILD, more=f"{QUICK}\nkillasgroup = {killasgroup}"))
    shop.opsq("up")
    shop.wait_for(lambda: b"ready" in shop.log("web"))
    shop.opsq("stop", "web")
    assert shop.copies("time.sleep(777)") == left
    shop.opsq("down")
    assert shop.leftovers() == []


def test_lower_priorities_stop_last(shop: Supervised) -> None:
    code = "import os, signal, time\ndef end(*_):\n    time.sleep(0.05); open('order', 'a').write(NAME); os._exit(0)\n"
    code += "signal.signal(15, end); print('ready', flush=True); time.sleep(1000)"
    for_each = {"a": 3, "b": 1, "c": 2}
    shop.toml(
        "".join(
            python_program(name, code.replace("NAME", repr(name)), more=f"{QUICK}\npriority = {priority}")
            for name, priority in for_each.items()
        )
    )
    shop.opsq("up")
    shop.wait_for(lambda: all(b"ready" in shop.log(name) for name in for_each))
    shop.opsq("down")
    assert (shop.folder / "order").read_text() == "acb"


def test_a_program_may_have_the_name_of_one_of_the_three(shop: Supervised) -> None:
    names = ("keeper", "daemon", "scribe", "output")
    shop.toml("".join(python_program(name, SLEEPS, more=QUICK) for name in names))
    shop.opsq("up")
    for name in ("keeper", "daemon"):
        assert shop.program(name)["pid"] != shop.process(name).pid
    shop.replaced("keeper", shop.kill("keeper"))
    shop.replaced("daemon", shop.kill("daemon"))
    for name in names:
        shop.until(name, state="RUNNING", restarts=0)
    assert shop.copies("time.sleep") == 4
    shop.opsq("down")
    assert shop.leftovers() == []


# --- a supervisord.conf -----------------------------------------------------------------------------------------------


def conf(shop: Supervised, text: str) -> None:
    shop.folder.mkdir(exist_ok=True)
    (shop.folder / "supervisord.conf").write_text(text)
    shop.environment |= {"OPSQ_STATE_DIR": str(shop.state.root)}


def test_a_relative_command_is_looked_up_from_its_directory(shop: Supervised) -> None:
    folder = shop.folder / "sub" / "bin"
    folder.mkdir(parents=True)
    (folder / "hello").write_text("#!/bin/sh\necho hello from $PWD\nexec sleep 1000\n")
    (folder / "hello").chmod(0o755)
    conf(shop, "[program:web]\ncommand=bin/hello\ndirectory=%(here)s/sub\nstartsecs=0\n")
    shop.opsq("up", "-c", "supervisord.conf")
    shop.wait_for(lambda: shop.log("web") == f"hello from {shop.folder}/sub\n".encode())


def test_a_worker_beside_a_supervisord_file_says_what_it_does(shop: Supervised, redis_url: str) -> None:
    """It has no table of its own there: its log level is that of all that `up` starts."""
    conf(shop, "[program:web]\ncommand=sleep 1000\nstartsecs=0\n")
    (shop.folder / "proj.py").write_text("from opsq import App\napp = App('proj')\n")
    shop.opsq("up", "worker", "-c", "supervisord.conf", "-A", "proj", "-b", redis_url)
    shop.wait_for(lambda: b" ready.\n" in shop.log("worker"))
    shop.opsq("down")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[program:w]\ncommand=x\ndirectory=/nowhere", "directory = '/nowhere' cannot be: there is no such directory"),
        ("[program:w]\ncommand=x\nuser=nobody-of-this-name", "no such user"),
        ("[program:w]\ncommand=x\nstdout_logfile=/nowhere/x.log", "there is no directory /nowhere"),
        ("[program:w]\ncommand=x\nstopsignal=NOPE", "'NOPE' is no signal"),
        ("[program:w]\ncommand=x\nstartsecs=soon", "startsecs = 'soon' cannot be: it must be a whole number"),
        ("[program:w]\ncommand=x\nautostart=perhaps", "it must be true or false"),
        ("[program:w]\ncommand=%(ENV_NOT_THERE)s", "the variable NOT_THERE is not set"),
        ("[program:w]\ncommand=%(nonsense)s", "%(nonsense)s is unknown"),
        ("[program:w]\ncommand=x\nnumprocs=2", "no %(process_num)d in process_name"),
        ("[program:w]\ncommand=x\nenvironment=A", "is not of the form"),
        ("[program:w]\ncommand=x\nstopasgroup=true\nkillasgroup=false", "do not fit together"),
        ("[program:all]\ncommand=x", "cannot use the program 'all'"),
        ("[program:w]\nautostart=true", "its 'command' is missing"),
        ("[group:g]\nprograms=gone", "names the program 'gone'"),
        ("[supervisord]\nnodaemon=true", "it has no [program:x] section"),
        ("no section", "File contains no section headers"),
    ],
)
def test_a_mistake_in_a_supervisord_file_is_one_clear_line(shop: Supervised, text: str, says: str) -> None:
    conf(shop, text)
    said = shop.opsq("up", "-c", "supervisord.conf", code=2).stderr
    assert says in said
    assert len(said.splitlines()) <= 2
    assert "there is no such file" in shop.opsq("up", "-c", "nowhere.conf", code=2).stderr


def test_a_supervisord_file_becomes_an_opsq_toml(shop: Supervised) -> None:
    conf(shop, "[program:web]\ncommand=sh -c 'echo %(ENV_HOME)s; sleep 1000'\nstartsecs=0\nredirect_stderr=true\n")
    shop.opsq("import", "supervisord.conf", "-o", "opsq.toml")
    assert "stderr" not in (shop.folder / "opsq.toml").read_text()
    assert "file exists" in shop.opsq("import", "supervisord.conf", "-o", "opsq.toml", code=1).stderr
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("web") == f"{os.environ['HOME']}\n".encode())


def test_what_has_no_effect_is_said(shop: Supervised) -> None:
    text = (
        f"[program:w]\ncommand=sleep 1000\nstartsecs=0\nfoo=1\nstdout_syslog=true\n[include]\nfiles={shop.folder}/*.no"
    )
    conf(shop, text + "\n[eventlistener:mail]\ncommand=x\nevents=TICK_5\n")
    said = shop.opsq("up", "-c", "supervisord.conf").stderr
    assert "[program:w] foo is no word of supervisord's" in said
    assert "[program:w] stdout_syslog has no effect" in said
    assert "[eventlistener:mail] is left out" in said
    assert "no such file" in said


# --- a file that is read again ----------------------------------------------------------------------------------------


def three(shop: Supervised, **tables: str) -> None:
    shop.toml("".join(python_program(name, SLEEPS, more=f"{QUICK}\n{more}") for name, more in tables.items()))


def test_reload_does_what_has_changed_and_leaves_the_rest(shop: Supervised) -> None:
    three(shop, stays="", goes="", changes="")
    shop.opsq("up")
    stays, goes, changes = (shop.process(name) for name in ("stays", "goes", "changes"))
    assert "nothing has changed" in shop.opsq("reload").stderr
    three(shop, stays="", changes="environment = { A = '1' }", comes="")
    told = shop.opsq("reload", "--dry-run").stderr.splitlines()
    assert told == ["added: comes", "changed: changes", "removed: goes"]
    assert is_alive(goes)
    answer = json.loads(shop.opsq("reload", "--json").stdout)
    assert (answer["added"], answer["changed"], answer["removed"]) == (["comes"], ["changes"], ["goes"])
    assert shop.process("stays") == stays
    assert not is_alive(goes)
    assert shop.process("changes") != changes
    assert sorted(shop.programs()) == ["changes", "comes", "stays"]
    assert "nothing has changed" in shop.opsq("reload").stderr


def test_hup_to_the_keeper_is_a_reload(shop: Supervised) -> None:
    three(shop, stays="")
    shop.opsq("up")
    three(shop, stays="", comes="")
    send_signal(shop.process("keeper"), signal.SIGHUP)
    shop.until("comes", state="RUNNING")
    (shop.folder / "opsq.toml").write_text("not toml")
    send_signal(shop.process("keeper"), signal.SIGHUP)
    shop.wait_for(lambda: "not valid TOML" in shop.own_log())
    shop.until("stays", state="RUNNING")


def test_a_program_that_is_going_is_forgotten_also_by_the_next_daemon(shop: Supervised) -> None:
    stubborn = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(1000)"
    shop.toml(python_program("goes", stubborn, more=f"{QUICK}\nstopwaitsecs = 3") + python_program("web", SLEEPS))
    shop.opsq("up")
    shop.wait_for(lambda: b"ready" in shop.log("goes"))
    three(shop, web="")
    reload = shop.spawner([sys.executable, "-m", "opsq", "reload"], cwd=shop.folder, env=shop.environment)
    shop.until("goes", state="STOPPING")
    shop.replaced("daemon", shop.kill("daemon"))
    shop.wait_for(lambda: "goes" not in shop.programs(), 20)
    reload.wait()


def test_the_app_of_a_django_project_is_found_by_its_manage_py(shop: Supervised) -> None:
    (shop.folder / "site1").mkdir(parents=True)
    (shop.folder / "manage.py").write_text('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")\n')
    (shop.folder / "site1" / "__init__.py").touch()
    (shop.folder / "site1" / "celery.py").write_text("from opsq import Celery\napp = Celery('site1')\n")
    shop.environment |= {"OPSQ_STATE_DIR": str(shop.state.root)}
    assert "running: redis, worker (app site1)" in shop.opsq("up", "worker").stderr
    assert "reloaded: worker" in shop.opsq("reload").stderr
    assert "added: worker_01" in shop.opsq("scale", "worker", "2").stderr
    assert shop.process("worker_01") != shop.process("worker")
    assert "cannot scale redis" in shop.opsq("scale", "redis", "2", code=2).stderr
    shop.opsq("down")


def test_scale_starts_and_stops_copies_and_leaves_the_others(shop: Supervised) -> None:
    three(shop, web="environment = { N = '%(process_num)d' }")
    shop.opsq("up")
    first = shop.process("web")
    assert "added: web_01, web_02" in shop.opsq("scale", "web", "3").stderr
    assert sorted(shop.programs()) == ["web", "web_01", "web_02"]
    assert shop.copies("time.sleep") == 3
    assert "nothing has changed" in shop.opsq("reload").stderr
    shop.opsq("restart", "web:web_01")
    assert [program["restarts"] for program in shop.programs().values()] == [0, 1, 0]
    shop.opsq("up")
    assert sorted(shop.programs()) == ["web", "web_01", "web_02"]
    shop.opsq("scale", "web", "1")
    assert sorted(shop.programs()) == ["web"]
    assert shop.process("web") == first
    assert "did you mean web?" in shop.opsq("scale", "wep", "2", code=2).stderr


# --- looking ----------------------------------------------------------------------------------------------------------


def test_status_of_all_supervisors_of_this_user(shop: Supervised, tmp_path: Path) -> None:
    other = Supervised(tmp_path / "other", shop.spawner, shop.wait_for)
    for each in (shop, other):
        each.toml(python_program("web", SLEEPS, more=QUICK))
        each.opsq("up")
    found = {
        each["directory"]: each
        for each in json.loads(shop.opsq("status", "--all", "--json", code=None).stdout)["instances"]
    }
    for each in (shop, other):
        told = found[str(each.state.root)]
        assert (told["programs"], told["programs_running"], told["keeper_pid"]) == (1, 1, each.process("keeper").pid)
    other.opsq("down")
    assert str(other.state.root) not in shop.opsq("status", "--all", code=None).stdout


def test_watch_shows_what_changes(shop: Supervised, opsq_argv: list[str]) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    shop.opsq("up")
    watching = shop.spawner([*opsq_argv, "status", "--watch"], cwd=shop.folder, env=shop.environment)
    shop.wait_for(lambda: "RUNNING" in watching.output())
    shop.opsq("stop", "web")
    shop.wait_for(lambda: "STOPPED" in watching.output())
    shop.opsq("down")
    shop.wait_for(lambda: "no supervisor runs here" in watching.output())
    assert watching.stop(signal.SIGINT) == 130


@pytest.mark.parametrize("word", ["reread", "update", "tail", "shutdown", "avail", "pid"])
def test_a_word_of_supervisorctl_is_answered_with_ours(shop: Supervised, word: str) -> None:
    shop.folder.mkdir(exist_ok=True)
    said = shop.opsq(word, "web", code=2).stderr
    assert said.startswith(f"opsq: {word} is `opsq ")
    assert len(said.splitlines()) == 1


def test_the_foreground_in_json(shop: Supervised, opsq_argv: list[str]) -> None:
    code = (
        'import time\nprint(\'plain\', flush=True)\nprint(\'{"level": "INFO", "n": 1}\', flush=True)\ntime.sleep(1000)'
    )
    shop.toml(python_program("web", code, more=QUICK))
    words = [*opsq_argv, "up", "--foreground", "--log-format", "json"]
    front = shop.spawner(words, cwd=shop.folder, env=shop.environment)
    shop.wait_for(lambda: '"n": 1' in front.output())
    assert front.stop(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in front.output().splitlines()]
    assert {"program": "web", "message": "plain"} in lines
    assert {"program": "web", "level": "INFO", "n": 1} in lines
    assert any(line["program"] == "opsq" for line in lines)


def test_a_second_signal_to_the_foreground_ends_it_at_once(shop: Supervised, opsq_argv: list[str]) -> None:
    stubborn = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(1000)"
    shop.toml(python_program("web", stubborn, more=f"{QUICK}\nstopwaitsecs = 600"))
    front = shop.spawner([*opsq_argv, "up", "--foreground"], cwd=shop.folder, env=shop.environment)
    shop.wait_for(lambda: "web | ready" in front.output())
    keeper = shop.process("keeper")
    assert keeper.pid == front.pid
    front.send(signal.SIGINT)
    shop.until("web", state="STOPPING")
    front.send(signal.SIGINT)
    assert wait_end(keeper, 15)
    assert front.wait() == 0
    assert shop.leftovers() == []
