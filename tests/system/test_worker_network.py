"""Two workers with networks of their own: a cable is pulled for longer than a lease, and put in again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import key_audit, namespaces
from support.namespaces import Network
from support.processes import Running, Spawner

from opsq import App
from opsq.broker import audit

CODE = """
import os
import time

from opsq import Celery

app = Celery("proj")
FOLDER, NODE = os.environ["FOLDER"], os.environ["NODE"]


def held(name):
    open(f"{FOLDER}/begun-{name}-{NODE}", "w").close()
    while not os.path.exists(f"{FOLDER}/go-{name}-{NODE}"):
        time.sleep(0.01)
    return NODE


app.task(held, name="proj.early")
app.task(held, name="proj.late", acks_late=True)


@app.task
def where():
    return NODE
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    try:
        with namespaces.network(tmp_path, ("first", "second")) as made:
            yield made
    except namespaces.NotPossible as error:
        pytest.skip(f"no namespaces can be made here: {error}")


def test_a_worker_that_was_cut_off_writes_over_nobody_and_goes_on_when_it_is_back(
    network: Network, tmp_path: Path, spawn: Spawner, wait_for: Callable[..., Any]
) -> None:
    (tmp_path / "proj.py").write_text(CODE)

    def worker(node: str) -> Running:
        environment = {"FOLDER": str(tmp_path), "NODE": node, "OPSQ_STATE_DIR": str(tmp_path / node)}
        environment |= {"OPSQ_BROKER_URL": namespaces.URL, "PYTHONPATH": str(tmp_path)}
        words = ["worker", "-c", "3", "-l", "info", "--lease", "1.5", "-n", f"{node}@%h"]
        line = [*network.on(node), sys.executable, "-m", "opsq", "-A", "proj", *words]
        running = spawn(line, name=node, env=environment, cwd=tmp_path)
        wait_for(lambda: " ready." in running.output(), 60, f"{node} is ready")
        return running

    def there(*names: str) -> bool:
        return all((tmp_path / name).exists() for name in names)

    def go(*names: str) -> None:
        for name in names:
            (tmp_path / f"go-{name}").touch()

    url = f"redis+socket://{tmp_path}/redis.sock"
    app = App("client", broker=url, backend=url, set_as_current=False)
    first = worker("first")
    early = app.send_task("proj.early", ("early",))
    quick, slow = (app.send_task("proj.late", (name,)) for name in ("quick", "slow"))
    wait_for(lambda: there("begun-early-first", "begun-quick-first", "begun-slow-first"), 20, "all run")
    second = worker("second")
    network.cut("first")
    with network.client() as client:
        wait_for(lambda: there("begun-quick-second", "begun-slow-second"), 30, "the other one takes over")
        wait_for(lambda: client.hlen("opsq:dead:{celery}") == 1, 20, "what may have been started is a dead letter")
        go("quick-second")
        assert quick.get(timeout=20) == "second"
        go("early-first", "quick-first", "slow-first")
        network.join("first")
        assert wait_for(lambda: app.AsyncResult(early.id).state == "SUCCESS", 60, "its true end is told")
        wait_for(lambda: holders(client) == {"second"}, 20, "it has found that the others are not its own any more")
        assert not client.hlen("opsq:dead:{celery}"), "its dead letter is taken back"
        assert app.AsyncResult(quick.id).get() == "second"
        assert not slow.ready()
        go("slow-second")
        assert slow.get(timeout=20) == "second"
        assert second.stop() == 0
        assert app.send_task("proj.where").get(timeout=20) == "first"
        (books,) = audit.balances(app.broker, ["celery"])
        assert (books.missing, books.in_flight) == (0, 0)
        assert first.stop() == 0
        assert not key_audit.problems(client)


def holders(client: Any) -> set[str]:
    """The workers that hold messages."""
    found = [key.decode().partition("}:")[2] for key in client.scan_iter("opsq:inflight:*") if client.hlen(key)]
    return {name.partition("@")[0] for name in found}
