"""A worker of opsq answers remote commands of Celery's clients as the Celery worker beside it does, field by field."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import neighbours
from support.neighbours import NODES, World

from opsq.broker.mailbox import Request, command


@pytest.fixture(scope="module")
def world(celery_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with neighbours.opened(tmp_path_factory.mktemp("control"), celery_python) as world:
        yield world


@pytest.fixture(scope="module")
def busy(world: World) -> World:
    """Each worker runs one task; the Celery worker has another one in hand, and each one for later."""
    for library in NODES:
        world.clients["celery"].send("nap", 0, queue=f"{library}q", countdown=3600)
    world.until(lambda: all(len(each) == 1 for each in world.ask("scheduled").values()), "both have one for later")
    for library in NODES:
        for _ in range(2):
            world.clients["celery"].send("nap", 60, queue=f"{library}q")
    world.until(lambda: all(len(each) == 1 for each in world.ask("active").values()), "both run one")
    return world


def shape(value: Any) -> Any:
    """What a reply is made of, without what it says."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shape(inner) for inner in value]
    return float if type(value) is int else type(value)


def test_a_ping_is_answered_as_celery_does(world: World) -> None:
    assert world.ask("ping") == {"celery": {"ok": "pong"}, "opsq": {"ok": "pong"}}


@pytest.mark.parametrize("method", ["active", "scheduled", "dump_active", "dump_schedule"])
def test_tasks_in_hand_are_told_with_the_same_fields(busy: World, method: str) -> None:
    told = busy.ask(method)
    assert shape(told["opsq"]) == shape(told["celery"])
    (ours,) = told["opsq"]
    info = ours.get("request", ours)
    assert (info["name"], info["hostname"], info["delivery_info"]["routing_key"]) == ("proj.nap", "o@here", "opsqq")


def test_an_active_task_says_who_runs_it_since_when(busy: World) -> None:
    told = busy.ask("active")
    for library, (info,) in told.items():
        assert info["args"] == [60], library
        assert 0 <= time.time() - info["time_start"] < 60
        assert info["acknowledged"] is True
        assert Path(f"/proc/{info['worker_pid']}").exists()


def test_arguments_can_be_asked_for_as_text(busy: World) -> None:
    told = busy.ask("active", safe=True)
    assert [(info["args"], info["kwargs"]) for (info,) in told.values()] == [("(60,)", "{}")] * 2


def test_nothing_is_reserved_behind_a_long_task(busy: World) -> None:
    told = busy.ask("reserved")
    assert len(told["celery"]) == 1  # it waits there until the long one ends
    assert told["opsq"] == []  # it is back in its queue


def test_a_task_is_found_by_its_id(busy: World) -> None:
    ids = [busy.ask("active")[library][0]["id"] for library in NODES]
    later = busy.ask("scheduled")["opsq"][0]["request"]["id"]
    told = busy.ask("query_task", ids=[*ids, later, "nobody"])
    assert {task_id: state for each in told.values() for task_id, (state, _info) in each.items()} == {
        **dict.fromkeys(ids, "active"),
        later: "scheduled",
    }
    assert shape(list(told["opsq"][ids[1]])) == shape(list(told["celery"][ids[0]]))


def test_registered_tasks_are_told_as_celery_does(world: World) -> None:
    plain, more = world.ask("registered"), world.ask("registered", taskinfoitems=["serializer", "max_retries"])
    assert plain["opsq"] == plain["celery"]
    assert "proj.limited [rate_limit=100/s]" in plain["opsq"]
    assert more["opsq"] == more["celery"]


def test_statistics_have_the_same_fields(busy: World) -> None:
    told = busy.ask("stats")
    for each in told.values():
        each["total"] = sum(each["total"].values())
        each["broker"]["heartbeat"] = 0
    assert shape(told["opsq"]) == shape(told["celery"])
    assert told["opsq"]["pid"] == busy.workers["opsq"].pid
    assert told["opsq"]["pool"]["max-concurrency"] == 1
    assert told["opsq"]["broker"]["port"] == told["celery"]["broker"]["port"]


def test_the_queues_that_are_consumed_have_the_same_fields(world: World) -> None:
    told = world.ask("active_queues")
    (ours,), (theirs,) = told["opsq"], told["celery"]
    assert ours == {
        **theirs,
        "name": "opsqq",
        "routing_key": "opsqq",
        "exchange": {**theirs["exchange"], "name": "opsqq"},
    }


def test_the_configuration_is_told_without_secrets(world: World) -> None:
    for each in world.ask("conf").values():
        assert each["worker_prefetch_multiplier"] == 4
        assert each["broker_url"].endswith(f":{world.server.port}/0")
    assert len(world.ask("conf", with_defaults=True)["opsq"]) > 100


def test_reports_clocks_and_samples_of_memory_look_alike(world: World) -> None:
    for method in ("report", "clock"):
        told = world.ask(method)
        assert shape(told["opsq"]) == shape(told["celery"]), method
    sample = world.ask("memsample")["opsq"]
    assert re.fullmatch(r"\d+\.\d{3}MB", sample)
    assert f"> {sample}," in world.ask("memdump")["opsq"]
    assert "software -> opsq:" in world.ask("report")["opsq"]["ok"]


def test_a_clock_never_goes_back(world: World) -> None:
    clocks = [world.ask("clock")["opsq"]["clock"] for _ in range(3)]
    assert clocks == sorted(set(clocks))


def test_who_is_not_meant_says_nothing(world: World) -> None:
    client = world.clients["celery"]
    assert client.broadcast("ping", destination=["o@here"], timeout=5) == [{"o@here": {"ok": "pong"}}]
    assert client.broadcast("ping", destination=["nobody@here"], timeout=0.3) == []
    by_pattern = {"pattern": "o@*", "matcher": "glob", "limit": 1, "timeout": 5}
    assert client.broadcast("ping", **by_pattern) == [{"o@here": {"ok": "pong"}}]
    assert client.broadcast("ping", **{**by_pattern, "pattern": "^o.here", "matcher": "pcre"}) == [
        {"o@here": {"ok": "pong"}}
    ]


@pytest.mark.parametrize(("method", "arguments"), [("no_such_command", {}), ("clock", None), ("query_task", {})])
def test_what_goes_wrong_is_told_as_celery_tells_it(world: World, method: str, arguments: Any) -> None:
    told = world.ask(method, **({"bogus": 1} if arguments is None else {}))
    if method == "clock":  # both pass by what they do not know
        assert set(told["opsq"]) == {"clock"}
    else:
        assert told["opsq"] == told["celery"]
        assert "error" in told["opsq"]
    assert world.ask("ping")["opsq"] == {"ok": "pong"}


def test_no_reply_is_left_for_ever(world: World) -> None:
    """A client that asks and goes away leaves its list; ours goes by itself."""
    world.clients["celery"].broadcast("ping", destination=["o@here"], timeout=5)
    with world.server.client() as redis:
        redis.sadd("_kombu.binding.reply.celery.pidbox", "gone\x06\x16\x06\x16gone.reply.celery.pidbox")
        request = Request("ping", {}, ["o@here"], ticket="t", reply_to=("reply.celery.pidbox", "gone"))
        redis.publish("/0.celery.pidbox", command("celery.pidbox", request))
        world.until(lambda: redis.llen("gone.reply.celery.pidbox"), "the reply is there")
        assert 0 < redis.ttl("gone.reply.celery.pidbox") <= 60


def test_commands_without_an_answer_are_answered_with_nothing(world: World) -> None:
    assert world.ask("heartbeat") == {"celery": None, "opsq": None}
    replies = world.clients["celery"].broadcast("election", id="1", topic="task", destination=["o@here"], timeout=5)
    assert replies == [{"o@here": None}]


@pytest.mark.parametrize("method", ["ping", "registered", "active_queues", "revoked", "scheduled", "conf"])
def test_a_client_of_opsq_is_answered_by_both_as_celerys_client_is(world: World, method: str) -> None:
    told = {sender: world.clients[sender].inspect(method, limit=2, timeout=10) for sender in NODES}
    assert told["opsq"] == told["celery"]
    assert set(told["opsq"] or ()) == {"c@here", "o@here"}


def test_a_client_of_opsq_asks_one_worker_and_nobody_in_particular(world: World) -> None:
    client = world.clients["opsq"]
    assert client.inspect("ping", destination="c@here", timeout=10) == {"ok": "pong"}
    assert client.inspect("ping", destination=["o@here"], timeout=10) == {"o@here": {"ok": "pong"}}
    assert client.inspect("ping", pattern="c@*", matcher="glob", limit=1, timeout=10) == {"c@here": {"ok": "pong"}}
    assert client.inspect("ping", destination=["nobody@here"], timeout=0.3) is None


def test_a_client_of_opsq_leaves_nothing_behind(world: World) -> None:
    with world.server.client() as redis:
        before = {*redis.scan_iter("*.reply.celery.pidbox")}, redis.smembers("_kombu.binding.reply.celery.pidbox")
        world.ask("ping", sender="opsq")
        after = {*redis.scan_iter("*.reply.celery.pidbox")}, redis.smembers("_kombu.binding.reply.celery.pidbox")
        assert after == before
        deadline = redis.zscore("_kombu.binding_deadlines", "reply.celery.pidbox")
        assert deadline > (time.time() + 3000) * 1000, "no process of kombu sweeps the bindings away"
