"""Settings that change what a program does with its servers: connections, chords, beat, local time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis

from opsq import App, chord
from opsq.app.routes import Routes
from opsq.cli.commands.beat import _prepared
from opsq.config.broker import configured_broker
from opsq.datastore.connection import parse_url
from opsq.exceptions import BrokerError, OperationalError
from opsq.execution.outcome import ChordPart
from opsq.protocol import envelope


def make(url: str, **settings: Any) -> App:
    return App("proj", broker=url, backend=url, set_as_current=False, **settings)


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@contextmanager
def full_server() -> Iterator[str]:
    """The URL of a server that is there and takes no more connections."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as server, closing(socket.socket()) as first:
        first.connect(server.getsockname())
        with closing(socket.socket()) as second:
            second.setblocking(False)
            second.connect_ex(server.getsockname())
            yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def seconds_of(action: Callable[[], Any], *errors: type[Exception]) -> float:
    """How long it takes to fail."""
    begin = time.monotonic()
    with pytest.raises(errors):
        action()
    return time.monotonic() - begin


def test_a_connection_to_the_broker_is_waited_for_as_long_as_is_said() -> None:
    with full_server() as url:
        app = App("proj", broker=url, broker_connection_timeout=0.2, task_publish_retry=False, set_as_current=False)
        assert seconds_of(lambda: app.send_task("x"), OperationalError) < 3.5


def test_a_connection_to_the_results_and_its_answers_are_waited_for_as_long_as_is_said(redis_url: str) -> None:
    with full_server() as url:
        app = App("proj", broker=redis_url, backend=url, redis_socket_connect_timeout=0.2, set_as_current=False)
        assert seconds_of(lambda: app.AsyncResult("x").state, BrokerError) < 3.5
    with silent_server() as url:
        app = App("proj", broker=redis_url, backend=url, redis_socket_timeout=0.2, set_as_current=False)
        assert seconds_of(lambda: app.AsyncResult("x").state, BrokerError) < 10


def test_connections_have_the_names_that_are_said(redis_url: str, redis_client: redis.Redis) -> None:
    app = make(redis_url, redis_client_name="my-results", broker_transport_options={"client_name": "my-sender"})
    assert app.AsyncResult("x").state == "PENDING"
    app.send_task("x")
    assert {"my-results", "my-sender"} <= {each["name"] for each in redis_client.client_list()}


def test_a_broker_of_the_oldest_form_has_port_and_user(redis_url: str, redis_client: redis.Redis) -> None:
    where = parse_url(redis_url).arguments
    redis_client.acl_setuser("somebody", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
    app = App("proj", set_as_current=False)
    app.conf.update(BROKER_TRANSPORT="redis", BROKER_HOST=where["host"], BROKER_PORT=where["port"])
    app.conf.update(BROKER_USER="somebody", BROKER_PASSWORD="secret", BROKER_VHOST="0")
    app.send_task("x")
    assert "somebody" in {each["user"] for each in redis_client.client_list()}
    redis_client.acl_deluser("somebody")


def test_manners_of_connections_reach_sockets_and_each_of_several_servers() -> None:
    app = App("proj", broker="redis+socket:///a?virtual_host=2", broker_connection_timeout=7, set_as_current=False)
    assert parse_url(str(configured_broker(app.conf).url)).arguments["socket_connect_timeout"] == 7
    app.conf.broker_url = "redis://a;redis://b?socket_connect_timeout=1"
    assert configured_broker(app.conf).url == "redis://a?socket_connect_timeout=7;redis://b?socket_connect_timeout=1"


def test_the_state_of_a_chord_lives_as_long_as_is_said(redis_url: str, redis_client: redis.Redis) -> None:
    app = make(redis_url, result_chord_expires=70)
    app.task(lambda: None, name="part")
    app.task(lambda values: values, name="body")
    chord([app.tasks["part"].s(), app.tasks["part"].s()], app=app)(app.tasks["body"].s())
    lives = {int(redis_client.ttl(key)) for key in redis_client.scan_iter("*.s")}  # type: ignore[arg-type]
    assert lives
    assert all(60 < seconds <= 70 for seconds in lives)


@pytest.mark.parametrize("wish", [True, False])
def test_the_parts_of_a_chord_get_its_errback_if_wished(redis_url: str, redis_client: redis.Redis, wish: bool) -> None:
    app = make(redis_url, task_allow_error_cb_on_chord_header=wish)
    part, body, told = (app.task(lambda *_args: None, name=name) for name in ("part", "body", "told"))
    flow = chord([part.s()], body.s(), app=app)
    flow.link_error(told.s())
    flow.delay()
    raw: Any = redis_client.lindex("celery", 0)
    _args, _kwargs, embed = envelope.parse(raw).arguments(frozenset({"application/json"}))
    assert [each["task"] for each in embed["errbacks"] or ()] == (["told"] if wish else [])


@pytest.mark.parametrize(("join_s", "lives_s"), [(60.0, 120), (3.0, 6)])
def test_the_body_of_a_chord_may_take_its_time_to_be_sent(
    redis_url: str, redis_client: redis.Redis, join_s: float, lives_s: int
) -> None:
    chords = make(redis_url, result_chord_join_timeout=join_s).backend.chords
    body = {"task": "body", "args": [], "kwargs": {}, "options": {"task_id": "body"}, "subtask_type": None}
    chords.set_size("g", 1, body)
    part = ChordPart("g", "t", 0, chords.member("t", "SUCCESS", 1), body, "root")
    assert chords.count([chords.part(part)]) == ["g"]
    assert lives_s // 2 < int(redis_client.ttl("celery-taskset-meta-g.c")) <= lives_s  # type: ignore[arg-type]


def test_beat_sleeps_no_longer_than_is_said(redis_url: str) -> None:
    for wish, longest_s in ((0, 0.5), (0.25, 0.25)):
        beat = _prepared(make(redis_url, beat_max_loop_interval=wish), None, "Scheduler")
        beat.step()
        assert (beat.step() > longest_s) == (not wish)
        beat.close()


def test_local_time_without_utc(redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        app = make(redis_url, enable_utc=False)
        app.send_task("x", eta=datetime(2100, 1, 1, 12))
        raw: Any = redis_client.lindex("celery", 0)
        assert json.loads(raw)["headers"]["eta"] == "2100-01-01T12:00:00"
        assert app.now().utcoffset() == timedelta(hours=9)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_exchange_of_another_type_is_the_default_queues(redis_url: str) -> None:
    for kind, broadcast in (("direct", False), ("fanout", True)):
        settings = make(redis_url, task_default_exchange_type=kind).conf
        assert Routes(settings).declared.find("celery").is_broadcast == broadcast


def test_results_of_eager_tasks_are_stored_if_wished(redis_url: str) -> None:
    for wish in (True, False):
        app = make(redis_url, task_always_eager=True, task_store_eager_result=wish)
        task_id = app.task(lambda: 3, name="three").delay().id
        assert app.AsyncResult(task_id).state == ("SUCCESS" if wish else "PENDING")


def test_a_task_may_say_by_itself_that_its_eager_results_are_stored(redis_url: str) -> None:
    app = make(redis_url, task_always_eager=True)
    wishing = app.task(lambda: 3, name="wishing", store_eager_result=True)
    silent = app.task(lambda: 3, name="silent")
    assert app.AsyncResult(wishing.delay().id).state == "SUCCESS"
    assert app.AsyncResult(silent.delay().id).state == "PENDING"
