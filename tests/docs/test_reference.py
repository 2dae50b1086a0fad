"""The reference says what the tables in the code say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import ROOT

PAGES = ("settings.md", "reference/commands.md", "reference/keys.md", "reference/names.md", "reference/opsq-toml.md")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as they would be written now, by a process of its own: nothing loaded here shows in them."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "generate.py").write_text((ROOT / "docs" / "generate.py").read_text())
    subprocess.run([sys.executable, folder / "generate.py"], check=True, timeout=60)
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_would_be_written_now(written: Path, name: str) -> None:
    assert sorted(str(page.relative_to(written)) for page in written.rglob("*.md")) == sorted(PAGES)
    stored = (ROOT / "docs" / name).read_text()
    assert stored == (written / name).read_text(), "stale: run python docs/generate.py"
