"""A worker in a thread of the test's own process."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opsq import signals
from opsq.app.base import App
from opsq.contrib.testing import tasks
from opsq.exceptions import UsageError
from opsq.result.waiting import allow_join_result
from opsq.utils.nodenames import default_nodename
from opsq.worker.alone import Alone
from opsq.worker.assemble import Wishes, equip

test_worker_starting = signals.Signal(name="test_worker_starting")
test_worker_started = signals.Signal(("worker",), name="test_worker_started")
test_worker_stopped = signals.Signal(("worker",), name="test_worker_stopped")


class TestWorker(Alone):
    """What `start_worker` yields."""

    __test__ = False

    def reload(self, *_modules: Any, **_options: Any) -> None:
        """Tasks that were defined since it has started are known to it already."""


def setup_app_for_worker(app: App, loglevel: Any = None, logfile: Any = None) -> None:  # noqa: ARG001
    """Make it the current app of all threads, with all its tasks."""
    app.finalize()
    app.set_current()
    app.set_default()


@contextmanager
def start_worker(
    app: App,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: Any = None,
    logfile: Any = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    *,
    hostname: str | None = None,
    queues: Any = (),
    without_heartbeat: bool = True,
    **_options: Any,
) -> Iterator[TestWorker]:
    """Run a worker in a thread until the context ends; times in seconds.

    Whatever pool is named, tasks run in threads of this process, `concurrency` at once. With `perform_ping_check` it is
    ready to run a task; that needs a result backend. Options of Celery's that it does not know have no effect.
    """
    test_worker_starting.send(app)
    setup_app_for_worker(app, loglevel, logfile)
    worker = TestWorker(app, default_nodename(hostname or f"test{os.getpid()}-{threading.get_ident()}@%h"))
    wishes = Wishes(
        queues=queues.split(",") if isinstance(queues, str) else list(queues or ()),
        concurrency=1 if pool == "solo" else concurrency,
        pool="threads",
        heartbeat_s=0 if without_heartbeat else None,
    )
    with tempfile.TemporaryDirectory(prefix="opsq-test-") as folder:
        equip(worker, wishes, Path(folder), None)
        try:
            with _running(worker, shutdown_timeout):
                test_worker_started.send(app, worker=worker)
                if perform_ping_check:
                    with allow_join_result():
                        answer = tasks.ping.apply_async(queue=worker.plan.setup.queues[0]).get(
                            timeout=ping_task_timeout
                        )
                    assert answer == "pong"
                yield worker
        finally:
            test_worker_stopped.send(app, worker=worker)


@contextmanager
def _running(worker: TestWorker, shutdown_timeout: float) -> Iterator[None]:
    ready, trouble = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            worker.run(ready.set)
        except BaseException as error:  # told to the test
            trouble.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="opsq-test-worker", daemon=True)
    thread.start()
    ready.wait()
    if trouble:
        raise UsageError("the worker of this test did not start", why=str(trouble[0])) from trouble[0]
    try:
        yield
    finally:
        worker.stop()
        thread.join(shutdown_timeout)
        if thread.is_alive():
            raise RuntimeError(
                "Worker thread failed to exit within the allocated timeout. Consider raising `shutdown_timeout` "
                "if your tasks take longer to execute."
            )
