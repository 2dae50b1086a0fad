"""What the page about workflows shows is done here."""

from __future__ import annotations

import sys
from pathlib import Path

from support import documents
from support.processes import Spawner

PAGE = documents.ROOT / "docs" / "workflows.md"
OPSQ = Path(sys.executable).parent / "opsq"


def test_the_examples_of_workflows(spawn: Spawner, tmp_path: Path, redis_url: str) -> None:
    for name, text in documents.files(PAGE).items():
        (tmp_path / name).write_text(text)
    environment = {"OPSQ_BROKER_URL": redis_url}
    block = next(block for block in documents.blocks(PAGE, "sh") if "worker" in block)
    [words] = [words for line in block.splitlines() for words in documents.words_after_opsq(line)]
    worker = spawn([OPSQ, *words], env=environment, cwd=tmp_path)
    used = spawn([sys.executable, "use.py"], env=environment, cwd=tmp_path)
    assert used.wait(60) == 0, used.report()
    assert "this one fails" in used.output()
    assert worker.stop() == 0
