"""RQ's tasks of the benchmarks. Run as a program it sends COUNT calls with PAYLOAD bytes each."""

import os
import sys

import redis
import rq


def noop(number, payload):
    """Nothing but a small result."""
    return number


if __name__ == "__main__":
    import bench_rq  # a job names its function by module

    queue = rq.Queue(connection=redis.Redis.from_url(os.environ["BENCH_BROKER"]))
    ttl_s = 500 if os.environ.get("BENCH_RESULTS") else 0
    for number in range(int(sys.argv[1])):
        queue.enqueue(bench_rq.noop, number, "x" * int(sys.argv[2]), result_ttl=ttl_s)
