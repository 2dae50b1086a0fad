"""What becomes of programs that fail, take their time, depend on each other, or leave others behind."""

from __future__ import annotations

import itertools
import time

import pytest
from support.supervised import Supervised, python_program

SLEEPS = "import time; print('up'); time.sleep(1000)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(1000)"
#: Says when it begins and when it is told to stop.
WITNESS = """
import os, signal, sys, time
def told(*_):
    with open(sys.argv[1], "a") as file: file.write(f"stop {sys.argv[2]}\\n")
    time.sleep(0.1)
    os._exit(0)
signal.signal(15, told)
with open(sys.argv[1], "a") as file: file.write(f"start {sys.argv[2]}\\n")
time.sleep(1000)
"""
NOTIFIES = """
import os, socket, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.005)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"""
#: Leaves a child in its group, one in a group of its own, and one that went through a double fork and setsid.
PARENT = """
import os, time
def leave(*steps):
    if os.fork() == 0:
        for step in steps: step()
        time.sleep(1000)
def again():
    if os.fork(): os._exit(0)
leave()
leave(lambda: os.setpgid(0, 0))
leave(os.setsid)
leave(again, os.setsid, again)
print("left")
time.sleep(1000)
"""
QUICK = "startsecs = 0"


def test_a_program_that_fails_again_and_again_is_given_up_after_growing_pauses(shop: Supervised) -> None:
    code = "import sys, time; open(sys.argv[1], 'a').write(f'{time.time()}\\n'); sys.exit(3)"
    times = shop.folder / "times"
    shop.toml(python_program("bad", code, str(times)))
    assert "bad is BACKOFF: exited with 3 after" in shop.opsq("up", code=1).stderr
    told = shop.until("bad", state="FATAL")
    assert told["restarts"] == 3
    assert told["reason"].startswith("exited with 3 after")
    begun = [float(line) for line in times.read_text().splitlines()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(pauses) == 3
    assert pauses[0] >= 0.5
    assert pauses[1] > 1.5 * pauses[0]
    assert pauses[2] > 1.5 * pauses[1]
    shop.opsq("status", code=1)


def test_start_gives_a_fatal_program_new_tries(shop: Supervised) -> None:
    flag = shop.folder / "flag"
    code = f"import os, sys, time; os.path.exists({str(flag)!r}) or sys.exit(1); time.sleep(1000)"
    shop.toml(python_program("later", code, more="startretries = 0\nstartsecs = 0.2"))
    shop.opsq("up", code=1)
    flag.touch()
    shop.opsq("start", "later")
    assert shop.program("later")["state"] == "RUNNING"


@pytest.mark.parametrize(
    ("more", "code", "state", "exit_code"),
    [
        ("", 0, "EXITED", 0),
        ("exitcodes = [0, 7]", 7, "EXITED", 0),
        ("autorestart = false", 7, "EXITED", 1),
    ],
)
def test_an_end_that_is_expected_is_no_failure(
    shop: Supervised, more: str, code: int, state: str, exit_code: int
) -> None:
    ends = f"import sys, time; time.sleep(0.1); sys.exit({code})"
    shop.toml(python_program("once", ends, more=f"startsecs = 0\n{more}"))
    shop.opsq("up", code=None)
    assert shop.until("once", state=state)["restarts"] == 0
    shop.opsq("status", code=exit_code)


def test_autorestart_always_starts_again_after_a_good_end_too(shop: Supervised) -> None:
    shop.toml(python_program("loop", "import time; time.sleep(0.05)", more="startsecs = 0\nautorestart = true"))
    shop.opsq("up")
    shop.wait_for(lambda: shop.program("loop")["restarts"] >= 3)


def test_what_ignores_its_stop_signal_is_killed_in_time(shop: Supervised) -> None:
    shop.toml(python_program("rock", STUBBORN, more=f"{QUICK}\nstopwaitsecs = 0.3"))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("rock") == b"up\n")
    begun = time.monotonic()
    shop.opsq("stop", "rock")
    assert 0.3 <= time.monotonic() - begun < 5
    assert "killed: it did not stop within 0.3 s" in shop.program("rock")["reason"]


def test_the_stop_signal_is_the_programs_own(shop: Supervised) -> None:
    end = "def end(*_): print('USR2'); os._exit(0)"
    code = f"import os, signal, time\n{end}\nsignal.signal(12, end); print('up'); time.sleep(1000)"
    shop.toml(python_program("odd", code, more=f"{QUICK}\nstopsignal = 'USR2'"))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("odd") == b"up\n")
    shop.opsq("stop", "odd")
    assert shop.log("odd") == b"up\nUSR2\n"


def test_stop_leaves_nothing_of_what_the_program_started(shop: Supervised) -> None:
    shop.toml(python_program("parent", PARENT, more=QUICK))
    shop.opsq("up")
    shop.wait_for(lambda: b"left" in shop.log("parent"))
    shop.wait_for(lambda: shop.copies("print") == 5)
    shop.opsq("stop", "parent")
    assert shop.copies("print") == 0
    shop.opsq("start", "parent")
    shop.wait_for(lambda: shop.copies("print") == 5)
    shop.opsq("down")
    assert shop.leftovers() == []


def test_programs_start_after_what_they_need_and_stop_before_it(shop: Supervised) -> None:
    journal = shop.folder / "journal"

    def witness(name: str, needs: str = "") -> str:
        more = f'{QUICK}\ndepends_on = {{ {needs} = "ready" }}' if needs else QUICK
        return python_program(name, WITNESS, str(journal), name, more=more)

    shop.toml(witness("web", "cache") + witness("cache", "db") + witness("db"))
    shop.opsq("up")
    shop.wait_for(lambda: journal.exists() and journal.read_text().count("start") == 3)
    shop.opsq("restart", "all")
    shop.wait_for(lambda: journal.read_text().count("start") == 6)
    shop.opsq("down")
    lines = journal.read_text().splitlines()
    stops = [line for line in lines if line.startswith("stop")]
    assert stops == ["stop web", "stop cache", "stop db"] * 2


def test_a_program_waits_until_what_it_needs_says_that_it_is_ready(shop: Supervised, opsq_argv: list[str]) -> None:
    flag = shop.folder / "flag"
    shop.toml(
        python_program("base", NOTIFIES, str(flag), more="ready = 'notify'")
        + python_program("web", SLEEPS, more=f'{QUICK}\ndepends_on = {{ base = "ready" }}')
    )
    asking = shop.spawner([*opsq_argv, "up"], cwd=shop.folder, env=shop.environment)
    shop.until("web", state="STARTING", pid=None, reason="waits for base")
    assert shop.has("base", state="STARTING", ready=False)
    flag.touch()
    assert asking.wait() == 0
    assert shop.has("base", state="RUNNING", ready=True)
    assert shop.has("web", state="RUNNING", ready=True)


def test_names_bring_only_themselves_and_what_they_need(shop: Supervised) -> None:
    shop.toml(
        python_program("base", SLEEPS, more=QUICK)
        + python_program("web", SLEEPS, more=f'{QUICK}\ndepends_on = {{ base = "started" }}')
        + python_program("other", SLEEPS, more=QUICK)
        + python_program("manual", SLEEPS, more=f"{QUICK}\nautostart = false")
    )
    shop.opsq("up", "web")
    assert shop.has("base", state="RUNNING")
    assert shop.has("other", state="STOPPED")
    shop.opsq("up")
    assert shop.has("other", state="RUNNING")
    assert shop.has("manual", state="STOPPED")
    shop.opsq("start", "manual")
    assert shop.has("manual", state="RUNNING")


def test_restart_gives_a_new_process_and_signals_reach_it(shop: Supervised) -> None:
    code = "import signal, time; signal.signal(10, lambda *_: print('USR1')); print('up')\nwhile True: time.sleep(1)"
    shop.toml(python_program("web", code, more=f'{QUICK}\ngroup = "site"'))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("web") == b"up\n")
    old = shop.process("web")
    shop.opsq("restart", "site")
    shop.replaced("web", old)
    shop.wait_for(lambda: shop.log("web") == b"up\nup\n")
    assert "signalled: web" in shop.opsq("signal", "USR1", "all").stderr
    shop.wait_for(lambda: shop.log("web") == b"up\nup\nUSR1\n")
    shop.opsq("stop", "all")
    assert "none of these runs" in shop.opsq("signal", "USR1", "web", code=1).stderr


def test_environment_and_folder_are_the_programs_own(shop: Supervised) -> None:
    code = "import os; e = os.environ; print(os.getcwd(), e['SHOP'], e['HOME'], 'LISTEN_FDS' in e)"
    (shop.folder / "sub").mkdir()
    more = "startsecs = 0\ndirectory = 'sub'\nautorestart = false\nenvironment = { SHOP = '%(ENV_HOME)s/shop' }"
    shop.toml(python_program("env", code, more=more))
    shop.environment |= {"HOME": "/home/somebody", "LISTEN_FDS": "1"}
    shop.opsq("up", code=None)
    expected = f"{shop.folder / 'sub'} /home/somebody/shop /home/somebody False\n".encode()
    shop.wait_for(lambda: shop.log("env") == expected)


def test_a_changed_file_is_used_with_the_next_start(shop: Supervised) -> None:
    shop.toml(python_program("web", SLEEPS, more=QUICK))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("web") == b"up\n")
    old = shop.process("web")
    shop.toml(python_program("web", SLEEPS.replace("up", "new"), more=QUICK))
    assert "web has changed: opsq restart web" in shop.opsq("up").stderr
    assert shop.process("web") == old
    shop.opsq("restart", "web")
    shop.wait_for(lambda: shop.log("web") == b"up\nnew\n")
