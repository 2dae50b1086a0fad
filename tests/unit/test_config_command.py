"""`opsq config`: what is set, to what, and by whom."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from opsq.app.masking import masked
from opsq.config.names import BY_NAME

TASKS = """
from opsq import Celery
app = Celery("shown", broker="redis://me:hunter2@localhost/0")
app.conf.update(
    task_acks_late=True, worker_lost_wait=3.5, redis_password="hunter3", MY_OWN=1,
    broker_transport_options={"visibility_timeout": 9, "sentinel_kwargs": {"password": "hunter4"}},
)
"""


@pytest.fixture
def config(tmp_path: Path, spawn: Any, opsq_argv: list[str]) -> Any:
    (tmp_path / "shown_tasks.py").write_text(TASKS)
    (tmp_path / "opsq.toml").write_text('app = "shown_tasks"\ntask_time_limit = 30\n')

    def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [*opsq_argv, "config", *argv]
        environment = spawn.environment(env)
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_shows_what_is_not_the_default_and_who_set_it(config: Any, tmp_path: Path) -> None:
    done = config("--json", OPSQ_RESULT_BACKEND="redis://:hunter5@localhost/1")
    rows = {row.pop("name"): row for row in json.loads(done.stdout)["settings"]}
    assert rows == {
        "broker_transport_options": {
            "value": {"visibility_timeout": 9, "sentinel_kwargs": {"password": "********"}},
            "source": "set in code",
            "standing": "works",
            "why": None,
        },
        "broker_url": {"value": "redis://me:**@localhost/0", "source": "App(...)", "standing": "works", "why": None},
        "redis_password": {"value": "********", "source": "set in code", "standing": "works", "why": None},
        "result_backend": {
            "value": "redis://:**@localhost/1",
            "source": "environment OPSQ_RESULT_BACKEND",
            "standing": "works",
            "why": None,
        },
        "task_acks_late": {"value": True, "source": "set in code", "standing": "works", "why": None},
        "task_time_limit": {"value": 30, "source": str(tmp_path / "opsq.toml"), "standing": "works", "why": None},
        "worker_lost_wait": {
            "value": 3.5,
            "source": "set in code",
            "standing": "no effect",
            "why": "what a lost child ran is read from its slot, at once",
        },
    }
    assert "hunter" not in config().stdout


def test_shows_all_settings_or_those_that_are_named(config: Any) -> None:
    rows = json.loads(config("--all", "--json").stdout)["settings"]
    assert len(rows) == len(BY_NAME)
    assert {"name": "task_serializer", "value": "json", "source": "default", "standing": "works", "why": None} in rows
    named = config("CELERY_ACKS_LATE", "task_acks_late", "task_serializer", "--plain").stdout.splitlines()
    assert [line.split()[:2] for line in named] == [
        ["SETTING", "VALUE"],
        ["task_acks_late", "True"],
        ["task_serializer", "json"],
    ]


def test_a_flag_is_a_source(config: Any) -> None:
    assert "redis://flag/3  --broker" in config("broker_url", "-b", "redis://flag/3").stdout


def test_an_unknown_setting_is_exit_2_with_the_nearest_names(config: Any) -> None:
    done = config("broker_ulr")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no setting 'broker_ulr'" in done.stderr
    assert "did you mean broker_url" in done.stderr


def test_help_begins_with_examples(config: Any) -> None:
    assert config("--help").stdout.startswith("Examples:\n  opsq -A proj config\n")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("security_key_password", b"x", "********"),
        ("redis_password", None, None),
        ("broker_url", "redis://h/0;redis://:p@h/1", "redis://h/0;redis://:**@h/1"),
        ("broker_url", ["redis://:p@h/1"], ["redis://:**@h/1"]),
        ("task_routes", {"a": {"queue": "b"}}, {"a": {"queue": "b"}}),
        ("s3_secret_access_key", "x", "********"),
    ],
)
def test_secrets_are_hidden(name: str, value: Any, shown: Any) -> None:
    assert masked(name, value) == shown
