"""What a task does while it runs: retry, tell its state, call others. Its messages are run here, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from support.broken_messages import protocol_1

from opsq import App, Task, states
from opsq.execution.outcome import Outcome
from opsq.execution.runner import Runner
from opsq.protocol import envelope

Work = Callable[[], Outcome]


@pytest.fixture
def app(redis_url: str) -> App:
    return App("t", broker=redis_url, backend=redis_url, set_as_current=False)


@pytest.fixture
def work(app: App, redis_client: redis.Redis) -> Work:
    """Run the oldest message, as a worker's child does."""

    def run() -> Outcome:
        raw = redis_client.rpop("celery")
        assert isinstance(raw, bytes)
        return Runner(app.tasks, frozenset({"application/json"}), "h", app.backend.record).run(envelope.parse(raw))

    return run


def due_in(outcome: Outcome) -> float:
    """Seconds until the next try."""
    [follow] = outcome.follows
    assert follow.due_ms is not None
    return follow.due_ms / 1000 - datetime.now(UTC).timestamp()


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({}, 175, 180),
        ({"countdown": 5}, 4, 5),
        ({"eta": datetime(2035, 1, 1, tzinfo=UTC)}, 1e7, 1e9),
    ],
)
def test_a_retry_follows_later(app: App, work: Work, options: dict[str, Any], low: float, high: float) -> None:
    @app.task(bind=True)
    def again(self: Task[..., Any], _x: int) -> None:
        raise self.retry(exc=ValueError("cause"), **options)

    sent = again.delay(1)
    outcome = work()
    assert outcome.state == states.RETRY
    assert low < due_in(outcome) <= high
    headers = envelope.parse(outcome.follows[0].raw).headers
    assert (headers.id, headers.retries, headers.parent_id) == (sent.id, 1, sent.id)
    assert again.max_retries == 3


@pytest.mark.parametrize(("again", "args"), [({}, [7, 2]), ({"args": (8, 3)}, [8, 3])], ids=["the same", "others"])
def test_the_next_try_of_protocol_1_is_one_that_every_worker_counts(
    app: App, work: Work, redis_client: redis.Redis, again: dict[str, Any], args: list[int]
) -> None:
    @app.task(bind=True, name="proj.add", shared=False)
    def add(self: Task[..., Any], _x: int, _y: int) -> None:
        raise self.retry(countdown=60, **again)

    redis_client.lpush("celery", protocol_1("old-1", args=[7, 2]))
    outcome = work()
    headers = json.loads(outcome.follows[0].raw)["headers"]
    assert (headers["task"], headers["id"], headers["retries"]) == ("proj.add", "old-1", 1)
    assert envelope.parse(outcome.follows[0].raw).arguments(frozenset({"application/json"}))[0] == args


def test_a_retry_may_change_arguments_and_options(app: App, work: Work) -> None:
    @app.task(bind=True)
    def again(self: Task[..., Any], x: int, **_more: int) -> None:
        self.retry(
            args=(x + 1,), kwargs={"y": 5}, countdown=0, time_limit=9, headers={"mine": 1}, queue="other", priority=3
        )

    again.delay(1)
    [follow] = work().follows
    message = envelope.parse(follow.raw)
    assert message.arguments(frozenset({"application/json"}))[:2] == ([2], {"y": 5})
    assert (follow.queue, follow.priority, message.headers.timelimit) == ("other", 3, (9, None))
    assert message.everything()["headers"]["mine"] == 1


@pytest.mark.parametrize("limit", [0, 2])
def test_after_the_last_try_the_error_itself_is_the_result(app: App, work: Work, limit: int) -> None:
    @app.task(bind=True, max_retries=5)
    def again(self: Task[..., Any]) -> None:
        self.retry(exc=KeyError("cause"), max_retries=limit)

    again.apply_async(retries=limit)
    outcome = work()
    assert (outcome.state, type(outcome.value)) == (states.FAILURE, KeyError)


def test_without_a_limit_it_is_retried_for_ever(app: App, work: Work) -> None:
    @app.task(bind=True, max_retries=None)
    def again(self: Task[..., Any]) -> None:
        self.retry()

    again.apply_async(retries=1000)
    assert work().state == states.RETRY


def test_a_retry_that_does_not_throw_is_sent_at_once_and_the_run_goes_on(app: App, work: Work) -> None:
    @app.task(bind=True)
    def again(self: Task[..., Any]) -> str:
        if self.request.retries == 0:
            self.retry(countdown=0, throw=False)
        return f"try {self.request.retries}"

    sent = again.delay()
    assert work().value == "try 0"
    second = work()
    assert second.value == "try 1"
    assert sent.id.encode() in second.record if second.record else False


def test_errors_that_are_named_are_retried_by_themselves(app: App, work: Work) -> None:
    @app.task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 1}, retry_backoff=8, retry_jitter=False)
    def fetch() -> None:
        raise ConnectionError("away")

    fetch.delay()
    outcome = work()
    assert outcome.state == states.RETRY
    assert 7 < due_in(outcome) <= 8
    fetch.apply_async(retries=1)
    assert (work().state) == states.FAILURE


def test_the_pause_doubles_with_each_try_up_to_its_most(app: App, work: Work) -> None:
    @app.task(autoretry_for=(OSError,), retry_backoff=8, retry_backoff_max=20, retry_jitter=False, max_retries=None)
    def fetch() -> None:
        raise ConnectionError("away")

    for retries, pause_s in enumerate((8, 16, 20, 20)):
        fetch.apply_async(retries=retries)
        assert pause_s - 1 < due_in(work()) <= pause_s


def test_jitter_spreads_those_that_failed_together(app: App, work: Work) -> None:
    most = 100_000

    @app.task(autoretry_for=(OSError,), retry_backoff=most, retry_backoff_max=most)
    def fetch() -> None:
        raise ConnectionError("away")

    for _ in range(20):
        fetch.delay()
    pauses = sorted(due_in(work()) for _ in range(20))
    assert pauses[0] < most / 2 < pauses[-1] <= most


def test_a_task_tells_its_state(app: App, work: Work) -> None:
    @app.task(bind=True)
    def tell(self: Task[..., Any]) -> None:
        self.update_state(state="PROGRESS", meta={"done": 5})

    sent = tell.delay()
    work()
    assert (sent.state, sent.info) == ("PROGRESS", {"done": 5})


def test_tasks_that_a_task_sends_are_its_children(app: App, work: Work, redis_client: redis.Redis) -> None:
    @app.task(name="child")
    def child() -> None: ...

    @app.task(bind=True)
    def parent(self: Task[..., Any]) -> str:
        child.delay()
        return str(self.request.id)

    @app.task(trail=False)
    def silent() -> None:
        child.delay()

    sent = parent.delay()
    outcome = work()
    message = envelope.parse(redis_client.rpop("celery"))
    assert (message.headers.parent_id, message.headers.root_id) == (sent.id, sent.id)
    assert outcome.record is not None
    assert message.headers.id.encode() in outcome.record
    silent.delay()
    outcome = work()
    assert envelope.parse(redis_client.rpop("celery")).headers.id.encode() not in (outcome.record or b"")


def test_a_call_of_its_own_class_gets_the_workers_request(app: App, work: Work) -> None:
    class Own(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ("own", super().__call__(*args, **kwargs))

    @app.task(base=Own, bind=True)
    def whoami(self: Task[..., Any]) -> Any:
        return self.request.id

    sent = whoami.delay()
    assert work().value == ("own", sent.id)


def test_a_bound_task_that_calls_itself_as_a_function_gets_no_request(app: App, work: Work) -> None:
    @app.task(bind=True)
    def count(self: Task[..., Any], n: int) -> list[bool]:
        return [self.request.called_directly, *(self(n - 1) if n else [])]

    count.delay(2)
    assert work().value == [False, True, True]
