"""The counting of chords: what the scripts promise, beside Celery's workers and after any kill."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis

from opsq.backends.base import Format
from opsq.backends.chords import Chords
from opsq.exceptions import ChordError, DecodeError
from opsq.execution.outcome import ChordPart
from opsq.protocol import shared_key

BODY = {"task": "proj.total", "args": [], "kwargs": {}, "options": {"task_id": "body"}, "subtask_type": None}


@pytest.fixture
def client(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def chords(request: pytest.FixtureRequest, redis_url: str) -> Chords:
    return Chords(redis_url, Format(), ordered=request.param)


def part(chords: Chords, number: int, value: Any = None, state: str = "SUCCESS", **other: Any) -> ChordPart:
    value = number if value is None else value
    told = {"body": BODY, "index": number, **other}
    return ChordPart("g", f"t{number}", told["index"], chords.member(f"t{number}", state, value), told["body"], "root")


def test_the_last_part_makes_the_body_ours_once(chords: Chords, client: Any) -> None:
    chords.set_size("g", 2, BODY)
    assert chords.count([chords.part(part(chords, 0))]) == []
    assert chords.count([chords.part(part(chords, 1))]) == ["g"]
    assert chords.count([chords.part(part(chords, 1))]) == []
    assert [value for _, value in chords.values("g")] == [0, 1]
    assert chords.is_ours("g")
    other = Chords(chords.url, Format(), ordered=chords.ordered)
    assert not other.is_ours("g")
    assert not other.done("g")
    assert 0 < client.ttl("celery-taskset-meta-g.c") <= 6


def test_a_body_of_celery_4_says_how_many_parts_there_are(chords: Chords, client: Any) -> None:
    """Its clients write no counter."""
    body = {**BODY, "chord_size": 2}
    assert chords.count([chords.part(part(chords, 0, body=body, index=None))]) == []
    assert chords.count([chords.part(part(chords, 1, body=body, index=None))]) == ["g"]
    assert sorted(value for _, value in chords.values("g")) == [0, 1]
    assert 0 < client.ttl("celery-taskset-meta-g.s") <= 86_400


def test_a_counter_counts_more_than_what_a_body_says(chords: Chords) -> None:
    chords.set_size("g", 2, BODY)
    body = {**BODY, "chord_size": 1}
    assert chords.count([chords.part(part(chords, 0, body=body))]) == []
    assert chords.count([chords.part(part(chords, 1, body=body))]) == ["g"]


def test_a_part_counts_once_whatever_its_second_run_returns(chords: Chords) -> None:
    chords.set_size("g", 2, BODY)
    assert chords.count([chords.part(part(chords, 0, value)) for value in ("first", "second")]) == []
    assert chords.values("g") == [("t0", "first")]


def test_with_a_shared_key_the_body_of_a_chord_cannot_be_exchanged_in_redis(chords: Chords, client: Any) -> None:
    shared_key.use("a key that nobody guesses")
    try:
        chords.set_size("g", 1, BODY)
        assert chords.count([chords.part(part(chords, 0))]) == ["g"]
        facts = chords.facts("g")
        assert facts is not None
        assert facts.body == BODY
        client.hset("opsq:chord:g", "facts", json.dumps({"body": {**BODY, "task": "proj.steal"}}))
        with pytest.raises(DecodeError, match="its signature is wrong"):
            chords.facts("g")
    finally:
        shared_key.use(())


def test_nothing_comes_back_after_it_is_done(chords: Chords, client: Any) -> None:
    chords.set_size("g", 1, BODY)
    assert chords.count([chords.part(part(chords, 0))]) == ["g"]
    assert chords.done("g")
    assert chords.count([chords.part(part(chords, 0))]) == []
    assert [key.decode() for key in client.scan_iter("*")] == ["celery-taskset-meta-g.c"]
    assert client.get("celery-taskset-meta-g.c") == b"done"


def test_a_chord_may_be_sent_again_under_its_name(chords: Chords) -> None:
    runs = []
    for _ in range(2):
        chords.set_size("g", 1, BODY)
        assert chords.count([chords.part(part(chords, 0))]) == ["g"]
        facts = chords.facts("g")
        assert facts is not None
        runs.append(facts.run)
        assert (facts.body["task"], facts.root_id, facts.parent_id) == ("proj.total", "root", "t0")
        assert chords.done("g")
        time.sleep(0.002)
    assert runs[0] != runs[1]


def test_parts_may_be_added(chords: Chords) -> None:
    chords.set_size("g", 1, BODY)
    chords.grow("g")
    assert chords.count([chords.part(part(chords, 0))]) == []
    assert chords.counted("g") == (1, "2")
    assert chords.count([chords.part(part(chords, 1))]) == ["g"]


def test_a_failed_part_is_told_with_the_task(chords: Chords) -> None:
    chords.set_size("g", 1, BODY)
    chords.count([chords.part(part(chords, 0, ValueError("no"), "FAILURE"))])
    with pytest.raises(ChordError, match=r"Dependency t0 raised ValueError\('no'\)"):
        chords.values("g")


def test_a_part_without_a_body_counts_only_in_a_chord(chords: Chords, client: Any) -> None:
    unread = part(chords, 0, ValueError("unreadable"), "FAILURE", body=None)
    assert chords.count([chords.part(unread)]) == []
    assert not client.exists("celery-taskset-meta-g.j")
    chords.set_size("g", 1, BODY)
    assert chords.count([chords.part(unread)]) == ["g"]
    assert chords.facts("g") is not None


def test_who_sends_no_bodies_leaves_them_to_the_next_look(chords: Chords, client: Any) -> None:
    chords.set_size("g", 1, BODY)
    assert chords.count([chords.part(part(chords, 0), claim=False)]) == []
    assert chords.look() == []
    client.zadd("opsq:chords", {"g": 0})
    assert chords.look() == [("g", "complete")]
    client.zadd("opsq:chords", {"g": 0})
    assert chords.look() == [], "it is looked after"
    client.delete("celery-taskset-meta-g.c")
    client.zadd("opsq:chords", {"g": 0})
    assert chords.look() == [("g", "complete")], "who looked after it has gone"


def test_a_look_finds_lost_counters_and_old_chords_and_forgets_what_is_done(chords: Chords, client: Any) -> None:
    def looked(age_s: float) -> list[tuple[str, str]]:
        client.zadd("opsq:chords", {"g": 0})
        client.hset("opsq:chord:g", "at", str(int((time.time() - age_s) * 1000)))
        return chords.look()

    chords.set_size("g", 2, BODY)
    chords.count([chords.part(part(chords, 0))])
    assert looked(80_000) == []
    assert looked(86_300) == [("g", "old")]
    client.delete("celery-taskset-meta-g.c", "celery-taskset-meta-g.s")
    assert looked(299) == []
    assert looked(301) == [("g", "counter")]
    client.set("celery-taskset-meta-g.c", "done", ex=100)
    assert looked(0) == []
    assert not client.exists("opsq:chords", "opsq:chord:g")


def test_what_a_celery_worker_has_done_is_forgotten_however_late(chords: Chords, client: Any) -> None:
    chords.set_size("g", 2, BODY)
    client.zadd("opsq:chords", {"g": 0})
    client.hset("opsq:chord:g", "at", str(int((time.time() - 4_000) * 1000)))
    client.delete("celery-taskset-meta-g.s")
    assert chords.look() == []
    assert not client.exists("opsq:chords", "opsq:chord:g")


def test_a_part_that_cannot_be_counted_keeps_nothing_back(chords: Chords, client: Any) -> None:
    client.set("celery-taskset-meta-g.j", "something else", ex=100)
    chords.set_size("g", 1, BODY)
    assert chords.count([chords.part(part(chords, 0))]) == []


def test_parts_are_counted_on_a_server_that_is_full(chords: Chords, client: Any) -> None:
    chords.set_size("g", 1, BODY)
    client.config_set("maxmemory", "1")
    try:
        assert chords.count([chords.part(part(chords, 0))]) == ["g"]
    finally:
        client.config_set("maxmemory", "0")


def test_of_several_who_are_told_of_a_chord_one_has_it_at_a_time(chords: Chords, redis_url: str, client: Any) -> None:
    chords.set_size("g", 1, BODY)
    chords.count([chords.part(part(chords, 0), claim=False)])
    client.zadd("opsq:chords", {"g": 0})
    assert chords.look() == [("g", "complete")]
    one, two = (Chords(redis_url, Format(), ordered=chords.ordered) for _ in range(2))
    assert one.take("g", chords.token)
    assert not two.take("g", chords.token)
    assert one.take("g", chords.token), "its own again"
    client.delete("celery-taskset-meta-g.c")
    assert two.take("g", chords.token), "who had it has taken too long"
    assert not one.is_ours("g")
    assert two.done("g")
    assert not one.take("g", chords.token), "it is sent"
