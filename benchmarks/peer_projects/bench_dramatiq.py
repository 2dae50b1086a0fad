"""Dramatiq's tasks of the benchmarks. Run as a program it sends COUNT calls with PAYLOAD bytes each."""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=os.environ["BENCH_BROKER"])
if os.environ.get("BENCH_RESULTS"):
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_BROKER"])))
dramatiq.set_broker(broker)


@dramatiq.actor(**({"store_results": True} if os.environ.get("BENCH_RESULTS") else {}))
def noop(number, payload):
    """Nothing but a small result."""
    return number


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        noop.send(number, "x" * int(sys.argv[2]))
