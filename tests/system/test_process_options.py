"""What all of our processes take: a pidfile, a log file, another user and group; alone, as systemd starts them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pytest
from support.processes import Running, Spawner

import opsq
from opsq.runtime import notify

PROCESSES = {"worker": ["-c", "1"], "beat": [], "monitor": [], "agent": []}


@dataclass
class Starter:
    """Starts one of our processes and hears when it says that it is ready."""

    spawn: Spawner
    url: str
    wait_for: Callable[..., Any]
    free_port: Callable[[], int]
    folder: Path
    python: Sequence[str] = (sys.executable,)
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, name: str, *words: str) -> Running:
        more = ["--port", str(self.free_port())] if name == "monitor" else PROCESSES[name]
        environment = {"OPSQ_BROKER_URL": self.url, "OPSQ_STATE_DIR": str(self.folder / "state")}
        environment |= {"HOME": str(self.folder), "NOTIFY_SOCKET": str(self.folder / "notify"), **self.environment}
        line = [*self.python, "-m", "opsq", name, "-l", "info", *more, *words]
        return self.spawn(line, cwd=self.folder, env=environment)

    def ready(self, name: str, *words: str) -> Running:
        listener = notify.Listener(self.folder / "notify")
        try:
            running = self(name, *words)

            def said() -> bool:
                assert running.alive(), running.report()
                return any(each.values.get("READY") == "1" and each.pid == running.pid for each in listener.receive())

            self.wait_for(said, 30, f"{name} is ready")
        finally:
            listener.close()
        return running


@pytest.fixture
def start(
    spawn: Spawner, redis_url: str, tmp_path: Path, wait_for: Callable[..., Any], free_port: Callable[[], int]
) -> Starter:
    return Starter(spawn, redis_url, wait_for, free_port, tmp_path)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_pidfile_and_a_log_file(name: str, start: Starter, tmp_path: Path) -> None:
    pidfile, log = tmp_path / "x.pid", tmp_path / "x.log"
    running = start.ready(name, "--pidfile", str(pidfile), "-f", str(log))
    assert pidfile.read_text() == f"{running.pid}\n"
    second = start(name, "--pidfile", str(pidfile))
    assert second.wait() == 2
    assert f"the pidfile {pidfile} belongs to process {running.pid}" in second.output()
    assert running.stop() == 0
    assert not pidfile.exists()
    assert ": INFO/" in log.read_text()
    assert ": INFO/" not in running.output()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may write to; tests' own are for their user alone."""
    folder = Path(tempfile.mkdtemp(prefix="opsq-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def interpreter_for(user: pwd.struct_passwd) -> tuple[list[str], dict[str, str]]:
    """A Python with opsq that another user may read."""
    parts = [str(Path(opsq.__file__).parents[1]), str(Path(click.__file__).parents[1])]
    system = ["/usr/bin/python3"], {"PYTHONPATH": os.pathsep.join(dict.fromkeys(parts))}
    for python, environment in (([sys.executable], {}), system):
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [*python, "-c", "import opsq.cli.main, redis, msgspec, psutil, cryptography"],
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                cwd="/",
                env={**os.environ, **environment},
                capture_output=True,
                check=True,
            )
            return list(python), environment
    pytest.skip("opsq is installed where only this user can read it")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose the user")
@pytest.mark.parametrize("name", PROCESSES)
def test_another_user_and_group(name: str, start: Starter, open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python, environment = interpreter_for(nobody)
    starter = replace(start, folder=open_folder, python=python, environment=environment)
    running = starter.ready(name, "--uid", "nobody", "--gid", str(nobody.pw_gid), "--umask", "027")
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert facts["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert facts["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert facts["Umask"] == "0027"
    assert "0" not in facts["Groups"].split()
    assert running.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose the user")
@pytest.mark.parametrize("name", PROCESSES)
def test_a_user_who_cannot_read_the_program_is_told_so(
    name: str, start: Starter, open_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "opsq").symlink_to(Path(opsq.__file__).parent)  # pytest's folders are for their user alone
    running = replace(start, folder=open_folder, environment={"PYTHONPATH": str(tmp_path)})(name, "--uid", "nobody")
    assert running.wait() == 2
    assert "opsq: cannot run as the user 'nobody': it may not read " in running.output()
    assert "Traceback" not in running.output()
