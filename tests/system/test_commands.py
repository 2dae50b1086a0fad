"""The commands to look and mend, called as a user calls them: what they print, where, and how they end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from support.broken_messages import whole
from support.processes import Spawner
from support.worker_project import Project

from opsq.datastore import keys


@pytest.fixture
def opsq(project: Project, spawn: Spawner) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`opsq("queues", "--json")` runs the command line in the project's folder, with nobody at the terminal."""

    def run(*line: str, cwd: Path | None = None, **environment: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "opsq", *line],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            cwd=cwd or project.folder,
            env=spawn.environment({**project.environment, **environment}),
        )

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def data(found: subprocess.CompletedProcess[str]) -> Any:
    assert found.returncode == 0, found
    return json.loads(found.stdout)


def mistake(found: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line (and the hint) that a mistake is told in."""
    assert found.returncode == code, found
    assert "Traceback" not in found.stderr
    lines = found.stderr.splitlines()
    assert sum(line.startswith("opsq: ") for line in lines) == 1, found
    return next(line for line in lines if line.startswith("opsq: "))


# -- run task --------------------------------------------------------------------------------------------------------


def test_a_task_is_run_and_its_value_printed(project: Project, opsq: Run) -> None:
    project.worker("-c", "1")
    found = opsq("-A", "proj", "run", "task", "proj.add", "[2, 3]", "--wait", "--timeout", "20")
    assert (found.returncode, found.stdout) == (0, "5\n")
    found = opsq("run", "task", "proj.add", '["a"]', '{"y": "b"}', "--wait", "-A", "proj", "--json")
    told = data(found)
    assert (told["result"], told["state"], told["task"], told["queue"]) == ("ab", "SUCCESS", "proj.add", "celery")
    assert len(told["id"]) == 36


def test_the_value_of_a_task_is_waited_for_and_printed_as_celery_does(project: Project, opsq: Run) -> None:
    sent = [opsq("-A", "proj", "run", "task", f"proj.{task}", args).stdout.strip() for task, args in CALLS]
    project.worker("-c", "1")
    value, failed = (opsq("-A", "proj", "result", "--timeout", "20", task_id) for task_id in sent)
    assert (value.returncode, value.stdout) == (0, "5\n")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "raise ValueError(text)" in failed.stderr
    shown = opsq("-A", "proj", "result", "--traceback", sent[1], "--task", "proj.boom")
    assert "raise ValueError(text)" in shown.stdout
    told = opsq("-A", "proj", "result", sent[1], "--json")
    assert (told.returncode, json.loads(told.stdout)["error"]) == (1, {"type": "ValueError", "message": "oh"})
    never = opsq("-A", "proj", "result", "never-was", "--timeout", "0.2")
    assert "did not come in time" in mistake(never, 3)
    assert "proj.nothing" in mistake(opsq("-A", "proj", "result", "x", "-t", "proj.nothing"), 2)


CALLS = (("add", "[2, 3]"), ("boom", '["oh"]'))


def test_a_failure_is_told_with_its_traceback(project: Project, opsq: Run) -> None:
    project.worker("-c", "1")
    found = opsq("-A", "proj", "run", "task", "proj.boom", '["oh"]', "--wait", "--timeout", "20")
    assert found.returncode == 1
    assert found.stdout == ""
    assert "raise ValueError(text)" in found.stderr
    assert found.stderr.splitlines()[-1] == "opsq: the task proj.boom failed: ValueError: oh"
    found = opsq("-A", "proj", "run", "task", "proj.boom", '["oh"]', "--wait", "--timeout", "20", "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["error"]["why"] == "ValueError: oh"


def test_arguments_that_do_not_fit_are_told_before_anything_is_sent(opsq: Run, redis_client: redis.Redis) -> None:
    for arguments in (["[1]"], ["[1, 2, 3]"], ["[1]", '{"z": 2}']):
        found = opsq("-A", "proj", "run", "task", "proj.add", *arguments)
        assert "cannot call proj.add so: add() " in mistake(found, 2)
        assert "hint: it takes (x, y)" in found.stderr
    assert not redis_client.llen("celery")


def test_an_unknown_task_is_told_with_the_nearest(opsq: Run, redis_client: redis.Redis) -> None:
    found = opsq("-A", "proj", "run", "task", "proj.ad")
    assert "no task is called proj.ad" in mistake(found, 2)
    assert "proj.add" in found.stderr
    assert redis_client.llen("celery") == 0


def test_without_an_app_an_unknown_task_is_refused_too(opsq: Run) -> None:
    found = opsq("run", "task", "opsq.pin")
    assert "no task is called opsq.pin" in mistake(found, 2)
    assert "opsq.ping" in found.stderr


def test_without_an_app_the_workers_say_what_they_know(project: Project, opsq: Run) -> None:
    project.worker("-c", "1")
    assert opsq("run", "task", "proj.add", "[2, 3]", "--wait", "--timeout", "20").stdout == "5\n"
    found = opsq("run", "task", "proj.ad", "[2, 3]")
    assert "no worker that is alive has it" in mistake(found, 2)
    assert "proj.add" in found.stderr
    rows = {row["name"]: row for row in data(opsq("tasks", "--json"))["tasks"]}
    assert {"opsq.ping", "proj.add"} <= set(rows)
    assert rows["proj.add"]["queue"] is None
    assert "proj.add" in opsq("tasks").stdout


def test_opsqs_own_task_answers_without_an_app(project: Project, spawn: Spawner, opsq: Run, wait_for: Any) -> None:
    argv = [sys.executable, "-m", "opsq", "worker", "-l", "info", "-c", "1"]
    worker = spawn(argv, env=project.environment, cwd=project.folder)
    wait_for(lambda: " ready." in worker.output(), 30)
    assert opsq("run", "task", "opsq.ping", "--wait", "--timeout", "20").stdout == '"pong"\n'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["[1"], "cannot read ARGS as JSON"),
        (['{"a": 1}'], "ARGS must be a list"),
        (["[]", "[]"], "KWARGS must be an object"),
        (["[]", "{a: 1}"], "cannot read KWARGS as JSON"),
        (["[" * 100_000], "cannot read ARGS as JSON"),
    ],
)
def test_malformed_json_is_one_line(opsq: Run, arguments: Sequence[str], words: str) -> None:
    assert words in mistake(opsq("-A", "proj", "run", "task", "proj.add", *arguments), 2)


def test_no_consumer_is_said_at_once_and_the_call_stays(opsq: Run, redis_client: redis.Redis) -> None:
    found = opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "--wait")
    assert "no worker consumes the queue 'celery'" in mistake(found, 3)
    assert redis_client.llen("celery") == 1
    found = opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "-Q", "mail")
    assert found.returncode == 0
    assert len(found.stdout.strip()) == 36
    assert redis_client.llen("mail") == 1


def test_a_worker_whose_only_child_was_lost_consumes_all_the_same(opsq: Run, redis_client: redis.Redis) -> None:
    record = {"id": "w@h:1", "node": "w@h", "queues": ["mail"], "children": [], "tasks": None}
    redis_client.zadd(keys.WORKERS, {"w@h:1": (time.time() + 60) * 1000})
    redis_client.set(keys.worker("w@h:1"), json.dumps(record), px=60_000)
    assert opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "-Q", "mail").stderr == ""
    elsewhere = opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "-Q", "slow")
    assert elsewhere.stderr == "no worker consumes the queue 'slow' now\n"


def test_an_id_in_the_place_of_a_command_is_told_who_knows_of_it(opsq: Run) -> None:
    task_id = "5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11"
    for noun in ("tasks", "dead"):
        found = opsq(noun, task_id)
        assert mistake(found, 2) == f"opsq: no such command: {task_id}"
        assert f"hint: opsq why {task_id}" in found.stderr


def test_an_answer_that_does_not_come_in_time(project: Project, opsq: Run) -> None:
    project.worker("-c", "1")
    found = opsq("-A", "proj", "run", "task", "proj.late", "[1, 1.5]", "--wait", "--timeout", "300ms")
    assert "did not come in time" in mistake(found, 3)


def test_no_place_for_results_is_said_before_anything_is_sent(
    project: Project, opsq: Run, redis_client: redis.Redis
) -> None:
    text = (project.folder / "proj.py").read_text()
    (project.folder / "mute.py").write_text(text.replace('Celery("proj")', f'Celery("mute", broker="{project.url}")'))
    found = opsq("-A", "mute", "run", "task", "mute.add", "[1, 2]", "--wait", OPSQ_BROKER_URL=None)
    assert "results are not kept" in mistake(found, 2)
    assert "hint: add backend=" in found.stderr
    assert redis_client.llen("celery") == 0


def test_an_interrupt_leaves_the_task_alone(project: Project, spawn: Spawner, wait_for: Any) -> None:
    project.worker("-c", "1")
    argv = [sys.executable, "-m", "opsq", "-A", "proj", "run", "task", "proj.late", "[1, 3]", "--wait"]
    asking = spawn(argv, env=project.environment, cwd=project.folder)
    wait_for(lambda: ("begin", "1") in [mark[:2] for mark in project.marks()])
    assert asking.stop(signal.SIGINT) == 130, asking.report()
    assert "Traceback" not in asking.output()
    wait_for(lambda: project.effects()["1"] == 1)


# -- queues, workers, tasks, results ---------------------------------------------------------------------------------


def test_queues_are_listed_as_the_contract_says(opsq: Run) -> None:
    opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "-Q", "mail")
    rows = {row["name"]: row for row in data(opsq("queues", "--json", "-A", "proj"))["queues"]}
    assert set(rows) == {"celery", "mail"}
    assert rows["celery"] == {
        "name": "celery",
        "waiting": 0,
        "by_priority": {"0": 0, "3": 0, "6": 0, "9": 0},
        "delayed": 0,
        "limited": 0,
        "in_flight": 0,
        "dead": 0,
        "oldest": None,
        "consumers": 0,
        "paused": False,
    }
    assert rows["mail"]["waiting"] == 1
    assert 0 <= rows["mail"]["oldest"] < 60
    found = opsq("queues", "--limit", "1")
    assert found.stderr == "1 of 2; --limit 0 shows all\n"
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["QUEUE", "celery"]


def test_peek_and_purge(opsq: Run, redis_client: redis.Redis) -> None:
    for number in (1, 2):
        opsq("-A", "proj", "run", "task", "proj.add", f"[{number}, 2]", "-Q", "mail")
    (first, second) = data(opsq("queues", "peek", "mail", "--json"))["messages"]
    assert (first["task"], first["args"], second["args"]) == ("proj.add", "(1, 2)", "(2, 2)")
    assert first["age"] < 60
    found = opsq("queues", "purge", "mail")
    assert "nothing was done" in mistake(found, 2)
    assert "--yes" in found.stderr
    assert opsq("queues", "purge", "mail", "--dry-run").stderr == "would throw away 2 messages of mail\n"
    assert redis_client.llen("mail") == 2
    assert data(opsq("queues", "purge", "mail", "--yes", "--json"))["purged"] == 2
    assert redis_client.llen("mail") == 0
    assert opsq("queues", "purge", "mail").stderr == "nothing waits in mail\n"


def test_a_queue_that_nobody_has_ever_used_is_a_mistake_but_not_one_that_others_fill(
    opsq: Run, redis_client: redis.Redis
) -> None:
    opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "-Q", "mail")
    for verb in ("peek", "purge", "pause", "resume"):
        found = opsq("queues", verb, "mial")
        assert "there is no queue 'mial'" in mistake(found, 2)
        assert "did you mean mail?" in found.stderr
    (raw,) = redis_client.lrange("mail", 0, -1)
    redis_client.lpush("of others", raw)
    assert len(data(opsq("queues", "peek", "of others", "--json"))["messages"]) == 1
    assert data(opsq("queues", "purge", "of others", "--yes", "--json"))["purged"] == 1


def test_messages_are_moved_to_another_queue(opsq: Run, redis_client: redis.Redis) -> None:
    for number in (1, 2, 3):
        opsq("-A", "proj", "run", "task", "proj.add", f"[{number}, 2]", "-Q", "mail")
    assert "no queue 'mial'" in mistake(opsq("queues", "move", "mial", "slow", "--yes"), 2)
    assert "to itself" in mistake(opsq("queues", "move", "mail", "mail", "--yes"), 2)
    assert "--yes" in opsq("queues", "move", "mail", "slow").stderr
    told = opsq("queues", "move", "mail", "slow", "--limit", "2", "--dry-run").stderr
    assert told == "would move 2 messages from mail to slow\n"
    assert data(opsq("queues", "move", "mail", "slow", "--task", "x", "--yes", "--json"))["moved"] == 0
    found = data(opsq("queues", "move", "mail", "slow", "--limit", "2", "--yes", "--json"))
    assert found == {"from": "mail", "to": "slow", "moved": 2, "found": 2}
    assert (redis_client.llen("mail"), redis_client.llen("slow")) == (1, 2)
    assert opsq("queues", "move", "mail", "slow", "--yes").stderr == "moved: 1 message from mail to slow\n"
    assert opsq("queues", "move", "mail", "slow", "--yes").stderr == "nothing to move in mail\n"


def test_workers_and_what_they_run(project: Project, opsq: Run, wait_for: Any) -> None:
    assert data(opsq("workers", "--json")) == {"workers": []}
    project.worker("-c", "2", "-n", "one@here", "--lease", "1")
    opsq("-A", "proj", "run", "task", "proj.late", "[1, 120]")
    running = wait_for(lambda: data(opsq("-A", "proj", "tasks", "--json"))["running"], 20)
    assert [(row["task"], row["worker"]) for row in running] == [("proj.late", "one@here")]
    assert running[0]["runtime"] > 0
    (worker,) = data(opsq("workers", "--json"))["workers"]
    assert (worker["node"], worker["concurrency"], worker["queues"]) == ("one@here", 2, ["celery"])
    text = opsq("workers").stdout.splitlines()
    assert text[0].split()[:4] == ["NODE", "HOST", "PID", "BUSY"]
    assert "1/2" in text[1]
    shown = opsq("-A", "proj", "tasks").stdout
    assert "RUNS NOW" in shown
    project.spawn.running[0].stop(signal.SIGQUIT)


def test_the_apps_tasks_are_listed_with_what_they_say(opsq: Run) -> None:
    rows = {row["name"]: row for row in data(opsq("tasks", "-A", "proj", "--json"))["tasks"]}
    assert rows["proj.late"]["options"] == {"acks_late": True}
    assert rows["proj.flaky"]["options"] == {"bind": True, "default_retry_delay": 0.05}
    assert rows["proj.hard"]["options"] == {"time_limit": 0.3}
    assert rows["proj.add"] == {"name": "proj.add", "queue": "celery", "running": 0, "options": {}}


def test_results_by_id_and_as_a_list(project: Project, opsq: Run) -> None:
    project.worker("-c", "1")
    good = data(opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "--wait", "--json"))["id"]
    bad = opsq("-A", "proj", "run", "task", "proj.boom", '["oh"]').stdout.strip()
    opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "--wait", "--timeout", "20")
    told = data(opsq("results", good, "--json"))
    assert (told["state"], told["result"], told["error"]) == ("SUCCESS", 3, None)
    assert told["done"] > 1_600_000_000
    told = data(opsq("results", bad, "--json"))
    assert (told["state"], told["result"], told["error"]) == ("FAILURE", None, {"type": "ValueError", "message": "oh"})
    assert "Traceback" in told["traceback"]
    assert "ValueError: oh" in opsq("results", bad).stdout
    assert {row["id"] for row in data(opsq("results", "--json"))["results"]} >= {good, bad}
    assert opsq("results", "--limit", "1").stderr == "1 shown, there are more; --limit 0 shows all\n"
    assert data(opsq("results", "nobody", "--json"))["state"] == "PENDING"


# -- dead letters ----------------------------------------------------------------------------------------------------


def bury(redis_client: redis.Redis, *ids: str, queue: str = "celery") -> None:
    """Dead letters as a worker writes them."""
    for number, letter_id in enumerate(ids):
        message = json.dumps(whole(letter_id))
        record = {"id": letter_id, "task": "proj.add", "queue": queue, "reason": "lost", "time": 1700000000.0 + number}
        record |= {"host": "h", "deliveries": 5, "error": "Traceback: there", "list": queue, "message": message}
        redis_client.hset(keys.dead(queue), letter_id, json.dumps(record))
        redis_client.zadd(keys.dead_index(queue), {letter_id: 1700000000.0 + number})
        redis_client.sadd(keys.QUEUES, queue)


def test_dead_letters_are_listed_as_the_contract_says(opsq: Run, redis_client: redis.Redis) -> None:
    assert data(opsq("dead", "--json")) == {"dead": []}
    assert opsq("dead").stderr == "no dead letters\n"
    bury(redis_client, "t1", "t2")
    newest = data(opsq("dead", "--json"))["dead"][0]
    assert newest == {
        "id": "t2",
        "task": "proj.add",
        "queue": "celery",
        "reason": "lost",
        "time": 1700000001.0,
        "host": "h",
        "deliveries": 5,
    }
    assert opsq("dead", "--limit", "1").stderr == "1 of 2; --limit 0 shows all\n"
    assert data(opsq("dead", "--json", "-Q", "other")) == {"dead": []}


def test_a_dead_letter_is_shown_whole(opsq: Run, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1")
    shown = opsq("dead", "show", "t1").stdout
    assert "reason      lost" in shown
    assert "Traceback: there" in shown
    assert data(opsq("dead", "show", "t1", "--json"))["list"] == "celery"
    assert "no dead letter has the id t9" in mistake(opsq("dead", "show", "t9"), 2)


def test_dead_letters_are_requeued_and_dropped(opsq: Run, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1", "t2", "t3")
    bury(redis_client, "t4", queue="mail")
    assert "say which" in mistake(opsq("dead", "requeue"), 2)
    assert "no dead letter has the id t9" in mistake(opsq("dead", "requeue", "t1", "t9"), 2)
    assert redis_client.llen("celery") == 0
    assert data(opsq("dead", "requeue", "t1", "--json")) == {"requeued": 1, "left": []}
    assert opsq("dead", "requeue", "--all", "--queue", "mail").stderr == "requeued: 1 dead letter\n"
    assert (redis_client.llen("celery"), redis_client.llen("mail")) == (1, 1)
    assert "--yes" in opsq("dead", "drop", "t2").stderr
    assert data(opsq("dead", "drop", "t2", "--yes", "--json")) == {"dropped": 1, "chosen": 1}
    assert opsq("dead", "drop", "--all", "--dry-run").stderr == "would drop 1 dead letter\n"
    assert opsq("dead", "drop", "--all", "-y").stderr == "dropped: 1 dead letter\n"
    assert opsq("dead").stderr == "no dead letters\n"


def test_the_dead_letters_of_a_task_are_requeued_and_dropped_by_its_name(opsq: Run, redis_client: redis.Redis) -> None:
    for task, letter_id in (("mail.send", "t1"), ("mail.fetch", "t2"), ("web.load", "t3")):
        record = {"task": task, "message": json.dumps(whole(letter_id)), "time": 1700000000.0}
        redis_client.hset(keys.dead("celery"), letter_id, json.dumps(record))
        redis_client.zadd(keys.dead_index("celery"), {letter_id: 1700000000.0})
    assert [each["id"] for each in data(opsq("dead", "--task", "web.*", "--json"))["dead"]] == ["t3"]
    assert "say which" in mistake(opsq("dead", "requeue", "t1", "--task", "mail.send"), 2)
    assert data(opsq("dead", "requeue", "--task", "mail.send", "--json")) == {"requeued": 1, "left": []}
    assert redis_client.llen("celery") == 1
    assert opsq("dead", "drop", "--task", "mail.*", "--dry-run").stderr == "would drop 1 dead letter\n"
    assert opsq("dead", "drop", "--task", "mail.*", "-y").stderr == "dropped: 1 dead letter\n"
    assert [each["id"] for each in data(opsq("dead", "--json"))["dead"]] == ["t3"]


def test_an_id_that_two_queues_have_must_be_told_apart(opsq: Run, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1")
    bury(redis_client, "t1", queue="mail")
    assert "several queues have t1" in mistake(opsq("dead", "requeue", "t1"), 2)
    assert data(opsq("dead", "requeue", "t1", "-Q", "mail", "--json"))["requeued"] == 1


def test_a_list_of_another_kind_is_told_and_nothing_is_lost(opsq: Run, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1", queue="mail")
    redis_client.sadd("mail", "no list")
    assert "WRONGTYPE" in mistake(opsq("dead", "requeue", "t1"), 1)
    assert redis_client.hlen(keys.dead("mail")) == 1
    redis_client.delete("mail")


def test_what_a_worker_cannot_run_comes_back_from_the_dead(project: Project, opsq: Run, wait_for: Any) -> None:
    project.worker("-c", "1")
    (project.folder / "stranger.py").write_text(
        'from opsq import Celery\napp = Celery("stranger")\n@app.task\ndef hello(): return "hi"\n'
    )
    task_id = opsq("-A", "stranger", "run", "task", "stranger.hello").stdout.strip()
    (letter,) = wait_for(lambda: data(opsq("dead", "--json"))["dead"])
    assert (letter["id"], letter["task"], letter["queue"]) == (task_id, "stranger.hello", "celery")
    project.spawn.running[0].stop()
    argv = [sys.executable, "-m", "opsq", "-A", "stranger", "worker", "-c", "1"]
    project.spawn(argv, env=project.environment, cwd=project.folder)
    assert opsq("dead", "requeue", task_id).returncode == 0
    wait_for(lambda: data(opsq("results", task_id, "--json"))["result"] == "hi", 20)


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [["queues"], ["dead"], ["workers"], ["results"], ["tasks"], ["queues", "peek", "x"]])
def test_a_server_that_is_not_there_is_one_line(opsq: Run, line: list[str]) -> None:
    found = opsq(*line, "-b", "redis://127.0.0.1:1/0")
    assert "cannot reach Redis at 127.0.0.1:1: connection refused" in mistake(found, 3)
    told = json.loads(opsq(*line, "-b", "redis://127.0.0.1:1/0", "--json").stdout)
    assert told["error"]["why"] == "connection refused"


def test_no_broker_at_all_is_one_line(opsq: Run, tmp_path: Path) -> None:
    found = opsq("queues", cwd=tmp_path, OPSQ_BROKER_URL=None)
    assert "no broker configured and none running here" in mistake(found, 3)
    assert "opsq up" in found.stderr


def test_other_kinds_of_brokers_are_refused_in_one_line(opsq: Run) -> None:
    for url in ("amqp://guest:secret@host//", "sqs://", "mongodb://host/db", "sqla+sqlite:///x"):
        found = opsq("queues", "-b", url)
        assert "Redis" in mistake(found, 2)
        assert "secret" not in found.stderr


def test_a_wrong_app_is_one_line(project: Project, opsq: Run) -> None:
    assert "cannot find the app 'prj'" in mistake(opsq("-A", "prj", "tasks"), 2)
    (project.folder / "broken.py").write_text("def f(:\n")
    assert "broken.py, line 1" in mistake(opsq("-A", "broken", "tasks"), 2)
    (project.folder / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    assert "its import ended with exit code 3 (leaves.py, line 2)" in mistake(opsq("-A", "leaves", "tasks"), 2)


def test_a_wrong_broker_is_one_line_for_each_command(opsq: Run) -> None:
    for command in ("queues", "dead", "doctor"):
        assert "its port is no number from 0 to 65535" in mistake(opsq(command, "-b", "redis://localhost:port/0"), 2)
    found = opsq("status", "-b", "redis://localhost:port/0")
    assert found.returncode == 3
    assert found.stderr.startswith("broker: cannot read the Redis URL"), found.stderr
    assert "Traceback" not in found.stderr
    assert "no whole number" in mistake(opsq("queues", "--limit", "many"), 2)


def test_a_reader_that_goes_is_no_error(opsq: Run, project: Project, spawn: Spawner) -> None:
    for number in range(3):
        opsq("-A", "proj", "run", "task", "proj.add", "[1, 2]", "-Q", f"queue{number}")
    line = f"{sys.executable} -m opsq queues | head -n 1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=project.folder,
        env=spawn.environment(project.environment),
    )
    assert found.stderr == ""
    assert found.stdout.splitlines()[-1] == "0"


def test_options_may_stand_anywhere(opsq: Run) -> None:
    whole = opsq("queues", "--json", "-A", "proj").stdout
    for line in (
        ["--json", "-A", "proj", "queues"],
        ["-A", "proj", "queues", "--json"],
        ["--limit", "0", "-A", "proj", "--json", "queues"],
    ):
        assert opsq(*line).stdout == whole


def test_the_module_is_the_command(opsq: Run) -> None:
    assert opsq("--version").stdout.startswith("opsq ")
