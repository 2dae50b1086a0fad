"""Two beats, and the one that ticks is killed again and again: is a due time served twice, how long is the gap?

    python -m benchmarks.beat_failover [--kills 20] [--apart] [--json]

An entry is due each second. `--apart` (root): each beat has a name space of process ids of its own, as on two machines:
the other one then cannot see that it has died, and waits for the end of its lease.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from benchmarks import processes, servers
from benchmarks.contenders import wait_for
from benchmarks.report import Report
from benchmarks.servers import Server
from opsq.datastore import keys
from opsq.protocol.delivery_tag import published_ms

APP = """
from opsq import App

app = App("failover", beat_schedule={"each second": {"task": "work", "schedule": 1.0}})
"""
LEASE = keys.schedule("failover", "lease")
#: Between two kills (seconds).
PAUSES_S = (1.0, 3.0)


def start(folder: Path, server: Server, apart: bool) -> subprocess.Popen[bytes]:
    """A beat in the foreground."""
    environment = {**os.environ, "OPSQ_BROKER_URL": server.url, "OPSQ_STATE_DIR": str(folder / "state")}
    command = [sys.executable, "-m", "opsq", "-A", "failover", "-q", "beat"]
    if apart:
        command = ["unshare", "--pid", "--fork", "--mount-proc", *command]
    quiet = subprocess.DEVNULL if apart else None  # unshare complains when its child is killed
    return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stderr=quiet)


def lease(server: Server) -> dict[str, Any] | None:
    """Who ticks."""
    held: Any = server.client.get(LEASE)
    return json.loads(held) if held else None


def is_leader(beat: subprocess.Popen[bytes], told: dict[str, Any]) -> bool:
    """Whether this is the process that the lease names: by its name space and its pid there."""
    pid = processes.tree(beat.pid)[-1]
    inner = (Path("/proc") / str(pid) / "status").read_text().partition("NSpid:")[2].splitlines()[0].split()[-1]
    return bool(os.readlink(f"/proc/{pid}/ns/pid") == told["space"] and int(inner) == told["pid"])


def kill(beat: subprocess.Popen[bytes]) -> None:
    """The beat itself; what is around it ends with it."""
    os.kill(processes.tree(beat.pid)[-1], signal.SIGKILL)
    beat.wait()


def runs(server: Server) -> list[tuple[float, float]]:
    """Of all messages that were sent, in order: the due time, and when it was sent (Unix seconds)."""
    found: Any = server.client.lrange("celery", 0, -1)
    messages = [json.loads(raw) for raw in reversed(found)]
    return [
        (message["headers"]["x-opsq-due"], (published_ms(message["properties"]["delivery_tag"]) or 0) / 1000)
        for message in messages
    ]


def kill_again_and_again(folder: Path, server: Server, kills: int, apart: bool) -> None:
    """Two beats; after a random time the one that ticks dies, and another one is started in its place."""
    beats = [start(folder, server, apart) for _ in range(2)]
    try:
        for _ in range(kills):
            sent = server.client.llen("celery")
            wait_for(lambda sent=sent: server.client.llen("celery") > sent, "nobody ticks")  # type: ignore[misc]
            time.sleep(random.uniform(*PAUSES_S))
            wait_for(lambda: any(is_leader(beat, lease(server) or {"space": ""}) for beat in beats), "nobody leads")
            told = lease(server) or {"space": ""}
            place = next((n for n, beat in enumerate(beats) if is_leader(beat, told)), 0)
            kill(beats[place])
            beats[place] = start(folder, server, apart)
        sent = server.client.llen("celery")
        wait_for(lambda: server.client.llen("celery") > sent + 1, "nobody ticks")
    finally:
        for beat in beats:
            kill(beat)


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--apart", is_flag=True, help="As on two machines (needs root).")
@click.option("--json", "as_json", is_flag=True)
def main(kills: int, apart: bool, as_json: bool) -> None:
    """What happens when the beat that ticks is killed."""
    with servers.running("plain") as server, tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "failover.py").write_text(APP)
        where = "two machines" if apart else "one machine"
        report = Report(
            "beat_failover", f"{kills} kills of the ticking one of two beats on {where}", server.version, as_json
        )
        kill_again_and_again(folder, server, kills, apart)
        found = runs(server)
    due = Counter(time for time, _sent in found)
    twice = [time for time, count in due.items() if count > 1]
    report.add(
        runs=len(found),
        due_times_served_twice=len(twice),
        due_times_left_out=round(max(due) - min(due)) + 1 - len(due),
        longest_gap_s=round(max(later[1] - earlier[1] for earlier, later in pairwise(found)), 3),
    )
    report.print()
    sys.exit(bool(twice))


if __name__ == "__main__":
    main()
