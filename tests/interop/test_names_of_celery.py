"""The names that tests/compat compares with are those that the real Celery has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_the_stored_names_are_celerys(celery_python: Path) -> None:
    script = TESTS / "support" / "celery_names.py"
    done = subprocess.run([celery_python, "-W", "ignore", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads((TESTS / "compat" / "celery-5.7.json").read_text())
