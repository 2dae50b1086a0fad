"""One supervisord.conf under the real supervisord and under `opsq up -c`: the same programs in the same states."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import supervisord_venv
from support.processes import Spawner
from support.supervised import Supervised

CONF = """
[unix_http_server]
file=%(here)s/s.sock

[supervisord]
nodaemon=true
logfile=%(here)s/supervisord.log
pidfile=%(here)s/supervisord.pid
childlogdir=%(here)s
environment=SHARED="yes, %(ENV_OUTER)s"

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://%(here)s/s.sock

[include]
files = more/*.conf

[program:plain]
command=%(ENV_PY)s acts.py plain sleep --option "two words" 100%%   ; a comment
directory=%(here)s/sub
umask=027
environment=A="1,2",B="%(ENV_OUTER)s",C="%(program_name)s/%(group_name)s"
redirect_stderr=true
stdout_logfile=%(here)s/out/plain.log

[program:many]
command=%(ENV_PY)s acts.py many%(process_num)d sleep
process_name=%(program_name)s_%(process_num)02d
numprocs=2
numprocs_start=4

[program:expected]
command=%(ENV_PY)s acts.py expected exit 3 1.3
exitcodes=0,3
autorestart=unexpected

[program:never]
command=%(ENV_PY)s acts.py never exit 1 1.3
autorestart=false

[program:always]
command=%(ENV_PY)s acts.py always twice
startsecs=0
autorestart=true

[program:quick]
command=%(ENV_PY)s acts.py quick exit 0 0
startretries=1
startsecs=20

[program:off]
command=%(ENV_PY)s acts.py off sleep
autostart=false

[program:missing]
command=/does/not/exist
startretries=0

[program:streams]
command=%(ENV_PY)s acts.py streams says
stdout_logfile=out/streams.out
stderr_logfile=out/streams.err

[program:onefile]
command=%(ENV_PY)s acts.py onefile says
stdout_logfile=%(here)s/out/onefile.log
stderr_logfile=%(here)s/out/onefile.log

[program:silent]
command=%(ENV_PY)s acts.py silent says
stdout_logfile=NONE
stderr_logfile=/dev/null

[program:stopper]
command=%(ENV_PY)s acts.py stopper hears
stopsignal=USR1

[program:together]
command=%(ENV_PY)s acts.py together parent
stopsignal=USR1
stopasgroup=true

[program:left]
command=%(ENV_PY)s acts.py left sleep
[program:right]
command=%(ENV_PY)s acts.py right sleep
[group:pair]
programs=left,right
"""
MORE = """
[program:included]
command=%(ENV_PY)s %(here)s/acts.py included sleep
"""
#: Writes what it is, then does as it is told.
ACTS = """
import json, os, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__)).removesuffix("/sub").removesuffix("/more")
name, act, *words = sys.argv[1:]
note = f"{here}/out/{name}"
wanted = ("A", "B", "C", "SHARED", "SUPERVISOR_ENABLED", "SUPERVISOR_PROCESS_NAME", "SUPERVISOR_GROUP_NAME")
mask = os.umask(0)
os.umask(mask)
facts = {"file": sys.argv[0], "words": words, "cwd": os.getcwd(), "umask": mask, "leads": os.getpgrp() == os.getpid()}
facts["environment"] = {key: os.environ.get(key) for key in wanted}
def hear(text):
    def heard(signum, frame):
        open(f"{note}.heard", "a").write(f"{text} {signum}\\n")
        os._exit(0)
    signal.signal(signal.SIGUSR1, heard)
if act == "hears":
    hear("main")
if act == "parent":
    if os.fork() == 0:
        hear("child")
        open(f"{note}.child", "w").write("there")
        time.sleep(1000)
    while not os.path.exists(f"{note}.child"):
        time.sleep(0.01)
    def both(signum, frame):
        os.wait()
        open(f"{note}.heard", "a").write(f"main {signum}\\n")
        os._exit(0)
    signal.signal(signal.SIGUSR1, both)
open(f"{note}.starts", "a").write(json.dumps(facts) + "\\n")
if act == "says":
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
if act == "exit":
    time.sleep(float(words[1]))
    sys.exit(int(words[0]))
if act == "twice" and len(open(f"{note}.starts").readlines()) < 2:
    sys.exit(0)
time.sleep(1000)
"""
WANTED = {
    "always": "RUNNING",
    "expected": "EXITED",
    "included": "RUNNING",
    "many:many_04": "RUNNING",
    "many:many_05": "RUNNING",
    "missing": "FATAL",
    "never": "EXITED",
    "off": "STOPPED",
    "onefile": "RUNNING",
    "pair:left": "RUNNING",
    "pair:right": "RUNNING",
    "plain": "RUNNING",
    "quick": "FATAL",
    "silent": "RUNNING",
    "stopper": "RUNNING",
    "streams": "RUNNING",
    "together": "RUNNING",
}


def write(folder: Path) -> None:
    for name in ("", "sub", "out", "more"):
        (folder / name).mkdir()
    (folder / "supervisord.conf").write_text(CONF)
    (folder / "more" / "included.conf").write_text(MORE)
    for name in ("acts.py", "sub/acts.py", "more/acts.py"):
        (folder / name).write_text(ACTS)


def notes(folder: Path) -> dict[str, Any]:
    """All that the programs wrote of themselves, and their logs."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "out").iterdir()):
        text = path.read_text().replace(str(folder), "HERE")
        found[path.name] = [json.loads(line) for line in text.splitlines()] if path.suffix == ".starts" else text
    return found


class Supervisord:
    """The real one in its folder."""

    def __init__(self, folder: Path, spawn: Spawner, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, spawn.environment(environment)
        self.conf = ["-c", str(folder / "supervisord.conf")]
        self.process = spawn([supervisord_venv.bin() / "supervisord", *self.conf], cwd=folder, env=environment)

    def control(self, *words: str) -> str:
        return subprocess.run(
            [supervisord_venv.bin() / "supervisorctl", *self.conf, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def states(self) -> dict[str, str]:
        return {words[0]: words[1] for line in self.control("status").splitlines() if len(words := line.split()) > 1}


def our_states(shop: Supervised) -> dict[str, str]:
    def called(program: dict[str, Any]) -> str:
        group = program["group"]
        return program["name"] if group in (None, program["name"]) else f"{group}:{program['name']}"

    return {called(program): program["state"] for program in shop.programs().values()}


def running(states: dict[str, str]) -> set[str]:
    """After a stop supervisord keeps EXITED and FATAL; with us a program that was stopped is STOPPED."""
    return {name for name, state in states.items() if state == "RUNNING"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"OUTER": "from outside", "PY": f"{sys.executable} -S", "TMPDIR": str(tmp_path)}


def test_the_same_file_means_the_same(
    tmp_path: Path, spawn: Spawner, wait_for: Callable[..., Any], environment: dict[str, str]
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder in (theirs, ours):
        write(folder)
    real = Supervisord(theirs, spawn, environment)
    shop = Supervised(ours, spawn, wait_for, {**environment, "OPSQ_STATE_DIR": str(ours / ".opsq")})
    try:
        assert "missing is FATAL" in shop.opsq("up", "-c", "supervisord.conf", code=1).stderr
        wait_for(lambda: our_states(shop) == WANTED, 30, lambda: our_states(shop))
        wait_for(lambda: real.states() == WANTED, 30, "supervisord is where we are")
        assert notes(ours) == notes(theirs)
        real.control("stop", "all")
        shop.opsq("stop", "all")
        assert notes(ours) == notes(theirs)
        assert notes(ours)["together.heard"] == "child 10\nmain 10\n"
        real.control("start", "pair:*", "many:many_05")
        shop.opsq("start", "pair:*", "many:many_05")
        back = {"pair:left", "pair:right", "many:many_05"}
        wait_for(lambda: running(real.states()) == running(our_states(shop)) == back, 30, "the same ones are back")
        shop.opsq("down")
    finally:
        real.process.send(signal.SIGKILL)  # its orderly end takes as long as all that went before
        shop.end()
