"""What the tests with real workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import worker_project
from support.processes import Spawner
from support.supervised import Supervised
from support.worker_project import Project


@pytest.fixture
def project(tmp_path: Path, spawn: Spawner, redis_url: str) -> Project:
    """A project of its own on an empty Redis."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(worker_project.write(folder), spawn, redis_url)


@pytest.fixture
def shop(tmp_path: Path, spawn: Spawner, wait_for: Callable[..., Any]) -> Iterator[Supervised]:
    """A folder for `opsq up`, outside of any project; what it leaves running ends with the test."""
    folder = tmp_path / "shop"
    folder.mkdir()
    supervised = Supervised(folder, spawn, wait_for)
    yield supervised
    supervised.end()
