"""The monitor beside opsq's own worker: what runs, what has run, what is counted, and what the terminal reads of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import redis
from prometheus_client.parser import text_string_to_metric_families
from support import monitored
from support.monitored import Monitored
from support.worker_project import Project

from opsq.datastore import keys

WaitFor = Callable[..., Any]
SEND = """
import proj

ids = [proj.add.delay(number, 1).id for number in range(5)]
ids.append(proj.boom.delay("a < b").id)
ids.append(proj.flaky.delay(2).id)
ids.append(proj.add.apply_async((1, 1), queue="mail").id)
print(" ".join(ids))
"""


def run(project: Project, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=project.folder,
        env=project.spawn.environment(project.environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def counts(page: Monitored) -> dict[tuple[str, str, str], float]:
    """(queue, task, state) -> how many, as Prometheus reads it."""
    found = {family.name: family for family in text_string_to_metric_families(page.ask("/metrics").text)}
    return {
        (each.labels["queue"], each.labels["name"], each.labels["state"]): each.value
        for each in found["opsq_tasks"].samples
    }


def test_what_a_worker_does_is_seen_counted_and_found(project: Project, wait_for: WaitFor) -> None:
    page = monitored.start(project.spawn, project.url)
    project.worker("-Q", "celery,mail", "-c", "2", "-n", "one@here")
    wait_for(lambda: page.ask("/api/workers").json()["workers"], what="the page shows the worker")
    sent = run(project, "-c", SEND).split()
    wait_for(
        lambda: sum(each["state"] in ("SUCCESS", "FAILURE") for each in page.ask("/api/tasks").json()["tasks"]) == 8,
        20,
        "all have ended",
    )
    tasks = {each["id"]: each for each in page.ask("/api/tasks").json()["tasks"]}
    assert sorted(tasks) == sorted(sent)
    assert (tasks[sent[0]]["result"], tasks[sent[0]]["queue"], tasks[sent[0]]["worker"]) == ("1", "celery", "one@here")
    assert tasks[sent[5]]["exception"] == "ValueError('a < b')"
    assert (tasks[sent[6]]["retries"], len(tasks[sent[6]]["tries"])) == (2, 2)

    wait_for(lambda: counts(page).get(("mail", "proj.add", "succeeded")), what="the counts are written")
    counted = counts(page)
    assert counted["celery", "proj.add", "succeeded"] == 5
    assert counted["celery", "proj.boom", "failed"] == 1
    assert counted["celery", "proj.flaky", "retried"] == 2

    opsq = ("-m", "opsq", "-A", "proj")
    of_mail = json.loads(run(project, *opsq, "tasks", "--queue", "mail", "--json"))["history"]
    assert [each["id"] for each in of_mail] == [sent[7]]
    failed = json.loads(run(project, *opsq, "results", "--state", "failure", "--grep", "A < B", "--json"))["results"]
    assert [(each["id"], each["error"]["type"]) for each in failed] == [(sent[5], "ValueError")]
    assert run(project, *opsq, "tasks", "--worker", "elsewhere") == ""
    [worker] = json.loads(page.ask("/api/workers").text)["workers"]
    assert (worker["kind"], worker["alive"], worker["queues"]) == ("opsq", True, ["celery", "mail"])
    assert worker["memory_bytes"] > 1e6


def test_what_runs_is_shown_with_its_age_and_what_ends_meanwhile_is_learned(
    project: Project, redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    first = monitored.start(project.spawn, project.url, name="first")
    project.worker("-c", "1", "--lease", "2")
    [task_id] = run(project, "-c", "import proj; print(proj.late.delay(1, 4).id)").split()
    wait_for(lambda: redis_client.hexists(keys.HISTORY, task_id), what="its start is heard of")
    [row] = wait_for(lambda: first.ask("/api/running").json()["running"], what="it is among those that run")
    assert (row["id"], row["name"]) == (task_id, "proj.late")
    assert 0 <= row["runtime"] < 5
    first.process.stop()
    wait_for(lambda: project.effects()["1"], what="it has ended while no monitor ran")
    second = monitored.start(project.spawn, project.url, name="second")
    wait_for(lambda: second.ask(f"/api/tasks/{task_id}").json()["state"] == "SUCCESS", what="its end is learned")
