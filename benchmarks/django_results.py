"""Results in PostgreSQL through Django, rows per second: opsq, and Celery with django-celery-results, in one run.

    python -m benchmarks.django_results --celery PYTHON [--count 50000] [--json]

One process drains a queue of tasks that do nothing; the end is when all rows are there. The
Python of `--celery` has Celery, django-celery-results and psycopg.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click

from benchmarks import processes, servers
from benchmarks.contenders import PROJECT, ROOT, Contender, at_work
from benchmarks.drain import Run
from benchmarks.messages import LIST, PREPARED, messages
from benchmarks.report import Report, median
from benchmarks.servers import Server

sys.path.append(str(ROOT / "tests"))  # for the private PostgreSQL that the tests have
from support import postgres
from support.postgres import Database, PostgresServer

TABLE = "django_celery_results_taskresult"
#: Connections: as Django has them by default (one a task or batch), or kept.
AGES = {"0": 0, "None": None}
#: Between two looks at the table (seconds): counting rows costs too.
LOOK_S = 0.05


def stored(who: Contender, server: Server, there: PostgresServer, age: str, raws: list[bytes]) -> Run:
    """From the moment when all messages appear in the queue until all rows are there. Celery's worker has acknowledged
    long before, so it must live until then."""
    server.client.flushall()
    for first in range(0, len(raws), 1000):
        server.client.lpush(PREPARED, *raws[first : first + 1000])
    with there.database() as database:
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench_settings"
        os.environ["BENCH_DATABASE"] = json.dumps(database.settings(CONN_MAX_AGE=AGES[age]))
        migrate = [str(who.python), "-m", "django", "migrate", "-v", "0"]
        subprocess.run(migrate, env=who.environment(server.url, "django-db"), cwd=PROJECT, check=True)
        with at_work(who, server, "django-db") as pid:
            pids = processes.tree(pid)
            used, redis_cpu, begin = processes.usage(pids), server.cpu_s(), time.perf_counter()
            server.client.rename(PREPARED, LIST)
            while rows_of(database) < len(raws):
                time.sleep(LOOK_S)
            seconds = time.perf_counter() - begin
            used = processes.usage(pids).since(used)
        redis_us = (server.cpu_s() - redis_cpu) / len(raws) * 1e6
        return Run(len(raws) / seconds, used.cpu_s / len(raws) * 1e6, redis_us)


def rows_of(database: Database) -> int:
    """How many results of the queue are stored; the first task of a worker has one too."""
    with database.connect() as connection:
        found = connection.execute(f"SELECT count(*) FROM {TABLE} WHERE status = 'SUCCESS'").fetchone()
        return 0 if found is None else int(found[0]) - 1


@click.command()
@click.option("--count", default=50_000, show_default=True, help="Results.")
@click.option("--celery", type=click.Path(path_type=Path), help="The Python of an environment with Celery.")
@click.option("--celery-count", default=2000, show_default=True, help="Results of Celery.")
@click.option("--age", "ages", type=click.Choice(list(AGES)), multiple=True, default=list(AGES), help="CONN_MAX_AGE.")
@click.option("--repeat", default=3, show_default=True, help="Runs of each; medians are shown.")
@click.option("--json", "as_json", is_flag=True)
def main(count: int, celery: Path | None, celery_count: int, ages: tuple[str, ...], repeat: int, as_json: bool) -> None:
    """Results into PostgreSQL, by one process."""
    whos = [Contender("opsq", "opsq", Path(sys.executable))]
    if celery is not None:
        whos.append(Contender("Celery prefork", "celery", celery))
    with servers.running("plain") as server, postgres.running() as there:
        settings = f"one worker process; medians of {repeat} runs; PostgreSQL with {' '.join(postgres.OPTIONS[:3])}"
        report = Report("django_results", settings, server.version, as_json)
        raws = messages(count, 100)
        for age in ages:
            runs: dict[str, list[Run]] = {who.name: [] for who in whos}
            for _ in range(repeat):
                for who in whos:
                    some = raws[:celery_count] if who.library == "celery" else raws
                    runs[who.name].append(stored(who, server, there, age, some))
            for who in whos:
                speeds = [run.per_second for run in runs[who.name]]
                report.add(
                    conn_max_age=age,
                    who=who.name,
                    results=celery_count if who.library == "celery" else count,
                    rows_per_s=round(median(speeds)),
                    from_to=f"{min(speeds):,.0f}-{max(speeds):,.0f}",
                    worker_us=round(median([run.worker_us for run in runs[who.name]]), 1),
                    times_celery=round(median(speeds) / median([run.per_second for run in runs[whos[-1].name]]), 1),
                )
    report.notes.append(
        "worker us: microseconds of CPU a result, of all processes of the worker, PostgreSQL's own apart"
    )
    if celery is None:
        report.notes.append("Celery was not measured: name the Python of an environment with it by --celery")
    report.print()


if __name__ == "__main__":
    main()
