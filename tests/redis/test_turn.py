"""The turn: a message is in exactly one place, whatever happens around the script (contract of turn.lua)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from opsq.broker.consumer import Alive, Consumer
from opsq.broker.settlement import Settlement
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.datastore.trouble import ResponseError

QUEUE = "celery"
FAR = 9e15


@pytest.fixture
def make(redis_url: str, redis_client: redis.Redis) -> Iterator[Callable[..., Consumer]]:
    """`make(name, queues=[...], **options)` gives a connected, registered consumer."""
    made: list[Consumer] = []

    def build(name: str = "w@h:11112222:0", queues: tuple[str, ...] = (QUEUE,), **options: Any) -> Consumer:
        consumer = Consumer(redis_url, queues, name, **options)
        for queue in queues:
            redis_client.zadd(keys.consumers(queue), {name: FAR})
        consumer.connect(track=True)
        made.append(consumer)
        return consumer

    yield build
    for consumer in made:
        consumer.close()


def push(client: redis.Redis, *messages: bytes, queue: str = QUEUE) -> None:
    for message in messages:
        client.lpush(queue, message)


def numbers(turn: Any) -> list[int]:
    return [leased.number + i for leased in turn.leased for i in range(len(leased.messages))]


def messages(turn: Any) -> list[bytes]:
    return [message for leased in turn.leased for message in leased.messages]


def test_messages_come_in_the_order_they_were_sent_and_are_held_until_settled(make, redis_client) -> None:
    consumer = make()
    push(redis_client, b"a", b"b", b"c")
    turn = consumer.turn((), 2)
    assert messages(turn) == [b"a", b"b"]
    assert turn.held == 2
    first, second = numbers(turn)
    settled = consumer.turn([Settlement(0, first)], 0)
    assert settled.held == 1
    assert redis_client.hgetall(consumer.stores[0]) == {str(second).encode(): b"b"}
    assert redis_client.lrange(QUEUE, 0, -1) == [b"c"]


def test_a_turn_of_ten_thousand_goes_through_in_slices(make, redis_client) -> None:
    consumer = make()
    redis_client.lpush(QUEUE, *[b"%d" % i for i in range(10_000)])
    turn = consumer.turn((), 10_000)
    assert messages(turn) == [b"%d" % i for i in range(10_000)]
    assert turn.held == 10_000
    done = consumer.turn([Settlement(0, number) for number in numbers(turn)], 0)
    assert done.held == 0


def test_higher_priorities_come_first_over_all_queues(make, redis_client) -> None:
    consumer = make(queues=("a", "b"))
    push(redis_client, b"a9", queue=PRIORITIES.at_step("a", 9))
    push(redis_client, b"b3", queue=PRIORITIES.at_step("b", 3))
    push(redis_client, b"a0", queue="a")
    push(redis_client, b"b0", queue="b")
    got = messages(consumer.turn((), 10))
    assert set(got[:2]) == {b"a0", b"b0"}
    assert got[2:] == [b"b3", b"a9"]


def test_queues_take_turns(make, redis_client) -> None:
    consumer = make(queues=("a", "b"))
    for i in range(3):
        push(redis_client, b"a%d" % i, queue="a")
        push(redis_client, b"b%d" % i, queue="b")
    firsts = [messages(consumer.turn((), 1))[0][:1] for _ in range(4)]
    assert set(firsts[:2]) == set(firsts[2:]) == {b"a", b"b"}


def test_a_result_is_stored_and_announced_with_the_settlement(make, redis_client) -> None:
    consumer = make()
    push(redis_client, b"a")
    (number,) = numbers(consumer.turn((), 1))
    with redis_client.pubsub() as listener:
        listener.subscribe("celery-task-meta-x")
        listener.get_message(timeout=2)
        consumer.turn([Settlement(0, number, ("R", "celery-task-meta-x", 60, b"done"), 1)], 0)
        heard = listener.get_message(timeout=2)
    assert heard["data"] == b"done"
    assert redis_client.get("celery-task-meta-x") == b"done"
    assert 0 < redis_client.ttl("celery-task-meta-x") <= 60


def test_results_go_to_another_database_of_the_server_and_the_messages_stay_in_theirs(
    make, redis_client, redis_server
) -> None:
    consumer = make(results_db=5)
    push(redis_client, b"a", b"b")
    first, second = numbers(consumer.turn((), 2))
    turn = consumer.turn([Settlement(0, first, ("R", "celery-task-meta-x", 60, b"done"), 1)], 0)
    assert turn.held == 1
    with redis.Redis.from_url(redis_server.url(5)) as results:
        assert results.get("celery-task-meta-x") == b"done"
    assert redis_client.get("celery-task-meta-x") is None
    assert list(redis_client.hkeys(consumer.stores[0])) == [str(second).encode()]


def test_what_was_settled_before_or_taken_over_writes_nothing(make, redis_client) -> None:
    consumer = make()
    push(redis_client, b"a")
    (number,) = numbers(consumer.turn((), 1))
    consumer.turn([Settlement(0, number)], 0)
    late = [Settlement(0, number, ("R", "celery-task-meta-x", 60, b"late", "L", "other", b"follow-up"), 2)]
    assert consumer.turn(late, 0).failed == {}
    assert redis_client.get("celery-task-meta-x") is None
    assert redis_client.llen("other") == 0


@pytest.mark.parametrize("held", [4, 40])
def test_results_of_many_are_stored_but_for_what_was_taken_over_however_much_is_held(make, redis_client, held) -> None:
    consumer = make()
    push(redis_client, *[b"%d" % i for i in range(held)])
    first, second, third, *others = numbers(consumer.turn((), held))
    redis_client.hdel(consumer.stores[0], second)  # a peer has settled it
    done = [
        Settlement(0, number, ("R", f"celery-task-meta-{number}", ttl_s, b"done %d" % number), 1)
        for number, ttl_s in ((first, 60), (second, 60), (third, 600))
    ]
    turn = consumer.turn(done, 0)
    assert not turn.failed
    assert turn.held == len(others)
    assert redis_client.get(f"celery-task-meta-{first}") == b"done %d" % first
    assert redis_client.get(f"celery-task-meta-{second}") is None
    assert 60 < redis_client.ttl(f"celery-task-meta-{third}") <= 600


def test_a_message_whose_follow_up_cannot_be_written_stays_in_flight_and_blocks_nobody(make, redis_client) -> None:
    consumer = make()
    redis_client.set("celery-task-meta-blocked", b"not a list", ex=60)
    push(redis_client, b"bad", b"good")
    bad, good = numbers(consumer.turn((), 2))
    turn = consumer.turn(
        [
            Settlement(0, bad, ("R", "celery-task-meta-x", 60, b"r", "L", "celery-task-meta-blocked", b"next"), 2),
            Settlement(0, good, ("L", "other", b"next"), 1),
        ],
        0,
    )
    assert list(turn.failed) == [bad]
    assert "WRONGTYPE" in turn.failed[bad]
    assert redis_client.get("celery-task-meta-x") is None, "nothing of a message is written when one part cannot be"
    assert redis_client.hgetall(consumer.stores[0]) == {str(bad).encode(): b"bad"}
    assert redis_client.lrange("other", 0, -1) == [b"next"]


def test_writes_come_before_the_removal_so_that_a_script_that_breaks_off_loses_nothing(make, redis_client) -> None:
    """An odd argument ends the script in the middle: what it had not written is still in flight."""
    consumer = make()
    push(redis_client, b"a")
    (number,) = numbers(consumer.turn((), 1))
    broken = Settlement(0, number, ("L", "other", b"next", "?"), 2)
    with pytest.raises(ResponseError):
        consumer.turn([broken], 0)
    assert redis_client.hget(consumer.stores[0], str(number)) == b"a"


def test_a_full_server_still_lets_finished_work_drain(make, redis_client) -> None:
    consumer = make()
    push(redis_client, *[b"m%d" % i for i in range(5)])
    got = numbers(consumer.turn((), 5))
    redis_client.config_set("maxmemory-policy", "noeviction")
    redis_client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(ResponseError, match="maxmemory"):
            redis_client.set("celery-task-meta-y", b"x", ex=60)
        turn = consumer.turn([Settlement(0, n, ("R", f"celery-task-meta-{n}", 60, b"r"), 1) for n in got], 0)
    finally:
        redis_client.config_set("maxmemory", "0")
    assert turn.failed == {}
    assert turn.held == 0
    assert all(redis_client.get(f"celery-task-meta-{n}") == b"r" for n in got)


def test_messages_given_back_are_the_next_ones_out_in_their_old_order(make, redis_client) -> None:
    consumer = make()
    push(redis_client, b"a", b"b", b"c", b"d")
    got = numbers(consumer.turn((), 3))
    back = [Settlement(0, n, ("H", QUEUE, m), 1) for n, m in reversed(list(zip(got, (b"a", b"b", b"c"), strict=True)))]
    assert consumer.turn(back, 0).held == 0
    assert messages(consumer.turn((), 4)) == [b"a", b"b", b"c", b"d"]


def test_two_dead_letters_with_one_id_are_both_kept(make, redis_client) -> None:
    consumer = make()
    push(redis_client, b"a", b"b")
    first, second = numbers(consumer.turn((), 2))
    for number in (first, second):
        write = ("D", keys.dead(QUEUE), keys.dead_index(QUEUE), "id", "1.5", f"record {number}", 1000, "0")
        consumer.turn([Settlement(0, number, write, 1)], 0)
    assert len(redis_client.hgetall(keys.dead(QUEUE))) == 2
    assert redis_client.zcard(keys.dead_index(QUEUE)) == 2


def test_nothing_is_leased_to_a_consumer_that_nobody_would_rescue(make, redis_client) -> None:
    consumer = make()
    push(redis_client, b"a")
    redis_client.zrem(keys.consumers(QUEUE), consumer.name)
    turn = consumer.turn((), 1)
    assert turn.unregistered
    assert not turn.leased
    assert redis_client.llen(QUEUE) == 1


def test_nothing_is_leased_from_a_paused_queue_and_resuming_wakes_the_waiter(make, redis_client) -> None:
    consumer = make()
    redis_client.set(keys.paused(QUEUE), "1")
    push(redis_client, b"a")
    assert not consumer.turn((), 1, armed=True).leased
    redis_client.delete(keys.paused(QUEUE))
    assert noticed(consumer, 2)
    assert messages(consumer.turn((), 1)) == [b"a"]


def noticed(consumer: Consumer, timeout_s: float) -> bool:
    while not consumer.noticed and consumer.readable(timeout_s):
        consumer.read_notices()
    return consumer.noticed


def test_an_empty_turn_arms_a_notice_that_a_plain_push_of_celery_fires(make, redis_client) -> None:
    for step in PRIORITIES.steps:
        consumer = make()
        assert not consumer.turn((), 1, armed=True).leased
        assert not noticed(consumer, 0.02)
        push(redis_client, b"a", queue=PRIORITIES.at_step(QUEUE, step))
        assert noticed(consumer, 2), f"no notice for priority {step}"
        (number,) = numbers(consumer.turn((), 1))
        consumer.turn([Settlement(0, number)], 0)


def test_a_look_arms_the_same_notice_and_says_whether_a_turn_is_worth_its_while(make, redis_client) -> None:
    consumer = make()
    assert consumer.arm()
    push(redis_client, b"a")
    assert noticed(consumer, 2)
    assert not consumer.arm(), "a list is not empty"
    (number,) = numbers(consumer.turn((), 1))
    assert not consumer.arm(), "it holds a message"
    consumer.turn([Settlement(0, number)], 0)
    assert consumer.arm()
    redis_client.hset(consumer.stores[0], "999000", b"taken by a late turn of its own")
    assert noticed(consumer, 2), "what it holds unknowingly is told as well"


def test_the_notice_is_armed_although_the_server_had_forgotten_the_script(make, redis_client) -> None:
    consumer = make()
    redis_client.script_flush()
    assert not consumer.turn((), 1, armed=True).leased
    push(redis_client, b"a")
    assert noticed(consumer, 2)


def test_renewals_of_the_registry_do_not_wake_an_idle_consumer(make, redis_client) -> None:
    consumer = make()
    consumer.turn((), 1, armed=True)
    redis_client.zadd(keys.consumers(QUEUE), {consumer.name: FAR + 1})
    assert not noticed(consumer, 0.05)


def test_a_peer_takes_over_only_what_belongs_to_an_expired_lease(make, redis_client) -> None:
    consumer = make()
    push(redis_client, b"a")
    (number,) = numbers(consumer.turn((), 1))
    peer = Consumer(consumer.url, [QUEUE], consumer.name)
    peer.connect()
    back = [Settlement(0, number, ("H", QUEUE, b"a"), 1)]
    with pytest.raises(Alive):
        peer.take_over(back)
    redis_client.zadd(keys.consumers(QUEUE), {consumer.name: 1})
    assert peer.take_over(back).held == 0
    peer.close()
    zombie = consumer.turn([Settlement(0, number, ("R", "celery-task-meta-x", 60, b"zombie"), 1)], 0)
    assert zombie.failed == {}
    assert redis_client.get("celery-task-meta-x") is None, "a zombie stores nothing over the new owner"
    assert redis_client.lrange(QUEUE, 0, -1) == [b"a"]


def test_numbers_of_different_turns_never_meet(make, redis_client) -> None:
    """A turn that reaches the server late must not overwrite what a later one has leased."""
    consumer = make()
    push(redis_client, *[b"%d" % i for i in range(6)])
    seen: set[int] = set()
    for _ in range(3):
        fresh = set(numbers(consumer.turn((), 2)))
        assert len(fresh) == 2
        assert not fresh & seen
        seen |= fresh
    assert redis_client.hlen(consumer.stores[0]) == 6


def test_an_empty_turn_reads_every_list_because_newer_servers_arm_only_what_a_script_reads(make, redis_server) -> None:
    consumer = make()
    with redis.Redis.from_url(redis_server.url(), socket_timeout=5).monitor() as monitor:
        commands = (entry["command"] for entry in monitor.listen())
        consumer.turn((), 1, armed=True)
        read = set()
        for command in commands:
            if command.startswith("EXISTS "):
                read.update(key.encode().decode("unicode_escape") for key in command.split()[1:])
            if command.startswith("HLEN "):
                break
    assert read == set(PRIORITIES.lists(QUEUE))
