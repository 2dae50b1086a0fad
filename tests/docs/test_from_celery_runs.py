"""The program of docs/from-celery.md runs under the command lines that stand there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import documents
from support.processes import Spawner

DOCUMENT = documents.ROOT / "docs" / "from-celery.md"
OPSQ = Path(sys.executable).parent / "opsq"
WORKERS = [words for words in documents.commands(DOCUMENT) if "worker" in words and "shop" in words]


@pytest.mark.parametrize("words", WORKERS, ids=" ".join)
def test_the_program_runs(
    words: list[str], spawn: Spawner, wait_for: Callable[..., Any], tmp_path: Path, redis_url: str
) -> None:
    for name, text in documents.files(DOCUMENT).items():
        (tmp_path / name).write_text(text.replace("default_retry_delay=1", "default_retry_delay=0.01"))
    environment = {"OPSQ_BROKER_URL": redis_url}
    worker = spawn([OPSQ, *words], env=environment, cwd=tmp_path)
    wait_for(lambda: " ready." in worker.output(), what="the worker is ready")

    def run(*line: str) -> Any:
        done = spawn([OPSQ, "-A", "shop", "run", "task", *line, "--wait"], env=environment, cwd=tmp_path)
        return done.wait(30), done.output()

    code, text = run("shop.charge", '["o-1", 5]')
    assert (code, json.loads(text.splitlines()[-1])) == (0, {"order": "o-1", "charged": 5})
    code, text = run("shop.charge", '["o-2", -5]')
    assert code == 1
    assert "nothing to charge" in text
    wait_for(lambda: worker.output().count("retry: Retry in") == 3, what="it was tried three times more")
    assert worker.stop() == 0
