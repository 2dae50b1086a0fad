"""Calls become messages: what is in the list after `delay`, `apply_async` and `send_task`, field by field."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from opsq import App, _state, signals
from opsq.exceptions import OperationalError, QueueNotFound
from opsq.execution.context import Context
from opsq.protocol.delivery_tag import new_delivery_tag
from opsq.utils.ids import new_task_id

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def app(redis_url: str) -> App:
    return App("t", broker=redis_url, set_as_current=False)


@pytest.fixture
def add(app: App) -> Any:
    @app.task(name="t.add", typing=False)
    def add(*args: Any, **kwargs: Any) -> Any: ...

    return add


@pytest.fixture
def take(redis_client: redis.Redis) -> Any:
    """Take the oldest message of a list, with its body decoded."""

    def take(queue: str = "celery") -> dict[str, Any]:
        raw = redis_client.rpop(queue)
        assert raw is not None, f"nothing in {queue!r}; there is {redis_client.keys('*')}"
        message: dict[str, Any] = json.loads(raw)
        message["body"] = json.loads(base64.b64decode(message["body"]))
        return message

    return take


def in_a_task(**request: Any) -> Iterator[Context]:
    task = SimpleNamespace(trail=True, name="parent", add_trail=lambda result: children.append(result))
    children: list[Any] = []
    context = Context(task_object=task, called_directly=False, **request)
    token = _state.push_request(context)
    yield context
    _state.pop_request(token)


def test_a_plain_call_is_the_message_that_celery_writes(add: Any, take: Any) -> None:
    result = add.delay(1, y="ü")
    message = take()
    host = os.uname().nodename
    assert message["body"] == [[1], {"y": "ü"}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    assert message["headers"] == {
        "lang": "py",
        "task": "t.add",
        "id": result.id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": result.id,
        "parent_id": None,
        "argsrepr": "(1,)",
        "kwargsrepr": "{'y': 'ü'}",
        "origin": f"gen{os.getpid()}@{host}",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    properties = message["properties"]
    assert UUID.fullmatch(properties.pop("delivery_tag"))
    assert UUID.fullmatch(properties.pop("reply_to"))
    assert properties == {
        "correlation_id": result.id,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
    }
    assert (message["content-type"], message["content-encoding"]) == ("application/json", "utf-8")


def test_ids_are_random_uuids_of_version_4() -> None:
    ids = {new_task_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(UUID.fullmatch(each) and each[14] == "4" and each[19] in "89ab" for each in ids)


def test_tags_made_after_a_fork_are_others_than_the_parents() -> None:
    readers = []
    for _ in range(2):
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                os.write(writer, "".join(new_delivery_tag()[14:] for _ in range(5)).encode())
            finally:
                os._exit(0)
        os.wait()
        readers.append(os.read(reader, 1000))
        for end in (reader, writer):
            os.close(end)
    ours = "".join(new_delivery_tag()[14:] for _ in range(5)).encode()
    assert len({ours, *readers}) == 3


def test_calls_of_one_kind_say_each_what_they_were_given(add: Any, take: Any) -> None:
    alike = {"queue": "q", "priority": 0, "shadow": "100 %b", "reply_to": "r"}
    for number in range(3):
        ids = {"group_id": f"g{number}", "group_index": number, "root_id": 'r"oot', "parent_id": f"p{number}"}
        add.apply_async((number,), task_id=f"id{number}", **alike, **ids)
        add.apply_async((number,), task_id=f"single{number}", **alike)
    for number in range(3):
        headers = take("q")["headers"]
        assert (headers["group"], headers["group_index"]) == (f"g{number}", number)
        assert (headers["root_id"], headers["parent_id"], headers["shadow"]) == ('r"oot', f"p{number}", "100 %b")
        headers = take("q")["headers"]
        assert (headers["id"], headers["root_id"]) == (f"single{number}", f"single{number}")
        assert (headers["group"], headers["group_index"], headers["parent_id"]) == (None, None, None)


def test_options_of_a_call_stand_in_its_message(add: Any, take: Any) -> None:
    add.apply_async(
        (1,),
        task_id="my-id",
        shadow="other name",
        time_limit=30,
        soft_time_limit=20,
        ignore_result=True,
        headers={"x-mine": 1},
        priority=6,
        group_id="g",
        group_index=2,
        root_id="r",
        parent_id="p",
        retries=3,
        link={"task": "cb"},
        link_error=[{"task": "eb"}],
        my_own="kept",
        delivery_mode=1,
    )
    message = take("celery\x06\x166")
    wanted = {"id": "my-id", "shadow": "other name", "timelimit": [30, 20], "ignore_result": True, "x-mine": 1}
    wanted |= {"group": "g", "group_index": 2, "root_id": "r", "parent_id": "p", "retries": 3}
    assert {name: message["headers"][name] for name in wanted} == wanted
    assert message["body"][2] == {
        "callbacks": [{"task": "cb"}],
        "errbacks": [{"task": "eb"}],
        "chain": None,
        "chord": None,
    }
    assert (message["properties"]["priority"], message["properties"]["my_own"]) == (6, "kept")


def test_long_arguments_are_cut_in_what_is_shown(add: Any, take: Any) -> None:
    add.delay("x" * 5000)
    headers = take()["headers"]
    assert len(headers["argsrepr"]) == 1024
    assert headers["argsrepr"].endswith("...")


def test_a_task_says_itself_how_it_is_called(app: App, take: Any) -> None:
    @app.task(name="t.own", queue="own", priority=9, time_limit=5, ignore_result=True, serializer="json", expires=60)
    def own() -> None: ...

    assert own.delay().ignored
    for send in (own.delay, lambda: app.send_task("t.own")):
        send()
    messages = [take("own\x06\x169") for _ in range(3)]
    for message in messages:
        assert message["headers"]["timelimit"] == [5, None]
        assert message["headers"]["ignore_result"] is True
    assert len({message["headers"]["expires"] for message in messages}) == 3
    own.apply_async(queue="elsewhere", priority=0, expires=None)
    assert take("elsewhere")["headers"]["expires"] is None


def test_settings_may_change_between_two_calls(app: App, add: Any, take: Any) -> None:
    add.delay()
    assert take()["headers"]["timelimit"] == [None, None]
    app.conf.update(task_default_queue="new", task_time_limit=7)
    add.delay()
    assert take("new")["headers"]["timelimit"] == [7, None]


def test_a_countdown_is_an_eta_in_the_apps_time_zone(app: App, add: Any, take: Any) -> None:
    app.conf.timezone = "Asia/Tokyo"
    add.apply_async(countdown=60)
    eta = datetime.fromisoformat(take()["headers"]["eta"])
    assert eta.utcoffset() == timedelta(hours=9)
    assert 55 < (eta - datetime.now(UTC)).total_seconds() <= 60


def test_an_eta_may_be_a_time_or_a_text(add: Any, take: Any) -> None:
    add.apply_async(eta=datetime(2030, 1, 2, tzinfo=UTC))
    add.apply_async(eta="2030-01-02T00:00:00+00:00")
    assert take()["headers"]["eta"] == take()["headers"]["eta"] == "2030-01-02T00:00:00+00:00"


@pytest.mark.parametrize("option", ["eta", "expires"])
def test_what_is_no_point_in_time_is_refused_by_name(add: Any, option: str) -> None:
    with pytest.raises(TypeError, match=f"{option} is a datetime or its ISO text, not a timedelta"):
        add.apply_async(**{option: timedelta(seconds=3)})


def test_a_call_for_later_waits_in_redis_if_opsq_consumes_the_queue(add: Any, redis_client: redis.Redis) -> None:
    far = 2**53
    redis_client.zadd("opsq:consumers:{celery}", {"somebody": far})
    add.apply_async(eta=datetime(2030, 1, 2, tzinfo=UTC))
    assert redis_client.llen("celery") == 0
    [(member, due_ms)] = redis_client.zrange("opsq:delayed:{celery}", 0, -1, withscores=True)
    assert due_ms == datetime(2030, 1, 2, tzinfo=UTC).timestamp() * 1000
    assert member.startswith(b"|{")


@pytest.mark.parametrize("form", ["number", "time", "text"])
def test_an_expiry_is_a_time_and_a_number_of_ms(add: Any, take: Any, form: str) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=30)
    expires = {"number": 30, "time": moment, "text": moment.isoformat()}[form]
    add.apply_async(expires=expires)
    message = take()
    left = datetime.fromisoformat(message["headers"]["expires"]) - datetime.now(UTC)
    assert 20 < left.total_seconds() <= 30
    assert 20_000 < int(message["properties"]["expiration"]) <= 30_000


def test_arguments_of_the_wrong_kind_are_refused(add: Any) -> None:
    with pytest.raises(TypeError, match="list or tuple"):
        add.apply_async("abc")
    with pytest.raises(TypeError, match="mapping"):
        add.apply_async((), [1])
    with pytest.raises(ValueError, match="out of range"):
        add.apply_async(countdown=-1e300)


def test_a_task_that_is_not_known_here_can_be_sent(app: App, take: Any) -> None:
    result = app.send_task("elsewhere.do", [1], {"a": 2}, queue="mail")
    message = take("mail")
    assert (message["headers"]["id"], message["headers"]["task"]) == (result.id, "elsewhere.do")
    assert message["body"][:2] == [[1], {"a": 2}]


def test_a_call_in_a_task_knows_its_parent_and_root(add: Any, take: Any) -> None:
    for request in in_a_task(id="parent", root_id="root", delivery_info={"priority": 3}):
        result = add.delay()
        assert request.task_object.add_trail.__closure__[0].cell_contents == [result]
        add.app.conf.task_inherit_parent_priority = True
        add.apply_async(add_to_parent=False)
    assert (take()["headers"]["root_id"]) == "root"
    assert take("celery\x06\x163")["headers"]["parent_id"] == "parent"


def test_a_task_called_as_a_function_is_nobodys_parent(app: App, add: Any, take: Any) -> None:
    @app.task(bind=True)
    def outer(self: Any) -> None:
        assert self.request.called_directly
        add.delay()

    outer()
    assert take()["headers"]["parent_id"] is None


def test_signals_may_change_headers_and_properties(add: Any, take: Any) -> None:
    told: list[Any] = []

    def before(sender: str, body: Any, headers: Any, properties: Any, **more: Any) -> None:
        told.append((sender, body[0], headers["id"], more["routing_key"]))
        headers["trace"] = "abc"
        properties["mine"] = 1

    def after(sender: str, headers: Any, **_more: Any) -> None:
        told.append((sender, headers["trace"]))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        result = add.delay(5)
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    message = take()
    assert told == [("t.add", (5,), result.id, "celery"), ("t.add", "abc")]
    assert (message["headers"]["trace"], message["properties"]["mine"]) == ("abc", 1)
    assert message["headers"]["task"] == "t.add"


def test_a_body_can_be_compressed(add: Any, redis_client: redis.Redis) -> None:
    add.apply_async(("x" * 1000,), compression="zlib")
    message = json.loads(redis_client.rpop("celery"))
    assert message["headers"]["compression"] == "application/x-gzip"
    assert len(message["body"]) < 200


# -- routes -----------------------------------------------------------------------------------------------------------


def by_function(_name: str, args: Any, *_rest: Any, **_more: Any) -> Any:
    return {"queue": "by-function", "priority": 9} if args == (1,) else None


ROUTES: list[tuple[Any, str]] = [
    ({"t.add": "plain"}, "plain"),
    ({"t.add": {"queue": "table"}}, "table"),
    ({"t.*": {"queue": "glob"}, "x.*": "no"}, "glob"),
    ([[("t.a*", {"queue": "pairs"})]], "pairs"),
    (([(re.compile(r"t\.(add|sub)"), "regex")],), "regex"),
    ([{"x.y": "no"}, {"t.add": "second"}], "second"),
    ({"x.y": "no"}, "celery"),
    (lambda name, *_args, **_more: f"q-{name}", "q-t.add"),
]


@pytest.mark.parametrize(("routes", "queue"), ROUTES)
def test_routes_decide_by_name(app: App, add: Any, take: Any, routes: Any, queue: str) -> None:
    app.conf.task_routes = routes
    add.delay()
    add.delay()
    assert take(queue)["properties"]["delivery_info"] == {"exchange": "", "routing_key": queue}
    assert take(queue)


def test_a_route_by_function_sees_the_call_and_may_set_options(app: App, add: Any, take: Any) -> None:
    app.conf.task_routes = (by_function,)
    add.delay(1)
    add.delay(2)
    assert take("by-function\x06\x169")["body"][0] == [1]
    assert take()["body"][0] == [2]


def test_what_the_call_says_wins_over_the_route(app: App, add: Any, take: Any) -> None:
    app.conf.task_routes = {"t.add": {"queue": "table", "priority": 9}}
    add.apply_async(queue="call", priority=0)
    assert take("call")


def test_queues_may_be_objects_as_kombus(app: App, add: Any, take: Any) -> None:
    exchange = SimpleNamespace(name="ex", type="direct")
    app.conf.task_queues = [SimpleNamespace(name="a", exchange=exchange, routing_key="key.a"), {"name": "b"}, "c"]
    app.conf.task_default_queue = "c"
    assert app.queues() == ["a", "b", "c"]
    add.apply_async(exchange="ex", routing_key="key.a")
    assert take("a")["properties"]["delivery_info"] == {"exchange": "ex", "routing_key": "key.a"}
    add.apply_async(queue=app.conf.task_queues[0])
    assert take("a")
    add.delay()
    assert take("c")
    with pytest.raises(QueueNotFound, match="cannot send the task to exchange 'ex' with key 'other'"):
        add.apply_async(exchange="ex", routing_key="other")


def test_a_queue_that_is_not_listed_is_made_up_or_refused(app: App, add: Any, take: Any) -> None:
    app.conf.task_queues = {"a": {"exchange": "ex", "routing_key": "k"}}
    add.apply_async(queue="made-up")
    assert take("made-up")
    app.conf.task_create_missing_queues = False
    with pytest.raises(QueueNotFound, match="missing from task_queues"):
        add.apply_async(queue="another")


# -- the broker -------------------------------------------------------------------------------------------------------


def test_a_broker_that_cannot_be_reached_is_one_clear_error(free_port: Any) -> None:
    app = App("t", broker=f"redis://:secret@127.0.0.1:{free_port()}/0", set_as_current=False)
    with pytest.raises(
        OperationalError, match=r"cannot send the task: cannot reach Redis at .*: connection refused"
    ) as caught:
        app.send_task("x", retry=False)
    assert "secret" not in str(caught.value)
    with pytest.raises(OperationalError):
        app.send_task("x", retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0})


def test_the_environment_names_the_broker(redis_url: str, monkeypatch: pytest.MonkeyPatch, take: Any) -> None:
    monkeypatch.setenv("OPSQ_BROKER_URL", redis_url)
    app = App("t", set_as_current=False)
    app.send_task("x")
    assert take()
    assert app.find_broker().source == "environment OPSQ_BROKER_URL"
    assert app.find_results().url == redis_url


def test_a_global_key_prefix_is_kept(redis_url: str, redis_client: redis.Redis) -> None:
    app = App("t", broker=redis_url, broker_transport_options={"global_keyprefix": "acme:"}, set_as_current=False)
    app.send_task("x")
    assert redis_client.llen("acme:celery") == 1
    redis_client.flushall()


def test_annotations_hold_for_the_first_call_of_a_program_too(app: App, add: Any, take: Any) -> None:
    app.conf.task_annotations = {"*": {"priority": 6}, "t.add": {"queue": "annotated"}}
    add.delay(1)
    assert take("annotated\x06\x166")["properties"]["priority"] == 6
