"""SAQ's tasks of the benchmarks. Run as a program it sends COUNT calls with PAYLOAD bytes each."""

import asyncio
import os
import sys

from saq import Queue

queue = Queue.from_url(os.environ["BENCH_BROKER"], name="bench")


async def noop(context, *, number, payload):
    """Nothing but a small result."""
    return number


settings = {"queue": queue, "functions": [noop], "concurrency": 100}


async def fill(count, payload):
    """Send them."""
    await queue.connect()
    for number in range(count):
        await queue.enqueue(
            "noop", number=number, payload="x" * payload, ttl=500 if os.environ.get("BENCH_RESULTS") else -1
        )
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[1]), int(sys.argv[2])))
