"""How fast one worker drains tasks that do nothing: opsq beside Celery, Dramatiq, RQ, Huey, arq, taskiq and SAQ.

    python -m benchmarks.peers [--environments FOLDER] [--server plain|private] [--results] [--json]

Each library is installed in an environment of its own (made in FOLDER when it is not there), sends its messages with
its own client, then its worker is started as its documentation says, with one process (and one thread where it has
threads). Time runs from when a twentieth is done until nothing waits and nothing is unfinished.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import processes, servers
from benchmarks.contenders import PROJECT, end, start
from benchmarks.messages import messages
from benchmarks.report import Report, median
from benchmarks.servers import Server

PEER_PROJECTS = Path(__file__).with_name("peer_projects")
#: How often what is left is looked at (seconds), and how long a drain may take.
LOOK_S, PATIENCE_S = 0.005, 180.0
#: The share that is done before time runs: start-up is not measured.
WARM = 0.05


@dataclass(frozen=True)
class Peer:
    """A library: what is installed, its worker's command line, how many messages it gets, and what is left of them."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    count: int
    left: Callable[[Any], int]


def _lists(*names: str) -> Callable[[Any], int]:
    def left(client: Any) -> int:
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.llen(name)
        return int(sum(pipe.execute()))

    return left


def _dramatiq(client: Any) -> int:
    acks = sum(int(client.scard(name)) for name in client.keys("dramatiq:__acks__.*"))
    return int(client.llen("dramatiq:default")) + acks


def _rq(client: Any) -> int:
    return int(client.llen("rq:queue:default")) + int(client.zcard("rq:wip:default"))


def _celery(client: Any) -> int:
    return int(client.llen("celery")) + int(client.hlen("unacked"))


def _ours(client: Any) -> int:
    held = sum(int(client.hlen(name)) for name in client.keys("opsq:inflight:{celery}:*"))
    return int(client.llen("celery")) + held


PEERS = (
    Peer("opsq", (), ("opsq", "-A", "bench_tasks", "worker", "-c", "1"), 100_000, _ours),
    Peer("Celery", ("celery[redis]",), ("celery", "-A", "bench_tasks", "worker", "-c", "1"), 4_000, _celery),
    Peer(
        "Dramatiq",
        ("dramatiq[redis]",),
        ("dramatiq", "bench_dramatiq", "--processes", "1", "--threads", "1"),
        8_000,
        _dramatiq,
    ),
    Peer("RQ", ("rq",), ("rq", "worker", "--url", "{broker}"), 200, _rq),
    Peer(
        "RQ, one process",
        ("rq",),
        ("rq", "worker", "--url", "{broker}", "-w", "rq.SimpleWorker"),
        2_000,
        _rq,
    ),
    Peer("Huey", ("huey", "redis"), ("huey_consumer", "bench_huey.huey", "-w", "1"), 8_000, _lists("huey.redis.bench")),
    Peer("arq", ("arq",), ("arq", "bench_arq.Worker"), 4_000, lambda client: int(client.zcard("arq:queue"))),
    Peer(
        "taskiq",
        ("taskiq", "taskiq-redis"),
        ("taskiq", "worker", "bench_taskiq:broker", "-w", "1"),
        8_000,
        _lists("taskiq"),
    ),
    Peer(
        "SAQ",
        ("saq[redis]", "typing_extensions"),
        ("saq", "bench_saq.settings"),
        4_000,
        _lists("saq:bench:queued", "saq:bench:active"),
    ),
)


@dataclass(frozen=True)
class Run:
    """One drain: its speed, and microseconds of CPU a task of the worker and of Redis."""

    per_second: float
    worker_us: float
    redis_us: float


def environment_of(peer: Peer, folder: Path) -> Path:
    """The folder of the programs of a peer's environment, made when it is not there."""
    if not peer.packages:
        return Path(sys.executable).parent
    home = folder / peer.packages[0].partition("[")[0]
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", *peer.packages], check=True)
        (home / "ready").touch()
    return home / "bin"


def version_of(peer: Peer, programs: Path) -> str:
    """The version of a library as its environment says."""
    package = peer.packages[0].partition("[")[0] if peer.packages else "opsq"
    said = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([programs / "python", "-c", said], check=True, capture_output=True, text=True).stdout.strip()


def drain(peer: Peer, programs: Path, server: Server, payload: int, results: bool) -> Run:
    """Fill, start, watch, end."""
    server.client.flushall()
    folder = tempfile.mkdtemp(prefix="opsq-bench-peer-")
    environment = _environment(peer, server, results, folder)
    _fill(peer, programs, server, environment, payload)
    command = [word.format(broker=server.url) for word in peer.command]
    process = start([str(programs / command[0]), *command[1:]], environment, folder)
    try:
        return _watch(peer, server, process)
    except SystemExit:
        print((Path(folder) / "output").read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(peer: Peer, server: Server, results: bool, folder: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPSQ_", "CELERY_"))}
    told = {"BENCH_BROKER": server.url, "PYTHONPATH": f"{PROJECT}{os.pathsep}{PEER_PROJECTS}", "OPSQ_STATE_DIR": folder}
    told["BENCH_LIBRARY"] = peer.name.lower()
    if results:
        told.update(BENCH_RESULTS="1", BENCH_BACKEND=server.url)
    return {**kept, **told}


def _fill(peer: Peer, programs: Path, server: Server, environment: Mapping[str, str], payload: int) -> None:
    """With the peer's own client; ours and Celery's messages are written as both write them."""
    if peer.command[0] in ("opsq", "celery"):
        raws = messages(peer.count, payload)
        for first in range(0, len(raws), 1000):
            server.client.lpush("celery", *raws[first : first + 1000])
        return
    program = PEER_PROJECTS / f"bench_{peer.command[0].partition('_')[0]}.py"
    words = [programs / "python", program, str(peer.count), str(payload)]
    subprocess.run(words, env=dict(environment), check=True, stdin=subprocess.DEVNULL)


def _watch(peer: Peer, server: Server, process: subprocess.Popen[bytes]) -> Run:
    client, until = server.client, time.monotonic() + PATIENCE_S
    begin = used_s = redis_s = 0.0
    first = 0
    while True:
        left = peer.left(client)
        now = time.perf_counter()
        if not begin and left <= peer.count * (1 - WARM):
            begin, first, redis_s, used_s = now, left, server.cpu_s(), processes.cpu_s(process.pid)
        if not left and begin:
            break
        if time.monotonic() > until or process.poll() is not None:
            raise SystemExit(f"{peer.name} does not work")
        time.sleep(LOOK_S)
    used_s, redis_s = processes.cpu_s(process.pid) - used_s, server.cpu_s() - redis_s
    done = max(first, 1)
    return Run(done / (now - begin), used_s / done * 1e6, redis_s / done * 1e6)


@click.command()
@click.option(
    "--environments", type=click.Path(path_type=Path), default=Path(tempfile.gettempdir()) / "opsq-bench-peers"
)
@click.option("--server", "kind", type=click.Choice(list(servers.KINDS)), default="plain", show_default=True)
@click.option("--payload", "payloads", type=int, multiple=True, default=(100, 1000, 10_000), help="Bytes.")
@click.option("--results", "results", type=click.Choice(["off", "on"]), multiple=True, default=("off", "on"))
@click.option("--only", multiple=True, help="Peers by name.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(
    environments: Path,
    kind: str,
    payloads: tuple[int, ...],
    results: tuple[str, ...],
    only: tuple[str, ...],
    repeat: int,
    as_json: bool,
) -> None:
    """Drain of tasks that do nothing, by one process of each library."""
    peers = [peer for peer in PEERS if not only or peer.name in only]
    programs = {peer: environment_of(peer, environments) for peer in peers}
    with servers.running(kind) as server:
        settings = f"one worker process each; medians of {repeat} runs; server: {servers.KINDS[kind]}"
        report = Report("peers", settings, server.version, as_json)
        for payload in payloads:
            for kept in results:
                _measure(report, programs, server, payload, kept == "on", repeat)
    report.notes.append("us: microseconds of CPU a task, of all processes of the worker and of Redis apart")
    report.notes.append("RQ forks a process for each task; 'RQ, one process' is its SimpleWorker, which does not.")
    report.print()


def _measure(
    report: Report, programs: Mapping[Peer, Path], server: Server, payload: int, results: bool, repeat: int
) -> None:
    for peer, place in programs.items():
        runs = [drain(peer, place, server, payload, results) for _ in range(repeat)]
        report.add(
            payload_kB=payload / 1000,
            results="on" if results else "off",
            who=f"{peer.name} {version_of(peer, place)}",
            tasks=peer.count,
            per_s=round(median([run.per_second for run in runs])),
            worker_us=round(median([run.worker_us for run in runs]), 1),
            redis_us=round(median([run.redis_us for run in runs]), 1),
        )


if __name__ == "__main__":
    main()
