"""What more children bring, for tasks that do nothing and for tasks that work; and what their parent costs meanwhile.

    python -m benchmarks.scaling [--children 1 --children 2 ...] [--json]

The messages are prepared under another name, the worker waits; RENAME makes all of them appear at once.
"""

from __future__ import annotations

import time

import click

from benchmarks import processes, servers
from benchmarks.contenders import Contender, at_work, contenders
from benchmarks.messages import LIST, PREPARED, call, messages
from benchmarks.report import Report, median
from benchmarks.servers import Server

SPIN_S = 0.0005
LOOK_S = 0.005


def drained(who: Contender, server: Server, raws: list[bytes], children: int) -> tuple[float, float]:
    """Tasks a second, and the parent's CPU in percent of one core."""
    server.client.flushall()
    for first in range(0, len(raws), 1000):
        server.client.lpush(PREPARED, *raws[first : first + 1000])
    with at_work(who, server, children=children) as pid:
        stores = who.stores(server)
        parent, begin = processes.usage([pid]), time.perf_counter()
        server.client.rename(PREPARED, LIST)
        while server.client.llen(LIST) or any(server.client.hlen(store) for store in stores):
            time.sleep(LOOK_S)
        seconds = time.perf_counter() - begin
        return len(raws) / seconds, processes.usage([pid]).since(parent).cpu_s / seconds * 100


@click.command()
@click.option("--children", "counts", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--count", default=100_000, show_default=True, help="Tasks that do nothing; a tenth of it that work.")
@click.option("--repeat", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(counts: tuple[int, ...], count: int, repeat: int, as_json: bool) -> None:
    """More children."""
    [who, *_] = contenders(None)
    kinds = {
        "nothing": messages(count, 100),
        f"{SPIN_S * 1000:g} ms of CPU": [call("spin", SPIN_S) for _ in range(count // 10)],
    }
    with servers.running("plain") as server:
        report = Report("scaling", f"medians of {repeat} runs", server.version, as_json)
        for kind, raws in kinds.items():
            for children in counts:
                runs = [drained(who, server, raws, children) for _ in range(repeat)]
                report.add(
                    task=kind,
                    children=children,
                    per_s=round(median([speed for speed, _ in runs])),
                    parent_cpu_percent=round(median([percent for _, percent in runs]), 2),
                )
    report.print()


if __name__ == "__main__":
    main()
