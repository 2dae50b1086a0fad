"""The fixture of the tests of Django's admin: a project of one kind, written and migrated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from .django_beat import DjangoProject
from .processes import Spawner


def migrated(kind: type[DjangoProject]) -> Any:
    """The fixture `project` of a module."""

    @pytest.fixture
    def project(
        tmp_path: Path, spawn: Spawner, redis_url: str, redis_client: redis.Redis, wait_for: Callable[..., Any]
    ) -> DjangoProject:
        made = kind(tmp_path / "project", spawn, redis_url, redis_client, wait_for).write()
        made.manage("migrate", "-v", "0")
        return made

    return project
