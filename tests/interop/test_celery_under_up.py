"""A supervisord.conf with the real Celery's commands under `opsq up`: a Celery app is left to Celery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import celery_venv
from support.processes import Spawner
from support.supervised import Supervised

OLD = """
from celery import Celery, __version__

app = Celery("old", broker={url!r}, backend={url!r})


@app.task
def who():
    return f"celery {{__version__}}"
"""
NEW = """
from opsq import Celery

app = Celery("new", broker={url!r}, backend={url!r})


@app.task
def who():
    return "opsq"
"""


@pytest.fixture
def shop(tmp_path: Path, spawn: Spawner, wait_for: Callable[..., Any]) -> Iterator[Supervised]:
    folder = tmp_path / "shop"
    folder.mkdir()
    supervised = Supervised(folder, spawn, wait_for, {"OPSQ_STATE_DIR": str(folder / ".opsq")})
    yield supervised
    supervised.end()


def test_each_app_is_run_by_what_it_is_made_with(shop: Supervised, redis_url: str) -> None:
    (shop.folder / "old.py").write_text(OLD.format(url=redis_url))
    (shop.folder / "new.py").write_text(NEW.format(url=redis_url))
    real = celery_venv.python().parent / "celery"
    (shop.folder / "supervisord.conf").write_text(
        f"[program:old]\ncommand={real} -A old worker -Q old -P solo -l info\nstartsecs=0\n"
        "[program:new]\ncommand=celery worker -A new -Q new -P solo -l info\nstartsecs=0\n"
    )
    shop.opsq("up", "-c", "supervisord.conf")
    old = shop.until("old", 30, runs=f"{real} -A old worker -Q old -P solo -l info")
    new = shop.until("new", 30, runs="opsq worker -A new -Q new -P solo -l info")
    assert old["reason"].startswith("Celery's own: ")
    assert new["reason"].startswith("opsq for: celery worker -A new")
    for name, says in (("old", "celery 5."), ("new", "opsq")):
        task_id = shop.opsq("-A", "new", "call", f"{name}.who", "--queue", name).stdout.strip()
        assert says in shop.opsq("-A", "new", "result", "--timeout", "30", task_id).stdout
    shop.opsq("down")
    assert not shop.leftovers()
