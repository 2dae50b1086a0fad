"""What the README shows in its first five minutes is done here, word by word."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import documents
from support.processes import Running, Spawner

README = documents.ROOT / "README.md"
OPSQ = Path(sys.executable).parent / "opsq"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README writes."""
    for name, text in documents.files(README).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def block_with(text: str) -> list[list[str]]:
    """The commands of the README's block that holds a text."""
    block = next(block for block in documents.blocks(README, "sh") if text in block)
    return [words for line in block.splitlines() for words in documents.words_after_opsq(line)]


def test_the_first_five_minutes(spawn: Spawner, wait_for: Callable[..., Any], folder: Path) -> None:
    def opsq(*words: str) -> Running:
        return spawn([OPSQ, *words], cwd=folder)

    try:
        for words in block_with("opsq -A tasks up"):
            running = opsq(*words)
            if "-f" in words:
                wait_for(lambda running=running: "sent hello" in running.output(), what="the logs tell what was sent")
                running.process.kill()
            else:
                assert running.wait(60) == 0, running.report()
            if words[:2] == ["run", "task"]:
                assert '"hello"' in running.output()
    finally:
        opsq("down").wait(60)


def test_the_worker_in_the_foreground(
    spawn: Spawner, wait_for: Callable[..., Any], folder: Path, redis_url: str
) -> None:
    environment = {"OPSQ_BROKER_URL": redis_url}
    words = block_with("OPSQ_BROKER_URL=")[0]
    worker = spawn([OPSQ, *words], env=environment, cwd=folder)
    wait_for(lambda: " ready." in worker.output(), what="the worker is ready")
    user = spawn([sys.executable, "user.py"], env={**environment, "PYTHONPATH": os.curdir}, cwd=folder)
    assert user.wait(20) == 0, user.report()
    assert user.output() == "666\n"
    wait_for(lambda: "succeeded in" in worker.output(), what="the worker tells that the task has ended")
    lines = [line for line in worker.output().splitlines() if "tasks.send[" in line]
    assert [word for line in lines for word in ("received", "sent 666", "succeeded") if word in line] == [
        *("received", "sent 666", "succeeded")
    ]
    assert worker.stop() == 0
