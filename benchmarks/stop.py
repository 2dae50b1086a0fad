"""Stop: from SIGTERM until the last of 16 idle children has ended. `python -m benchmarks.stop [--times 200]`"""

from __future__ import annotations

import argparse
import os
import select
import signal
import time

from benchmarks import measure
from benchmarks.measure import Server


def one(server: Server, children: int) -> tuple[float, float]:
    """Milliseconds until the last child has ended, and until the whole worker has."""
    server.client.flushall()
    with measure.project("opsq") as folder:
        environment = {"BROKER": server.url(), "OPSQ_STATE_DIR": str(folder / "state")}
        with measure.process(measure.opsq_argv("-c", str(children)), environment, folder) as worker:
            measure.wait_until(
                lambda: (folder / "output").stat().st_size and len(worker.children(True)) == children + 1
            )
            measure.wait_until(lambda: server.client.zcard("opsq:consumers:{celery}") == children)
            measure.wait_until(lambda: all(each.status() == "sleeping" for each in worker.children(True)))
            parent = os.pidfd_open(worker.pid)
            ends = [os.pidfd_open(each.pid) for each in worker.children(True) if each.ppid() != worker.pid]
            begin = time.perf_counter()
            worker.send_signal(signal.SIGTERM)
            last = max(_ended(descriptor, begin) for descriptor in ends)
            whole = _ended(parent, begin)
            for descriptor in (*ends, parent):
                os.close(descriptor)
            return last, whole


def _ended(descriptor: int, begin: float) -> float:
    """Milliseconds after `begin` at which a process was seen to have ended."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll(10_000)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    """Start and stop as often as was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--children", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    wish = parser.parse_args()
    with measure.server(durable=False) as server:
        found = sorted(one(server, wish.children) for _ in range(wish.times))
        rows = [
            {"what": what, "p50_ms": round(times[len(times) // 2], 1), "max_ms": round(times[-1], 1)}
            for what, times in (
                ("last child", [last for last, _whole in found]),
                ("whole worker", sorted(whole for _last, whole in found)),
            )
        ]
        title = f"stop of {wish.children} idle children, {wish.times} times; {server.settings}"
    measure.show(title, rows, wish.json)


if __name__ == "__main__":
    main()
