"""What the page about periodic tasks shows is done here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import documents
from support.processes import Spawner

PAGE = documents.ROOT / "docs" / "schedules.md"
OPSQ = Path(sys.executable).parent / "opsq"


def commands(text: str) -> list[list[str]]:
    """The commands of the page's block that holds a text."""
    block = next(block for block in documents.blocks(PAGE, "sh") if text in block)
    return [words for line in block.splitlines() for words in documents.words_after_opsq(line)]


@pytest.mark.parametrize("words", commands("beat -l info")[:2], ids=" ".join)
def test_periodic_tasks(
    words: list[str], spawn: Spawner, wait_for: Callable[..., Any], tmp_path: Path, redis_url: str
) -> None:
    for name, text in documents.files(PAGE).items():
        (tmp_path / name).write_text(text)
    environment = {"OPSQ_BROKER_URL": redis_url}
    running = spawn([OPSQ, *words, "--loglevel", "info"], env=environment, cwd=tmp_path)
    wait_for(lambda: "Sending due task tick (shop.clean)" in running.output(), 20, "the beat ticks")
    assert "left out" not in running.output()

    def opsq(*line: str) -> str:
        done = subprocess.run(
            [OPSQ, *line], cwd=tmp_path, env=spawn.environment(environment), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    shown = {tuple(line): opsq(*line) for line in commands("schedule next 20")} if "beat" in words else {}
    if shown:
        assert re.search(r"^report on working days +0 8 \* \* mon-fri", shown[("schedule",)], re.MULTILINE)
        assert len(shown[("schedule", "next", "20")].splitlines()) == 21
    assert running.stop() == 0
