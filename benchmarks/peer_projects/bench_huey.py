"""Huey's tasks of the benchmarks. Run as a program it sends COUNT calls with PAYLOAD bytes each."""

import os
import sys

from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_BROKER"], results=bool(os.environ.get("BENCH_RESULTS")))


@huey.task()
def noop(number, payload):
    """Nothing but a small result."""
    return number


if __name__ == "__main__":
    import bench_huey  # a message names its task by module

    for number in range(int(sys.argv[1])):
        bench_huey.noop(number, "x" * int(sys.argv[2]))
