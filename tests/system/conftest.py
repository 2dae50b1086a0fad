"""What the tests with real workers share."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import worker_project
from support.processes import Spawner
from support.worker_project import Project


@pytest.fixture
def project(tmp_path: Path, spawn: Spawner, redis_url: str) -> Project:
    """A project of its own on an empty Redis."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(worker_project.write(folder), spawn, redis_url)
