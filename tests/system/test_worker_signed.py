"""A worker that demands signatures by the shared key: what is signed runs as ever, all else is a dead letter."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

from opsq import App, chain, chord
from opsq.protocol import shared_key

KEY = "a key that all of the tests share"
TASKS = """
@app.task
def total(values):
    return sum(values)


@app.task(bind=True, default_retry_delay=0.01)
def flaky(self, number):
    if self.request.retries < 2:
        raise self.retry(args=(number + 1,))
    return number


@app.task
def boom(text):
    raise ValueError(text)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "2", "-Q", "safe", OPSQ_SECURITY_SHARED_KEY=KEY)
        yield lab


@pytest.fixture
def signer(lab: Lab) -> Iterator[App]:
    """A program that has the key."""
    app = App("signer", broker=lab.url, backend=lab.url, security_shared_key=KEY, set_as_current=False)
    app.conf.task_default_queue = "safe"
    yield app
    shared_key.use(())


@pytest.mark.parametrize("sent", ["add.apply_async((1, 2), queue='safe')", "add.s(1, 2).apply_async(queue='safe')"])
def test_a_program_signs_its_first_call(lab: Lab, sent: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from proj import add; print({sent}.get(timeout=30))"],
        cwd=lab.folder,
        env={**lab.spawn.environment(lab.environment), "OPSQ_SECURITY_SHARED_KEY": KEY},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "3\n", done


def test_what_is_signed_runs_with_all_that_follows(signer: App) -> None:
    def call(name: str, *args: Any) -> Any:
        return signer.signature(f"proj.{name}", args, queue="safe")

    assert signer.send_task("proj.add", (1, 2)).get(timeout=10) == 3
    assert chain(call("add", 1, 1), call("add", 2), app=signer)().get(timeout=10) == 4
    assert chord([call("add", n, n) for n in range(3)], call("total"), app=signer)().get(timeout=10) == 6
    assert signer.send_task("proj.flaky", (1,)).get(timeout=10) == 3
    with pytest.raises(ValueError, match="told"):
        signer.send_task("proj.boom", ("told",)).get(timeout=10)


def test_a_result_is_signed_and_an_altered_one_is_refused(lab: Lab, signer: App) -> None:
    from opsq.exceptions import DecodeError

    result = signer.send_task("proj.add", (1, 2))
    result.get(timeout=10)
    stored: Any = lab.redis.get(key := f"celery-task-meta-{result.id}")
    lab.redis.set(key, stored.replace(b'"result":3', b'"result":4').replace(b'"result": 3', b'"result": 4'), ex=60)
    assert lab.redis.get(key) != stored
    with pytest.raises(DecodeError, match="its signature is wrong"):
        _ = signer.AsyncResult(result.id).state


def refused(lab: Lab, raw: bytes) -> str:
    """The reason with which a message becomes a dead letter."""
    task_id = json.loads(raw)["headers"]["id"]
    lab.redis.lpush("safe", raw)
    lab.wait_for(lambda: task_id in lab.dead("safe"), "it is a dead letter")
    assert not lab.written("begin")
    return str(lab.dead("safe")[task_id]["reason"])


@pytest.fixture
def message(lab: Lab, signer: App) -> Iterator[dict[str, Any]]:
    """A signed call of `nap` that nobody has taken yet."""
    task_id = signer.send_task("proj.nap", ("never",), queue="elsewhere").id
    raw: Any = lab.redis.rpop("elsewhere")
    yield {**json.loads(raw), "task_id": task_id}
    lab.redis.delete("opsq:dead:{safe}")


def test_an_unsigned_message_is_a_dead_letter(lab: Lab) -> None:
    assert "refusing content of type application/json" in refused(lab, labs.message("nap", labs.new_id(), ("x",)))
    lab.redis.delete("opsq:dead:{safe}")


def test_an_altered_body_is_a_dead_letter(lab: Lab, message: dict[str, Any]) -> None:
    body = base64.b64decode(message["body"]).replace(b"never", b"later")
    altered = {**message, "body": base64.b64encode(body).decode()}
    assert "its signature is wrong" in refused(lab, json.dumps(altered).encode())


def test_the_body_of_another_task_is_a_dead_letter(lab: Lab, message: dict[str, Any]) -> None:
    message["headers"]["task"] = "proj.boom"
    assert "is of another task" in refused(lab, json.dumps(message).encode())


def test_plain_bytes_that_need_not_be_accepted_are_a_dead_letter(lab: Lab, message: dict[str, Any]) -> None:
    body = base64.b64encode(b'[["x"], {}, {}]').decode()
    plain = {**message, "content-type": "application/data", "content-encoding": "utf-8", "body": body}
    assert "cannot read the message's body" in refused(lab, json.dumps(plain).encode())


def test_a_body_that_another_key_has_signed_is_a_dead_letter(lab: Lab) -> None:
    stranger = App("stranger", broker=lab.url, security_shared_key="a key of somebody else's", set_as_current=False)
    try:
        stranger.send_task("proj.nap", ("never",), queue="elsewhere")
    finally:
        shared_key.use(())
    raw: Any = lab.redis.rpop("elsewhere")
    assert "signed with another key" in refused(lab, raw)
    lab.redis.delete("opsq:dead:{safe}")


def test_commands_are_heard_from_those_only_who_have_the_key(lab: Lab, signer: App) -> None:
    assert lab.app.control.ping(timeout=0.3) == []
    assert signer.control.ping(limit=1)
