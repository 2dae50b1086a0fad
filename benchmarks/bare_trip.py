"""The least that a call and its answer can take between two processes by way of Redis: four wake-ups and no work.

The caller pushes a message and blocks for the answer; the other one blocks for the message and pushes it back. What a
task's round trip takes more is what opsq does, and the two wake-ups of the turn that leases it.

    python -m benchmarks.bare_trip URL    (the one who answers; ends by SIGTERM)
"""

from __future__ import annotations

import subprocess
import sys
import time

from opsq.datastore.line import Line

CALLS, ANSWERS = "bare-calls", "bare-answers"


def trips(url: str, count: int) -> list[float]:
    """The seconds of so many trips, one after the other."""
    line = Line(url)
    message, found = b"x" * 700, []
    with subprocess.Popen([sys.executable, "-m", "benchmarks.bare_trip", url]) as other:
        try:
            for _ in range(count + 1):
                begin = time.perf_counter()
                line.send(("LPUSH", CALLS, message), ("BRPOP", ANSWERS, 0))
                line.receive(), line.receive()
                found.append(time.perf_counter() - begin)
        finally:
            other.terminate()
            line.close()
    return found[1:]


def answer(url: str) -> None:
    """Send back whatever comes."""
    line = Line(url)
    _, message = line.ask("BRPOP", CALLS, 0)
    while True:
        line.send(("LPUSH", ANSWERS, message), ("BRPOP", CALLS, 0))
        line.receive()
        _, message = line.receive()


if __name__ == "__main__":
    answer(sys.argv[1])
