"""Tasks that do to their process what no task should: it is settled as promised, and the worker goes on and stops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

TASKS = """
import ctypes
import signal


def note(what, text):
    # Opened each time: one of them closes what it finds open.
    file = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{what}|{text}|{os.getpid()}|{time.time()}\\n".encode())
    os.close(file)


@app.task(acks_late=True)
def hold(text):
    note("begin", text)
    ctypes.PyDLL(None).usleep(2_500_000)
    note("end", text)


@app.task(acks_late=True)
def fork(text):
    note("begin", text)
    if not os.fork():
        time.sleep(1)
        os._exit(0)
    note("end", text)


@app.task(acks_late=True)
def close_all(text):
    note("begin", text)
    os.closerange(3, 4096)
    note("end", text)


@app.task(acks_late=True)
def change_handlers(text, how):
    note("begin", text)
    how = getattr(signal, how)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, how)
    note("end", text)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as opened:
        yield opened


@pytest.mark.parametrize(
    ("task", "args"),
    [
        ("hold", ()),
        ("fork", ()),
        ("close_all", ()),
        ("change_handlers", ("SIG_IGN",)),
        ("change_handlers", ("SIG_DFL",)),
    ],
    ids=["holds the interpreter", "forks", "closes all descriptors", "ignores all signals", "lets signals kill"],
)
def test_a_rude_task(lab: Lab, task: str, args: tuple[str, ...]) -> None:
    """Two children: one waits at the broker, the other for its lock; both have been through such a task."""
    worker = lab.worker("-c", "2", "--lease", "1")
    texts = [f"{task} {args} {number}" for number in range(4)]
    ids = [lab.send(task, text, *args) for text in texts]
    for task_id, text in zip(ids, texts, strict=True):
        lab.wait_mark("end", text, 20)
        lab.result(task_id, timeout=20)
    assert lab.run("add", 1, 2) == 3
    assert worker.stop(timeout=10) == 0
    assert lab.is_quiet()
    if task != "close_all":  # its process ends after it, and what had ended may run again
        assert [len(lab.written("begin", text)) for text in texts] == [1] * 4
