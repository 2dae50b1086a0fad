"""The static checks, so that one run of pytest is the whole check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("ruff format --check .", id="the code is formatted"),
        pytest.param("ruff check .", id="the linter finds nothing"),
        pytest.param("mypy", id="all types are right"),
        pytest.param("lint-imports --no-cache", id="imports point down the floors only"),
    ],
)
def test_static_check(command: str) -> None:
    program, *options = command.split()
    done = subprocess.run(
        [BIN / program, *options], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
