"""The example project of Django and its page say the same, and so does the command that moves such a project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import django_example


def test_the_diff_that_the_page_shows_is_the_whole_difference(tmp_path: Path) -> None:
    before = django_example.original(tmp_path / "celery")
    assert "".join(django_example.differences(before, django_example.FOLDER).values()) == django_example.shown_diff()


def test_the_imports_change_by_the_command_and_it_names_the_rest(tmp_path: Path) -> None:
    before = django_example.original(tmp_path / "celery")
    argv = [sys.executable, "-m", "opsq", "migrate-code", ".", "--write"]
    done = subprocess.run(argv, cwd=before, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    left = django_example.differences(before, django_example.FOLDER)
    assert set(left) == {"proj/settings.py", "requirements.txt"}
    by_hand = [line[1:].strip() for diff in left.values() for line in diff.splitlines() if line.startswith(("-", "+"))]
    told = done.stdout + done.stderr
    assert all(line in told for line in by_hand if "celery" in line and not line.startswith("-")), (by_hand, told)
