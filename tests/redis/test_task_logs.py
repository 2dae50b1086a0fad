"""The lines of tasks in Redis: the latest are kept, of each task and of all, and nothing stays for ever."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis

from opsq.broker import task_logs
from opsq.broker.broker import Broker
from opsq.broker.task_logs import LogLine
from opsq.datastore import keys


def lines(*texts: str) -> bytes:
    return b"".join(LogLine(1_700_000_000.5, "INFO", text).encode() for text in texts)


def keep(client: redis.Redis, most: int = 1_000_000, prefix: str = "", **told: bytes) -> None:
    task_logs.keep(client, prefix, told, most)


def messages(url: str, task_id: str) -> list[str]:
    return [line.message for line in task_logs.read(Broker(url), task_id)]


def accounts(client: redis.Redis) -> tuple[int, int]:
    """What the sizes say together, and what is there."""
    found: Any = client.hgetall(keys.TASK_LOG_SIZES)
    kept = sum(int(client.strlen(key)) for key in client.scan_iter(keys.task_log("*")))  # type: ignore[arg-type]
    assert sum(int(size) for name, size in found.items() if name != b"#") == int(found[b"#"])
    return int(found[b"#"]), kept


def test_lines_come_back_in_their_order_with_time_and_level(redis_client: redis.Redis, redis_url: str) -> None:
    keep(redis_client, t1=lines("one", "zwei\nDrei \x1b ü"))
    keep(redis_client, t1=lines("last"), t2=lines("other"))
    assert messages(redis_url, "t1") == ["one", "zwei\nDrei \x1b ü", "last"]
    assert task_logs.read(Broker(redis_url), "t2") == [LogLine(1_700_000_000.5, "INFO", "other")]
    assert messages(redis_url, "t3") == []


def test_of_a_task_that_logs_much_the_latest_lines_stay(redis_client: redis.Redis, redis_url: str) -> None:
    for number in range(0, 5000, 50):
        keep(redis_client, t1=lines(*(f"line {number + i}" for i in range(50))))
    found = messages(redis_url, "t1")
    assert found == [f"line {number}" for number in range(5000 - len(found), 5000)]
    assert keys.TASK_LOG_BYTES / 2 < int(redis_client.strlen(keys.task_log("t1"))) <= keys.TASK_LOG_BYTES  # type: ignore[arg-type]


def test_a_line_that_is_too_long_is_cut(redis_client: redis.Redis, redis_url: str) -> None:
    keep(redis_client, t1=lines("x" * 1_000_000, "after"))
    first, after = messages(redis_url, "t1")
    assert len(first) < 5000
    assert first.endswith("(cut)")
    assert after == "after"


def test_when_there_are_too_many_tasks_those_that_were_quiet_for_longest_go(
    redis_client: redis.Redis, redis_url: str
) -> None:
    one = len(lines("x" * 100))
    for number in range(30):
        keep(redis_client, most=one * 10, **{f"t{number}": lines("x" * 100)})
        time.sleep(0.001)
        if number < 29:
            keep(redis_client, most=one * 10, first=lines("."))
    assert messages(redis_url, "t29")
    assert messages(redis_url, "first")
    assert messages(redis_url, "t2") == []
    told, there = accounts(redis_client)
    assert told == there <= one * 10


def test_nothing_stays_longer_than_a_day(redis_client: redis.Redis) -> None:
    keep(redis_client, old=lines("x"))
    redis_client.zadd(keys.TASK_LOGS, {"old": time.time() * 1000 - keys.TASK_LOG_S * 1000 - 1})
    redis_client.delete(keys.task_log("old"))  # as its time to live does
    keep(redis_client, new=lines("y"))
    told, there = accounts(redis_client)
    assert told == there
    assert redis_client.zrange(keys.TASK_LOGS, 0, -1) == [b"new"]
    for key in redis_client.scan_iter("*"):
        assert 0 < int(redis_client.ttl(key)) <= keys.TASK_LOG_S  # type: ignore[arg-type]


def test_a_prefix_keeps_apps_apart(redis_client: redis.Redis, redis_url: str) -> None:
    keep(redis_client, prefix="acme:", t1=lines("theirs"))
    assert messages(redis_url, "t1") == []
    assert [line.message for line in task_logs.read(Broker(redis_url, "acme:"), "t1")] == ["theirs"]
    redis_client.flushdb()


def test_who_follows_gets_each_line_once_until_the_task_has_ended(redis_client: redis.Redis, redis_url: str) -> None:
    keep(redis_client, t1=lines("0"))
    seen: list[str] = []
    ended = threading.Event()

    def follow() -> None:
        for found in task_logs.follow(Broker(redis_url), "t1", 0.05, ended.is_set):
            seen.extend(line.message for line in found)

    writer = threading.Thread(target=lambda: [keep(redis_client, t1=lines(str(number))) for number in range(1, 500)])
    follower = threading.Thread(target=follow)
    writer.start()
    follower.start()
    writer.join()
    ended.set()
    follower.join(10)
    assert not follower.is_alive()
    assert seen == [str(number) for number in range(500)]


@pytest.mark.parametrize("said", [b"nonsense\n", b'{"a": 1}\n', b'["x", 1]\n'])
def test_what_somebody_else_wrote_is_passed_by(said: bytes, redis_client: redis.Redis, redis_url: str) -> None:
    keep(redis_client, t1=said + lines("ours"))
    assert messages(redis_url, "t1") == ["ours"]
