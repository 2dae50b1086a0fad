"""taskiq's tasks of the benchmarks. Run as a program it sends COUNT calls with PAYLOAD bytes each."""

import asyncio
import os
import sys

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

broker = ListQueueBroker(os.environ["BENCH_BROKER"], queue_name="taskiq")
if os.environ.get("BENCH_RESULTS"):
    broker = broker.with_result_backend(RedisAsyncResultBackend(os.environ["BENCH_BROKER"], result_ex_time=500))


@broker.task(task_name="noop")
async def noop(number, payload):
    """Nothing but a small result."""
    return number


async def fill(count, payload):
    """Send them."""
    await broker.startup()
    for number in range(count):
        await noop.kiq(number, "x" * payload)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[1]), int(sys.argv[2])))
