"""Drain: no-op tasks, queued beforehand, by one process. `python -m benchmarks.drain [--count N] [--durable] ...`

The time is from the release of the queue (opsq), the start signal (bare loop) or the first message taken (Celery, which
cannot be paused) until no message waits or is in flight.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

import psutil

from benchmarks import measure
from benchmarks.measure import Server

PAUSED = "opsq:paused:{celery}"


def in_flight(server: Server) -> int:
    """Messages that somebody holds."""
    stores = list(server.client.scan_iter("opsq:inflight:*", count=1000))
    return sum(int(server.client.hlen(store)) for store in stores) + int(server.client.hlen("unacked"))


def drained(server: Server) -> bool:
    """Whether nothing is left."""
    return not server.client.llen("celery") and not in_flight(server)


def watch(server: Server, worker: psutil.Process, count: int, begin: Any) -> dict[str, Any]:
    """Start it with `begin`, wait until all is done, and say what it took."""
    cpu, redis_cpu = measure.cpu_s(worker), server.cpu_s()
    begin()
    started = time.perf_counter()
    measure.wait_until(lambda: not server.client.llen("celery"), 300, 0.002)
    measure.wait_until(lambda: drained(server), 60, 0.0005)
    seconds = time.perf_counter() - started
    return {
        "per_second": round(count / seconds),
        "worker_us": round((measure.cpu_s(worker) - cpu) / count * 1e6, 1),
        "redis_us": round((server.cpu_s() - redis_cpu) / count * 1e6, 1),
    }


def opsq(server: Server, raws: list[bytes], results: str) -> dict[str, Any]:
    """The installed worker with one child."""
    server.client.flushall()
    server.client.set(PAUSED, "1")
    backend = "" if results == "off" else server.url(int(results))
    with measure.project("opsq") as folder:
        environment = {"BROKER": server.url(), "BACKEND": backend, "OPSQ_STATE_DIR": str(folder / "state")}
        with measure.process(measure.opsq_argv("-c", "1"), environment, folder) as worker:
            measure.wait_until(
                lambda: server.client.zcard("opsq:consumers:{celery}") and len(worker.children(True)) == 2
            )
            measure.fill(server.client, raws)
            return watch(server, worker, len(raws), lambda: server.client.delete(PAUSED))


def bare(server: Server, raws: list[bytes], results: str) -> dict[str, Any]:
    """The same script with nothing around the task."""
    server.client.flushall()
    measure.fill(server.client, raws)
    argv = [sys.executable, "-m", "benchmarks.bare_loop", server.url(), results]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as loop:
        assert loop.stdin is not None
        assert loop.stdout is not None
        loop.stdout.readline()

        def begin() -> None:
            print("go", file=loop.stdin)

        family = psutil.Process(loop.pid)
        return watch(server, family, len(raws), begin)


def celery(server: Server, raws: list[bytes], results: str, python: str) -> dict[str, Any]:
    """Celery's prefork worker with one child."""
    server.client.flushall()
    measure.fill(server.client, raws)
    backend = "" if results == "off" else server.url(int(results))
    argv = [python, "-m", "celery", "-A", "bench", "worker", "-l", "warning", "-c", "1"]
    argv += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with measure.project("celery") as folder:
        environment = {"BROKER": server.url(), "BACKEND": backend}
        with measure.process(argv, environment, folder) as worker:
            measure.wait_until(lambda: server.client.llen("celery") < len(raws))
            return watch(server, worker, len(raws), lambda: None)


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median throughput."""
    wanted = statistics.median_low(run["per_second"] for run in runs)
    return next(run for run in runs if run["per_second"] == wanted)


def main() -> None:
    """All combinations that were asked for, one after the other on one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--payload", type=int, nargs="*", default=[100], help="bytes of the argument")
    parser.add_argument("--results", nargs="*", default=["off", "0", "1"], help="off, or the database of the results")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--durable", action="store_true", help="with the private Redis' settings")
    parser.add_argument("--celery", metavar="PYTHON", help="a Python with Celery, without opsq")
    parser.add_argument("--celery-count", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    wish = parser.parse_args()
    rows = []
    with measure.server(wish.durable) as server:
        for payload in wish.payload:
            raws = measure.messages(wish.count, payload)
            for results in wish.results:
                limit = middle([bare(server, raws, results) for _ in range(wish.runs)])
                found = middle([opsq(server, raws, results) for _ in range(wish.runs)])
                case = {"payload": payload, "results": results}
                rows.append({**case, "who": "bare loop", **limit, "of bare": ""})
                share = found["per_second"] / limit["per_second"]
                rows.append({**case, "who": "opsq", **found, "of bare": f"{share:.2f}"})
                if wish.celery:
                    peer = celery(server, raws[: wish.celery_count], results, wish.celery)
                    share = peer["per_second"] / limit["per_second"]
                    rows.append({**case, "who": "celery", **peer, "of bare": f"{share:.3f}"})
        title = f"drain of {wish.count} tasks by one process; {server.settings}"
    measure.show(title, rows, wish.json)


if __name__ == "__main__":
    main()
