"""A beat on a real Redis with a clock that is moved by hand: what it sends, how often, and who of several does."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from support.processes import Spawner

from opsq import App, Broadcast, Exchange, Queue
from opsq.beat import BeatLazyFunc
from opsq.beat.beat import Beat
from opsq.beat.stores import NotOurs, Store, Tick
from opsq.broker import schedules
from opsq.broker.broker import Outgoing
from opsq.datastore import keys
from opsq.datastore.priorities import PRIORITIES
from opsq.exceptions import UsageError
from opsq.protocol import envelope, writing
from opsq.runtime.clock import Clock
from opsq.runtime.process import identify
from opsq.schedules import crontab, schedule
from tests.support.manual_clock import ManualClock

START = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC).timestamp()
MakeBeat = Callable[..., Beat]


@pytest.fixture
def make(redis_url: str) -> Iterator[MakeBeat]:
    """`make(entries, start=, **settings)`: a beat of an app of its own; several of them share the schedule."""
    made: list[Beat] = []

    def make(
        entries: Any, start: float = START, lease_s: float = 3600.0, url: str = redis_url, **settings: Any
    ) -> Beat:
        app = App("shop", broker=url, backend=url, set_as_current=False, beat_schedule=entries, **settings)
        app.task(name="shop.add")(lambda x, y: x + y)
        made.append(Beat(app, clock=ManualClock(start), lease_s=lease_s))
        made[-1]._notices.descriptors()  # it hears, so it need not look each second
        return made[-1]

    yield make
    for beat in made:
        beat.close()


def play(beat: Beat, seconds: float) -> list[tuple[float, str]]:
    """Let time pass; what was sent when (Unix seconds), by the entry's name."""
    client, end = beat.app.broker.client, beat.clock.now() + seconds
    beat._look_at = 0.0  # what was said meanwhile it would hear a moment later
    sent = []
    while True:
        pause_s = beat.step()
        while (raw := client.rpop("celery")) is not None:
            sent.append((beat.clock.now(), envelope.parse(raw).everything()["properties"]["periodic_task_name"]))
        left = end - beat.clock.now()
        if left <= 0:
            return sent
        beat.clock.wait(min(pause_s, left))


def entry(every: Any = 10, **more: Any) -> dict[str, Any]:
    return {"task": "shop.add", "schedule": every, "args": (1, 2), **more}


def facts(beat: Beat, name: str) -> schedules.EntryFacts:
    return next(each for each in schedules.entries(beat.app.broker, "shop") if each.name == name)


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_an_interval_is_counted_from_its_due_times_and_does_not_drift(make: MakeBeat) -> None:
    sent = play(make({"ten": entry(10), "four": entry(schedule(4))}), 41)
    assert [time - START for time, name in sent if name == "ten"] == [10, 20, 30, 40]
    assert [time - START for time, name in sent if name == "four"] == [4 * n for n in range(1, 11)]


def test_the_entrys_name_travels_as_property_and_as_header(make: MakeBeat, redis_client: redis.Redis) -> None:
    beat = make({"täglich 毎日": entry(5, options={"priority": 3, "headers": {"mine": 1}, "expires": 60})})
    beat.step()
    beat.clock.wait(5)
    beat.step()
    raw: Any = redis_client.rpop(PRIORITIES.at_step("celery", 3))
    message = envelope.parse(raw).everything()
    assert message["properties"]["periodic_task_name"] == "täglich 毎日"
    assert message["headers"]["periodic_task_name"] == "täglich 毎日"
    assert message["headers"]["celery_beat_task"] is True
    assert message["headers"]["mine"] == 1
    assert message["headers"]["expires"]
    assert envelope.parse(raw).arguments(frozenset(["application/json"]))[0] == [1, 2]


def test_a_task_that_nobody_here_knows_is_sent_by_its_name(make: MakeBeat, redis_client: redis.Redis) -> None:
    beat = make({"far": {"task": "elsewhere.work", "schedule": 5, "options": {"queue": "far"}}})
    play(beat, 6)
    raw: Any = redis_client.rpop("far")
    assert envelope.parse(raw).headers.task == "elsewhere.work"


def test_a_run_that_goes_to_an_exchange_reaches_every_bound_queue_and_listener_once(
    make: MakeBeat, redis_client: redis.Redis
) -> None:
    logs = Exchange("logs", "topic")
    queues = [Queue("web", logs, "web.#"), Queue("all", logs, "#"), Broadcast("news")]
    options = {"exchange": "logs", "routing_key": "web.x"}
    entries = {"logs": entry(10, options=options), "news": entry(10, options={"queue": "news"})}
    beat = make({**entries, "typo": entry(10, options={**options, "exchange": "lost"})}, task_queues=queues)
    with redis_client.pubsub() as ears:
        ears.psubscribe("/0.news/*")
        assert ears.get_message(timeout=5)
        play(beat, 21)
        assert [bool(ears.get_message(timeout=1)) for _ in range(3)] == [True, True, False]
    assert [redis_client.llen(queue) for queue in ("web", "all")] == [2, 2]
    assert facts(beat, "logs").total_runs == facts(beat, "news").total_runs == 2
    assert "no queue is bound so" in str(facts(beat, "typo").trouble)


def test_a_unique_task_is_not_sent_while_its_last_run_waits(make: MakeBeat, redis_client: redis.Redis) -> None:
    beat = make({"one": entry(5, options={"unique_key": "k"})})
    assert len(play(beat, 21)) == 1
    assert facts(beat, "one").total_runs == 4
    redis_client.delete(keys.unique("shop.add:k"))
    assert len(play(beat, 10)) == 1


def test_what_cannot_be_sent_is_said_once_for_each_run_and_the_others_go_on(
    make: MakeBeat, caplog: pytest.LogCaptureFixture
) -> None:
    beat = make({"bad": entry(5, args=(object(), 1)), "good": entry(5)})
    assert [name for _time, name in play(beat, 11)] == ["good", "good"]
    told = [record.message for record in caplog.records if "cannot send bad (shop.add)" in record.message]
    assert len(told) == 2
    assert "cannot write the value as JSON" in str(facts(beat, "bad").trouble)
    assert (facts(beat, "bad").total_runs, facts(beat, "good").trouble) == (0, None)


def test_trouble_of_an_argument_is_no_trouble_of_the_broker(make: MakeBeat) -> None:
    beat = make({"bad": entry(5, args=(BeatLazyFunc(open, "/nowhere"), 1)), "good": entry(5)})
    assert [name for _time, name in play(beat, 11)] == ["good", "good"]


def test_a_tasks_own_apply_async_is_called(make: MakeBeat) -> None:
    beat = make({"mine": {"task": "shop.mine", "schedule": 5}, "never": {"task": "shop.never", "schedule": 5}})
    app = beat.app

    class Mine(app.Task):  # type: ignore[name-defined,misc]
        def apply_async(self, *args: Any, **options: Any) -> Any:
            return super().apply_async(*args, **{**options, "queue": "celery", "shadow": "seen"})

    class Never(app.Task):  # type: ignore[name-defined,misc]
        def apply_async(self, *_args: Any, **_options: Any) -> Any:
            return None

    app.task(name="shop.mine", base=Mine)(lambda: None)
    app.task(name="shop.never", base=Never)(lambda: None)
    assert [name for _time, name in play(beat, 11)] == ["mine", "mine"]
    assert facts(beat, "never").served_ms == (START + 10) * 1000


def test_each_sent_run_is_one_line(make: MakeBeat, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "celery.beat")
    play(make({"ten": entry(10)}), 10)
    assert "Scheduler: Sending due task ten (shop.add)" in [record.message for record in caplog.records]


def test_jitter_delays_each_run_and_none_is_lost(make: MakeBeat) -> None:
    sent = [time - START for time, _name in play(make({"ten": entry(10, jitter=10)}), 201)]
    assert len(sent) in (19, 20)
    assert all(10 * n <= time < 10 * n + 10 for n, time in enumerate(sent, 1))
    assert len({time % 10 for time in sent}) > 10


def test_a_schedule_of_the_programs_own_decides_itself(make: MakeBeat) -> None:
    beat = make({})
    clock = beat.clock

    class Thirds(schedule):
        def is_due(self, last_run_at: datetime) -> Any:
            gone = clock.now() - last_run_at.timestamp()
            return gone >= 3, 3 - gone if gone < 3 else 3

    beat = make({"odd": entry(Thirds(1))})
    beat.clock = clock
    assert [time - START for time, _name in play(beat, 10)] == [3, 6, 9]


def test_a_schedule_that_fails_does_not_stop_the_others(make: MakeBeat, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(schedule):
        asked = 0

        def is_due(self, last_run_at: datetime) -> Any:  # noqa: ARG002
            Broken.asked += 1
            if Broken.asked == 2:
                raise ValueError("a bad day")
            return (Broken.asked > 3), 1

        def remaining_estimate(self, last_run_at: datetime) -> Any:
            raise NotImplementedError(last_run_at)

    beat = make({"bad": entry(Broken(1)), "good": entry(5)})
    assert [name for _time, name in play(beat, 11)].count("good") == 2
    assert any("a bad day" in record.message for record in caplog.records)


# -- missed runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("missed", "count"), [("once", 1), ("all", 6), ("none", 0)])
def test_what_was_missed_while_no_beat_ran(make: MakeBeat, missed: str, count: int) -> None:
    entries = {"ten": entry(10, missed=missed)}
    first = make(entries)
    play(first, 15)
    first.close()
    later = make(entries, start=START + 95 if missed == "none" else START + 70)
    later.clock.advance(0)
    sent = play(later, 0.5)
    if missed == "none":  # the last one, of 5 s ago, is on time
        assert len(sent) == 1
        return
    assert len(sent) == count
    assert [round(time - START) for time, _name in play(later, 10)] == [80]


def test_a_new_entry_waits_for_its_first_time(make: MakeBeat) -> None:
    assert play(make({"hourly": entry(crontab(minute=0))}, start=START + 60), 60) == []


# -- an operator's words -----------------------------------------------------------------------------------------------


def test_a_paused_entry_rests_and_makes_up_for_nothing(make: MakeBeat) -> None:
    beat = make({"ten": entry(10)})
    play(beat, 11)
    assert schedules.pause(beat.app.broker, "shop", "ten")
    assert not schedules.pause(beat.app.broker, "shop", "ten")
    assert play(beat, 50) == []
    assert facts(beat, "ten").next_run_unix is None
    assert schedules.resume(beat.app.broker, "shop", "ten")
    assert [round(time - START) for time, _name in play(beat, 12)] == [71]


def test_what_an_entry_missed_while_it_rested_is_never_made_up(make: MakeBeat) -> None:
    """Also when no beat ran when it was resumed, or another one ran after that."""
    entries, moment = {"hourly": entry(3600)}, START
    for step in ("pause", "resume", ""):
        beat = make(entries, start=moment)
        play(beat, 10)
        if step:
            getattr(schedules, step)(beat.app.broker, "shop", "hourly")
        if step == "pause":
            play(beat, 1)
        beat.close()
        moment += 2000
    last = make(entries, start=moment)
    assert [round(time - moment) for time, _name in play(last, 3600)] == [1600]


def test_entries_are_added_and_removed_while_it_ticks(make: MakeBeat, redis_client: redis.Redis) -> None:
    beat = make({"ten": entry(10)})
    play(beat, 1)
    broker = beat.app.broker
    schedules.add(broker, "shop", "neu", {"task": "shop.add", "schedule": {"every": 2}, "args": [3, 4]})
    with pytest.raises(UsageError, match="exists"):
        schedules.add(broker, "shop", "neu", {"task": "shop.add", "schedule": {"every": 2}})
    assert [name for _time, name in play(beat, 5)] == ["neu", "neu"]
    assert facts(beat, "neu").source == "added"
    assert schedules.remove(broker, "shop", "neu")
    assert not schedules.remove(broker, "shop", "neu")
    assert play(beat, 3.5) == []
    for part in ("entries", "due"):
        assert redis_client.hkeys(keys.schedule("shop", part)) == [b"ten"]


def test_an_entry_that_left_the_code_is_forgotten(make: MakeBeat) -> None:
    old = make({"ten": entry(10), "gone": entry(10)})
    play(old, 1)
    old.close()
    new = make({"ten": entry(10)})
    play(new, 1)
    assert [each.name for each in schedules.entries(new.app.broker, "shop")] == ["ten"]


def test_an_order_runs_an_entry_once_and_leaves_its_next_run_alone(make: MakeBeat) -> None:
    beat = make({"hourly": entry(3600)})
    play(beat, 1)
    before = facts(beat, "hourly")
    order = schedules.order_run(beat.app.broker, "shop", "hourly")
    assert [name for _time, name in play(beat, 10)] == ["hourly"]
    after = facts(beat, "hourly")
    assert (after.order, after.total_runs, after.next_run_unix) == (order, 1, before.next_run_unix)
    assert [time - START for time, _name in play(beat, 3600)] == [3600]
    schedules.order_run(beat.app.broker, "shop", "unknown")
    assert play(beat, 1) == []
    assert beat.store.load().orders == ()


def test_what_is_known_of_an_entry_can_be_read_without_the_app(make: MakeBeat) -> None:
    beat = make({"nachts": entry(crontab(30, 2), timezone="Asia/Tokyo"), "off": entry(5, enabled=False)})
    play(beat, 1)
    found = schedules.entries(beat.app.broker)
    assert [(each.app, each.name, each.enabled) for each in found] == [("shop", "nachts", True), ("shop", "off", False)]
    night = found[0]
    assert (night.task, night.schedule, night.zone) == ("shop.add", "30 2 * * *", "Asia/Tokyo")
    assert night.next_run_unix == datetime(2026, 5, 2, 2, 30, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp()
    assert (night.last_run_unix, night.total_runs) == (None, 0)
    assert schedules.leader(beat.app.broker, "shop") == json.loads(beat.leader.value)


@contextmanager
def running(beat: Beat) -> Iterator[None]:
    """The beat at work in a thread, by the machine's clock."""
    beat.clock = beat.sender.clock = Clock()
    thread = threading.Thread(target=beat.run)
    thread.start()
    try:
        yield
    finally:
        beat.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_what_an_operator_says_is_heard_and_not_found_at_the_next_look(
    make: MakeBeat, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    beat = make({"hourly": entry(3600)}, lease_s=36_000.0)  # its next look is in hours
    with running(beat):
        wait_for(lambda: beat._notices.hears and schedules.entries(beat.app.broker, "shop"))
        schedules.order_run(beat.app.broker, "shop", "hourly")
        wait_for(lambda: redis_client.llen("celery") == 1)
    redis_client.delete("celery")


def test_where_changes_may_not_be_heard_they_are_looked_for(
    make: MakeBeat, redis_client: redis.Redis, redis_url: str, wait_for: Callable[..., Any]
) -> None:
    redis_client.execute_command("ACL", "SETUSER", "deaf", "on", ">deaf", "~*", "+@all", "-subscribe", "&*")
    try:
        beat = make({"hourly": entry(3600)}, url=redis_url.replace("//", "//deaf:deaf@"))
        with running(beat):
            wait_for(lambda: beat._notices._refused and schedules.entries(beat.app.broker, "shop"))
            schedules.order_run(beat.app.broker, "shop", "hourly")
            wait_for(lambda: redis_client.llen("celery") == 1)
    finally:
        redis_client.delete("celery")
        redis_client.execute_command("ACL", "DELUSER", "deaf")


# -- overlap -----------------------------------------------------------------------------------------------------------


def runs(beat: Beat, seconds: float) -> int:
    """How many runs of the only entry were sent, without taking their messages."""
    before = facts(beat, "ten").total_runs if beat.plans else 0
    end = beat.clock.now() + seconds
    while (left := end - beat.clock.now()) > 0:
        beat.clock.wait(min(beat.step(), left))
    beat.step()
    return facts(beat, "ten").total_runs - before


def test_a_run_waits_for_the_end_of_the_last_one(make: MakeBeat, redis_client: redis.Redis) -> None:
    beat = make({"ten": entry(10, overlap="skip")})
    assert runs(beat, 15) == 1
    assert runs(beat, 50) == 0  # it waits in the queue
    raw: Any = redis_client.rpop("celery")
    redis_client.hset(keys.inflight("celery", "w:1"), "1", raw)
    redis_client.zadd(keys.consumers("celery"), {"w:1": 1})
    assert runs(beat, 10) == 0  # it runs
    redis_client.delete(keys.inflight("celery", "w:1"))
    redis_client.zadd(keys.delayed("celery"), {b"|" + writing.changed(raw, {"retries": 1}): 1})
    assert runs(beat, 10) == 0  # it is to be tried again
    redis_client.delete(keys.delayed("celery"))
    redis_client.lpush("celery", writing.changed(raw, {"retries": 1}))
    assert runs(beat, 10) == 0  # it is about to be
    redis_client.delete("celery")
    redis_client.hset("unacked", "tag", json.dumps([raw.decode(), "", "celery"]))
    assert runs(beat, 10) == 0  # a worker of Celery's has it
    redis_client.delete("unacked")
    assert runs(beat, 10) == 1
    redis_client.delete("celery")


# -- one of many -------------------------------------------------------------------------------------------------------


def test_of_several_beats_one_ticks_and_the_next_goes_on_where_it_ended(make: MakeBeat) -> None:
    one, other = (make({"ten": entry(10)}) for _ in range(2))
    assert len(play(one, 25)) == 2
    assert play(other, 25) == []
    assert not other.leading
    one.close()
    assert [time - START for time, _name in play(other, 15)] == [30, 40]


def test_a_beat_that_lost_its_lease_without_knowing_sends_nothing(make: MakeBeat, redis_client: redis.Redis) -> None:
    one, other = (make({"ten": entry(10)}) for _ in range(2))
    play(one, 1)
    redis_client.delete(keys.schedule("shop", "lease"))
    assert len(play(other, 10)) == 1
    one._look_at = float("inf")  # it does not ask
    one.clock.wait(20)
    one._notices.take()
    assert one.step() == 0
    assert redis_client.llen("celery") == 0
    one.step()
    assert not one.leading


def test_one_that_stands_by_says_which_of_its_entries_nobody_serves(
    make: MakeBeat, caplog: pytest.LogCaptureFixture
) -> None:
    ticking, same, other = make({"ten": entry(10)}), make({"ten": entry(10)}), make({"zehn": entry(10)})
    for beat in (ticking, same, other):
        play(beat, 3)
        play(beat, 3)
    [told] = [record.message for record in caplog.records if "does not know" in record.message]
    assert "'zehn'" in told
    assert "'shop'" in told


def test_the_lease_of_a_process_that_has_died_is_taken_at_once(make: MakeBeat, redis_client: redis.Redis) -> None:
    beat = make({"ten": entry(10)})
    told = json.loads(beat.leader.value)
    pid, _ticks, boot = told["process"].split()
    lease = keys.schedule("shop", "lease")
    for dead, taken in (({"process": f"{pid} 1 {boot}"}, True), ({"process": "1 1 another-boot"}, False)):
        redis_client.set(lease, json.dumps({**told, "token": "x", **dead}), px=60_000)
        assert beat.leader.holds(beat.leader.take()) is taken
    redis_client.set(
        lease, json.dumps({**told, "token": "x", "process": f"{pid} 1 {boot}", "space": "pid:[1]"}), px=60_000
    )
    assert not beat.leader.holds(beat.leader.take())  # in another container
    redis_client.delete(lease)


def test_one_that_stands_by_sees_the_ticking_process_die(
    make: MakeBeat, redis_client: redis.Redis, wait_for: Callable[..., Any], spawn: Spawner
) -> None:
    beat = make({"ten": entry(10)})
    ticking = spawn(["sleep", "1000"])
    told = {**json.loads(beat.leader.value), "token": "x", "process": str(identify(ticking.pid))}
    redis_client.set(keys.schedule("shop", "lease"), json.dumps(told), px=3_600_000)
    with running(beat):
        wait_for(lambda: beat._watched is not None)
        assert not beat.leading
        ticking.send(signal.SIGKILL)
        wait_for(lambda: beat.leading)


def test_a_due_time_is_served_once_whatever_a_caller_believes(make: MakeBeat, redis_client: redis.Redis) -> None:
    beat = make({"ten": entry(10)})
    play(beat, 1)
    served, due = int(START * 1000), int(START * 1000) + 10_000
    store = Store(beat.app.broker, "shop")
    message = Outgoing("celery", b"message")

    def tick(before: int | None = served, lease: str = beat.leader.value) -> str:
        return store.tick(lease, Tick("ten", before, due, {"task": "t", "schedule": "", "zone": "UTC"}), message)

    assert tick(lease="another") == "lost"
    assert tick(before=served - 1) == "superseded"
    assert tick(before=None) == "superseded"
    assert redis_client.llen("celery") == 0
    assert tick() == "sent"
    assert tick() == "there"  # its reply was lost
    assert redis_client.lrange("celery", 0, -1) == [b"message"]
    with pytest.raises(NotOurs):
        beat.broker.record(Tick("ten", served, due + 1, {}), message)
    redis_client.delete("celery")


def test_a_queue_that_is_no_list_is_the_trouble_of_its_entry_alone(
    make: MakeBeat, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.set("odd", "no list")
    beat = make({"bad": entry(5, options={"queue": "odd"}), "good": entry(5)})
    assert [name for _time, name in play(beat, 11)] == ["good", "good"]
    assert len([record for record in caplog.records if "WRONGTYPE" in record.message]) == 2
    redis_client.delete("odd")


def test_apps_on_one_broker_have_schedules_of_their_own(make: MakeBeat, redis_url: str) -> None:
    one = make({"ten": entry(10)})
    app = App("other", broker=redis_url, set_as_current=False, beat_schedule={"five": entry(5)})
    other = Beat(app, clock=ManualClock(START))
    assert [name for _time, name in play(one, 11)] == ["ten"]
    assert [name for _time, name in play(other, 11)] == ["five", "five"]
    assert schedules.apps(one.app.broker) == ["other", "shop"]
    other.close()


# -- nights ------------------------------------------------------------------------------------------------------------

NIGHTS = [
    ("Europe/Berlin", "2026-03-29T00:59+01:00", ["03:00", "03:30", "03:30", "04:00"]),
    ("America/New_York", "2026-03-08T01:59-05:00", ["03:00", "03:30", "03:30", "04:00"]),
    ("Europe/Berlin", "2026-10-25T01:59+02:00", ["02:00", "02:30", "02:30", "02:00", "02:30", "03:00", "03:30"]),
    ("America/New_York", "2026-11-01T00:59-04:00", ["01:00", "01:30", "01:30", "01:00", "01:30", "02:00", "02:30"]),
]


@pytest.mark.parametrize(("zone", "start", "times"), NIGHTS)
def test_the_nights_of_change(make: MakeBeat, zone: str, start: str, times: list[str]) -> None:
    """An entry of each half hour, and one of 2:30 (in New York's autumn 1:30): once in spring, late; once in autumn."""
    hour = 1 if "11-01" in start else 2
    begin = datetime.fromisoformat(start).timestamp()
    entries = {"half": entry(crontab("*/30")), "nightly": entry(crontab(30, hour))}
    beat = make(entries, start=begin, lease_s=1e6, timezone=zone)
    sent = play(beat, 3 * 3600 + 60)
    shown = [datetime.fromtimestamp(time, ZoneInfo(zone)).strftime("%H:%M") for time, _name in sent]
    assert [name for _time, name in sent].count("nightly") == 1
    begun = shown.index(times[0])
    assert shown[begun : begun + len(times)] == times
