"""Dead letters: listed, shown, put back and dropped; a letter is never in two places and never in none."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import pytest
import redis

from opsq.broker import deadletters
from opsq.broker.broker import Broker
from opsq.broker.deadletters import DeadLetter
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.protocol import envelope, writing


@pytest.fixture
def broker(redis_url: str) -> Broker:
    """A broker on the clean database."""
    return Broker(redis_url)


def message(task_id: str, **headers: Any) -> bytes:
    raw = writing.build(task="proj.add", id=task_id, args=[1, "größer"], kwargs={}, queue="mail", origin="t")
    return writing.changed(raw, headers) if headers else raw


def bury(
    client: redis.Redis, letter_id: str, raw: bytes, *, time: float = 1.0, queue: str = "mail", **more: Any
) -> None:
    """Write a letter as the workers' script does."""
    try:
        text = {"message": raw.decode()}
    except UnicodeDecodeError:
        text = {"message": base64.b64encode(raw).decode(), "encoding": "base64"}
    record = {"id": letter_id, "task": "proj.add", "queue": queue, "reason": "lost", "time": time, "host": "h"}
    record |= {"deliveries": 5, "error": None, "list": queue, **text, **more}
    client.hset(keys.dead(queue), letter_id, json.dumps(record))
    client.zadd(keys.dead_index(queue), {letter_id: time})


def letters(broker: Broker, *ids: str, queue: str = "mail") -> list[DeadLetter]:
    return deadletters.read(broker, queue, ids)


def test_the_newest_of_all_queues_come_first(broker: Broker, redis_client: redis.Redis) -> None:
    for number in range(6):
        bury(redis_client, f"t{number}", message(f"t{number}"), time=number, queue="mail" if number % 2 else "other")
    found, total = deadletters.newest(broker, ["mail", "other"], limit=4)
    assert ([letter.id for letter in found], total) == (["t5", "t4", "t3", "t2"], 6)
    found, total = deadletters.newest(broker, ["mail", "other"])
    assert (len(found), total) == (6, 6)
    assert deadletters.newest(broker, ["nothing"]) == ([], 0)


def test_a_letter_tells_what_was_written_down(broker: Broker, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1~2", message("t1"), error="Traceback ...")
    (letter,) = deadletters.find(broker, ["other", "mail"], "t1~2")
    assert {**letter.record, "message": None} == {
        "id": "t1~2",
        "task": "proj.add",
        "queue": "mail",
        "reason": "lost",
        "time": 1.0,
        "host": "h",
        "deliveries": 5,
        "error": "Traceback ...",
        "list": "mail",
        "message": None,
    }
    assert letter.message is not None
    assert envelope.parse(letter.message).headers.id == "t1"
    assert deadletters.find(broker, ["mail"], "nobody") == []


@pytest.mark.parametrize("raw", [b"\xff\x00 no text", b"{broken", '{"größer": "\\ud83d"}'.encode(), b""])
def test_a_message_goes_back_byte_by_byte(broker: Broker, redis_client: redis.Redis, raw: bytes) -> None:
    bury(redis_client, "t1", raw)
    assert list(deadletters.requeue(broker, letters(broker, "t1")).values()) == ["sent"]
    assert redis_client.lrange("mail", 0, -1) == [raw]
    assert redis_client.keys("opsq:dead*") == []


def test_back_at_the_end_of_the_list_that_it_came_from(broker: Broker, redis_client: redis.Redis) -> None:
    low = PRIORITIES.at_step("mail", 6)
    redis_client.lpush(low, b"first")
    bury(redis_client, "t1", message("t1"), list=low)
    bury(redis_client, "t2", message("t2"), list="somebody:else")
    deadletters.requeue(broker, letters(broker, "t1", "t2"))
    assert redis_client.lindex(low, -1) == b"first"
    assert redis_client.llen(low) == 2
    assert redis_client.llen("mail") == 1
    assert redis_client.exists("somebody:else") == 0


def test_the_count_of_deliveries_begins_anew(broker: Broker, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1", message("t1", **{envelope.DELIVERIES: 5}))
    deadletters.requeue(broker, letters(broker, "t1"))
    raw = redis_client.rpop("mail")
    assert isinstance(raw, bytes)
    assert envelope.parse(raw).headers.deliveries == 0


def test_a_list_of_another_kind_keeps_the_letter_dead_and_the_others_go(
    broker: Broker, redis_client: redis.Redis
) -> None:
    low = PRIORITIES.at_step("mail", 9)
    for number in range(4):
        bury(redis_client, f"t{number}", message(f"t{number}"), list=low if number % 2 else "mail")
    redis_client.set(low, "no list")
    told = deadletters.requeue(broker, letters(broker, "t0", "t1", "t2", "t3"))
    assert [answer.partition(" ")[0] for answer in told.values()] == ["sent", "WRONGTYPE", "sent", "WRONGTYPE"]
    assert redis_client.llen("mail") == 2
    assert sorted(redis_client.hkeys(keys.dead("mail"))) == [b"t1", b"t3"]
    assert redis_client.zcard(keys.dead_index("mail")) == 2
    redis_client.delete(low)


def test_two_who_requeue_the_same_letters_send_each_once(broker: Broker, redis_client: redis.Redis) -> None:
    ids = [f"t{number}" for number in range(250)]
    for letter_id in ids:
        bury(redis_client, letter_id, message(letter_id))
    chosen = letters(broker, *ids)
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(deadletters.requeue(broker, chosen).values())) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("sent") == 250
    assert answers.count("gone") == 500
    assert redis_client.llen("mail") == 250
    sent: Any = redis_client.lrange("mail", 0, -1)
    assert {envelope.parse(raw).headers.id for raw in sent} == set(ids)


def test_a_letter_that_was_replaced_meanwhile_is_left_alone(broker: Broker, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1", message("t1"))
    chosen = letters(broker, "t1")
    bury(redis_client, "t1", message("t1"), reason="another one")
    assert list(deadletters.requeue(broker, chosen).values()) == ["gone"]
    assert redis_client.llen("mail") == 0
    assert redis_client.hlen(keys.dead("mail")) == 1


def test_a_letter_without_its_message_is_not_lost(broker: Broker, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1", b"x", message=None)
    redis_client.hset(keys.dead("mail"), "t2", "{no json")
    redis_client.zadd(keys.dead_index("mail"), {"t2": 2})
    told = deadletters.requeue(broker, letters(broker, "t1", "t2"))
    assert set(told.values()) == {"its message is not in the record"}
    assert redis_client.hlen(keys.dead("mail")) == 2
    assert letters(broker, "t2")[0].record["reason"] == "its record cannot be read"


def test_a_full_server_keeps_the_letters(broker: Broker, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1", message("t1"))
    chosen = letters(broker, "t1")
    redis_client.config_set("maxmemory", "1")
    try:
        answers = _requeue_or_error(broker, chosen)
    finally:
        redis_client.config_set("maxmemory", "0")
    assert "OOM" in answers
    assert redis_client.hlen(keys.dead("mail")) == 1
    assert redis_client.llen("mail") == 0


def _requeue_or_error(broker: Broker, chosen: list[DeadLetter]) -> str:
    try:
        return " ".join(deadletters.requeue(broker, chosen).values())
    except Exception as error:
        return str(error)


def test_dropped_is_gone(broker: Broker, redis_client: redis.Redis) -> None:
    bury(redis_client, "t1", message("t1"))
    bury(redis_client, "t2", message("t2"))
    chosen = letters(broker, "t1")
    assert deadletters.drop(broker, chosen) == 1
    assert deadletters.drop(broker, chosen) == 0
    assert deadletters.ids(broker, "mail") == ["t2"]
    assert redis_client.hlen(keys.dead("mail")) == 1


def test_a_key_prefix_is_kept(redis_url: str, redis_client: redis.Redis) -> None:
    broker = Broker(redis_url, "acme:")
    record = {"message": "x", "list": "acme:mail", "time": 1.0}
    redis_client.hset("acme:" + keys.dead("mail"), "t1", json.dumps(record))
    redis_client.zadd("acme:" + keys.dead_index("mail"), {"t1": 1})
    assert list(deadletters.requeue(broker, letters(broker, "t1")).values()) == ["sent"]
    assert redis_client.lrange("acme:mail", 0, -1) == [b"x"]
    redis_client.flushdb()
