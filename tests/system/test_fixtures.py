"""The fixtures keep what they promise to all other tests."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from support import key_audit
from support.postgres import PostgresServer

from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    print("daemon", os.getpid(), flush=True)
time.sleep(1000)
"""


def test_a_database_is_empty_and_of_this_test_alone(redis_client: redis.Redis) -> None:
    assert redis_client.dbsize() == 0
    redis_client.rpush("celery", "left behind")  # the next test that asks for a database finds none of it


def test_a_database_is_empty_again(redis_client: redis.Redis) -> None:
    assert redis_client.dbsize() == 0


def test_the_audit_accepts_what_the_table_of_keys_knows(redis_client: redis.Redis) -> None:
    redis_client.rpush(PRIORITIES.at_step("mail", 6), "message")
    redis_client.hset(keys.inflight("mail", "w:1:0"), "1", "message")
    redis_client.set(keys.result("some-id"), "{}", ex=60)
    redis_client.sadd("acme-set", "x")
    assert key_audit.problems(redis_client, ["acme-.*"]) == []
    redis_client.delete("acme-set")


@pytest.mark.parametrize("key", ["opsq:unheard-of", "leak", "celery-task-meta-x"])
def test_the_audit_finds_unknown_keys_and_keys_without_time_to_live(redis_client: redis.Redis, key: str) -> None:
    redis_client.set(key, "x")
    assert len(key_audit.problems(redis_client)) == 1
    redis_client.delete(key)


PRIVATE_POSTGRES = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from support import postgres
with postgres.running() as server:
    print(server.process.pid, server.folder, flush=True)
    signal.pause()
"""


def test_a_postgres_database_is_fresh_and_tells_who_is_connected(postgres_server: PostgresServer) -> None:
    for _round in range(2):
        with postgres_server.database() as database:
            with database.connect() as connection:
                assert database.sessions() == {connection.info.backend_pid}
                connection.execute("CREATE TABLE mine (x int)")
            stays_connected = database.connect()
        with pytest.raises(psycopg.Error):
            stays_connected.execute("SELECT 1")
        stays_connected.close()


def test_a_postgres_ends_with_its_process_even_by_kill(spawn, wait_for) -> None:
    source = PRIVATE_POSTGRES.format(tests=str(Path(__file__).parents[1]))
    running = spawn([sys.executable, "-c", source], start_new_session=False)
    wait_for(lambda: running.output().endswith("\n"), timeout=60, what="it has come up")
    pid, folder = running.output().split()
    family = [psutil.Process(int(pid)), *psutil.Process(int(pid)).children()]
    try:
        running.stop(signal.SIGKILL)
        wait_for(lambda: not any(process.is_running() for process in family), timeout=30, what="all have ended")
    finally:
        shutil.rmtree(folder)


def test_a_process_keeps_its_output_and_is_given_a_clean_environment(spawn, monkeypatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere")
    code = "import os; print(os.environ.get('CELERY_BROKER_URL'), os.environ['MINE'], os.environ['OPSQ_STATE_DIR'])"
    running = spawn([sys.executable, "-c", code], env={"MINE": "yes"})
    assert running.wait() == 0
    assert running.output().split() == ["None", "yes", str(spawn.folder / "state")]


def test_a_stubborn_process_and_its_daemon_end_with_the_test(spawn, wait_for) -> None:
    running = spawn([sys.executable, "-c", STUBBORN])
    wait_for(lambda: "daemon" in running.output(), what="the daemon has started")
    daemon = int(running.output().split()[1])
    assert {process.pid for process in spawn.leftovers()} == {running.pid, daemon}
    for process in spawn.leftovers():
        process.kill()
    wait_for(lambda: not psutil.pid_exists(daemon) or not spawn.leftovers(), what="both are gone")
    assert running.wait() == -signal.SIGKILL


def test_a_condition_that_never_comes_true_fails_with_words_and_output(spawn, wait_for) -> None:
    running = spawn([sys.executable, "-c", "print('I was here')"], name="witness")
    running.wait()
    with pytest.raises(pytest.fail.Exception) as failure:
        wait_for(lambda: False, timeout=0.01, what="the moon is made of cheese")
    assert "the moon is made of cheese" in str(failure.value)
    assert "I was here" in str(failure.value)


def test_ports_that_are_handed_out_are_free(free_port) -> None:
    assert 1024 < free_port() < 65536
    assert os.environ.get("OPSQ_BROKER_URL") is None
