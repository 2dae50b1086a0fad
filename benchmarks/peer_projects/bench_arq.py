"""arq's tasks of the benchmarks. Run as a program it sends COUNT calls with PAYLOAD bytes each."""

import asyncio
import os
import sys

from arq import create_pool, func
from arq.connections import RedisSettings

SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_BROKER"])


async def noop(context, number, payload):
    """Nothing but a small result."""
    return number


class Worker:
    """What `arq bench_arq.Worker` runs."""

    functions = [func(noop, keep_result=500 if os.environ.get("BENCH_RESULTS") else 0)]
    redis_settings = SETTINGS
    max_jobs = 100


async def fill(count, payload):
    """Send them."""
    pool = await create_pool(SETTINGS)
    for number in range(count):
        await pool.enqueue_job("noop", number, "x" * payload)


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[1]), int(sys.argv[2])))
