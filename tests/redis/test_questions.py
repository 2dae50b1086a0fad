"""Questions over a line of our own: the same answers and the same errors as through redis-py, without importing it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import redis
from support.processes import Spawner
from support.redis_server import RedisServer

from opsq.datastore.connection import client, errors
from opsq.datastore.line import questions
from opsq.datastore.trouble import ResponseError
from opsq.exceptions import BrokerError, RefusedError


def asked(url: str, *command: Any) -> Any:
    with questions(url, 5) as ask:
        (answer,) = ask([command])
    return answer


def error_of(call: Callable[[], Any]) -> tuple[str, str, str, str]:
    with pytest.raises((BrokerError, RefusedError)) as raised:
        call()
    error = raised.value
    return type(error).__name__, error.what, error.why, error.hint


@pytest.fixture
def anna(redis_server: RedisServer, redis_client: redis.Redis) -> Any:
    """A user with a password that has blanks and an @, who may read some keys only."""
    redis_client.execute_command(
        "ACL", "SETUSER", "anna", "on", ">p@ss word", "~mine*", "+get", "+select", "+set", "+ping"
    )
    yield f"redis://anna:p%40ss%20word@127.0.0.1:{redis_server.port}/3"
    redis_client.execute_command("ACL", "DELUSER", "anna")


@pytest.mark.usefixtures("redis_url")
def test_all_kinds_of_answers_in_the_order_of_the_questions(redis_server: RedisServer) -> None:
    for url in (redis_server.url(2), redis_server.socket_url(2), redis_server.url(2) + "?socket_timeout=3"):
        with questions(url) as ask:
            answers = ask(
                [("SET", "k", "v" * 200_000), ("GET", "k"), ("GET", "none"), ("INCRBY", "n", 2), ("KEYS", "k")]
            )
            assert answers == [b"OK", b"v" * 200_000, None, 2, [b"k"]]
            assert ask([]) == []
            ask([("DEL", "k", "n")])
    with redis_server.client(0) as zero:
        assert zero.dbsize() == 0


def test_login_and_database(anna: str, redis_server: RedisServer) -> None:
    assert asked(anna, "SET", "mine", "1") == b"OK"
    with redis_server.client(3) as third:
        assert third.getdel("mine") == b"1"


@pytest.mark.parametrize("kind", ["nobody there", "no such host", "wrong password", "forbidden", "no such command"])
def test_errors_have_the_words_that_redis_pys_have(
    kind: str, anna: str, redis_server: RedisServer, free_port: Callable[[], int]
) -> None:
    url, command = {
        "nobody there": (f"redis://127.0.0.1:{free_port()}/0", ("PING",)),
        "no such host": ("redis://nowhere.invalid:6379/0", ("PING",)),
        "wrong password": (anna.replace("p%40ss", "other"), ("PING",)),
        "forbidden": (anna, ("GET", "yours")),
        "no such command": (redis_server.url(), ("NONSENSE",)),
    }[kind]

    def through_redis_py() -> None:
        with errors(url):
            client(url).execute_command(*command)

    assert error_of(lambda: asked(url, *command)) == error_of(through_redis_py)


def test_status_queues_and_completion_import_no_redis_py(
    spawn: Spawner, redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.sadd("opsq:queues", "mail")
    for words in (["status"], ["queues"], ["completion", "--words", "queues"]):
        code = f"import sys; sys.argv = ['opsq', *{words}]\nfrom opsq.cli.main import main\ntry:\n    main()\n"
        code += "except SystemExit:\n    print('LOADED', *sorted(sys.modules))\n"
        environment = spawn.environment({"OPSQ_BROKER_URL": redis_url})
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        shown, _, loaded = told.stdout.partition("LOADED")
        assert "mail" in shown, told.stderr
        assert not {"redis", "rich", "asyncio", "cryptography"} & set(loaded.split()), words
    redis_client.flushdb()


@pytest.mark.usefixtures("redis_url")
def test_a_clients_errors_are_ours_and_redis_pys(redis_server: RedisServer) -> None:
    """Programs that ask for a client catch what redis-py raises; we catch ours."""
    pipe = client(redis_server.url()).pipeline(transaction=False)
    pipe.execute_command("NONSENSE")
    for call in (lambda: client(redis_server.url()).execute_command("NONSENSE"), pipe.execute):
        for kind in (redis.ResponseError, ResponseError):
            with pytest.raises(kind, match="unknown command"):
                call()
            pipe.execute_command("NONSENSE")
