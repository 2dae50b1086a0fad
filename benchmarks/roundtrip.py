"""Round trip: `delay().get()` one after the other, and `delay()` alone. `python -m benchmarks.roundtrip`"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks import measure
from benchmarks.measure import Server

CLIENT = """
import json, sys, time
import bench

count = int(sys.argv[1])
for _ in range(50):
    bench.noop.delay(1).get(timeout=10)
times = []
for number in range(count):
    begin = time.perf_counter()
    assert bench.noop.delay(number).get(timeout=10) == number
    times.append(time.perf_counter() - begin)
times.sort()
cpu, begin = time.process_time(), time.perf_counter()
for number in range(count):
    bench.noop.apply_async((number,), ignore_result=True)
cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
print(json.dumps({
    "p50_ms": round(times[count // 2] * 1e3, 3), "p99_ms": round(times[int(count * 0.99)] * 1e3, 3),
    "delay_us": round(wall / count * 1e6, 1), "delay_cpu_us": round(cpu / count * 1e6, 1),
}))
"""


def measured(server: Server, library: str, python: str, argv: list[str], count: int) -> dict[str, Any]:
    """A worker and a client of one library."""
    server.client.flushall()
    with measure.project(library) as folder:
        (folder / "client.py").write_text(CLIENT)
        environment = {"BROKER": server.url(), "BACKEND": server.url(), "OPSQ_STATE_DIR": str(folder / "state")}
        with measure.process(argv, environment, folder):
            done = subprocess.run(
                [python, "client.py", str(count)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            return {"who": library, **json.loads(done.stdout)}


def main() -> None:
    """opsq, and Celery when it is given, on one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--durable", action="store_true", help="with the private Redis' settings")
    parser.add_argument("--celery", metavar="PYTHON", help="a Python with Celery, without opsq")
    parser.add_argument("--json", action="store_true")
    wish = parser.parse_args()
    with measure.server(wish.durable) as server:
        rows = [measured(server, "opsq", sys.executable, measure.opsq_argv("-c", "2"), wish.count)]
        if wish.celery:
            argv = [wish.celery, "-m", "celery", "-A", "bench", "worker", "-l", "warning", "-c", "2"]
            rows.append(measured(server, "celery", wish.celery, argv, wish.count))
        title = f"round trip, {wish.count} times; {server.settings}"
    measure.show(title, rows, wish.json)


if __name__ == "__main__":
    main()
