"""Whatever a program imports from Celery is in opsq under the same name, or stands in a table with the reason."""

from __future__ import annotations

import importlib
import inspect
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support import celery_names, documents

import opsq.exceptions
import opsq.schedules
from opsq import App
from opsq.app.absent import ABSENT
from opsq.cli.codemod import names
from opsq.execution.context import DEFAULTS

STORED: dict[str, Any] = json.loads((Path(__file__).parent / "celery-5.7.json").read_text())

_TRACER = "it is of Celery's tracer"
#: Members of classes that are not there, and why; of the app `opsq/app/absent.py` has them.
MEMBERS = {
    "Task": {
        "Strategy": "a worker of opsq has no strategies",
        "add_around": _TRACER,
        "annotate": "task_annotations are put on tasks by the app",
        "from_config": "attributes follow the settings by themselves",
        "request_stack": "task.push_request and pop_request",
        "start_strategy": "a worker of opsq has no strategies",
    },
    "Signature": {"election": "workers of opsq hold no elections"},
    "AsyncResult": {"supports_native_join": "all results do", "throw": "it is of Celery's promises"},
    "EagerResult": {"supports_native_join": "all results do", "throw": "it is of Celery's promises"},
    "Control": {"Mailbox": "it is kombu's class"},
    "crontab": {"remaining_delta": "remaining_estimate and is_due tell it"},
    "solar": {"max_search_days": "the search has no end that is set"},
    "Context": {"taskset": "it is the group's id of Celery 2"},
}


def instances() -> dict[str, Any]:
    """One object of each class, since some members are made with it."""
    app = App("t", broker="redis://", backend="redis://", set_as_current=False)
    task = app.task(lambda: None, name="t.t")
    result = app.AsyncResult("an-id")
    return {
        "App": app,
        "Task": task,
        "Signature": task.s(),
        "AsyncResult": result,
        "EagerResult": task.apply(),
        "GroupResult": app.GroupResult("a-group", [result]),
        "ResultSet": app.ResultSet([result]),
        "Control": app.control,
        "Inspect": app.control.inspect(),
        "crontab": opsq.schedules.crontab(),
        "schedule": opsq.schedules.schedule(5, app=app),
        "solar": opsq.schedules.solar("sunset", 52, 13),
        "Context": task.request,
    }


@pytest.mark.parametrize("module", STORED["modules"])
def test_each_name_of_a_module_has_a_place_or_a_reason(module: str) -> None:
    lost = [
        name
        for name in STORED["modules"][module]
        if names.home_of(module, name) is None and names.reason(module, name) == "opsq has no such name"
    ]
    assert not lost


def test_a_reason_is_given_only_for_what_is_not_there() -> None:
    for key in names.REASONS:
        module, _, name = key.partition(":")
        own = names.own_path(module)
        if not name or not own or not names.module_is_there(module) or "which says" in names.REASONS[key]:
            continue
        assert not hasattr(importlib.import_module(own), name), f"{key} is there"


def test_each_place_is_there_unless_it_is_kombus_own() -> None:
    for key, place in names.ELSEWHERE.items():
        module, _, name = place.partition(":")
        if key.startswith("celery"):
            assert hasattr(importlib.import_module(module), name), key


@pytest.mark.parametrize("kind", STORED["members"])
def test_each_member_of_a_class_is_there_or_has_a_reason(kind: str) -> None:
    found, reasons = instances()[kind], ABSENT if kind == "App" else MEMBERS.get(kind, {})
    there = {*dir(found), *(DEFAULTS if kind == "Context" else ())}
    stale = {name for name, reason in reasons.items() if name in there and reason != "it is not there yet"}
    assert not set(STORED["members"][kind]) - there - reasons.keys()
    assert not stale


def test_the_app_says_what_to_use_instead() -> None:
    with pytest.raises(AttributeError, match="no 'steps': the worker is not made of steps"):
        _ = App(set_as_current=False).steps
    with pytest.raises(AttributeError, match="'App' object has no attribute 'nothing'"):
        _ = App(set_as_current=False).nothing


#: Bases that opsq's errors have besides Celery's, and names of Celery's that are not there.
_ROOT = {"CeleryError": "OpsqError", "KombuError": "OpsqError"}
_NOT_THERE = {"CeleryCommandException", "ClickException", "RetryTaskError", "SystemTerminate"}


@pytest.mark.parametrize("name", sorted(STORED["errors"].keys() - _NOT_THERE))
def test_an_error_has_the_bases_that_it_has_in_celery(name: str) -> None:
    error = getattr(opsq.exceptions, name)
    mine = [base.__name__ for base in inspect.getmro(error)]
    theirs = [_ROOT.get(base, base) for base in STORED["errors"][name]]
    assert [base for base in mine if base in theirs] == theirs
    assert "TaskError" in theirs or "TaskError" not in mine or name == "TaskError"


def test_names_that_tutorials_import() -> None:
    from opsq import Celery, Task, chain, chord, current_app, current_task, group, shared_task, signature
    from opsq.app.task import Context
    from opsq.contrib.abortable import AbortableTask
    from opsq.exceptions import MaxRetriesExceededError, Retry, SoftTimeLimitExceeded
    from opsq.result import AsyncResult, EagerResult, GroupResult, ResultSet, allow_join_result
    from opsq.schedules import crontab, solar, timedelta
    from opsq.utils import gen_unique_id, uuid
    from opsq.utils.log import get_logger, get_task_logger

    assert len({uuid(), gen_unique_id()}) == 2
    assert get_task_logger("a").parent is not get_logger("b").parent
    assert all((timedelta(days=1), crontab(), solar))
    assert issubclass(AbortableTask, Task)
    assert all((AsyncResult, EagerResult, GroupResult, ResultSet, allow_join_result, Context, Celery))
    assert all((MaxRetriesExceededError, Retry, SoftTimeLimitExceeded, chain, chord, group, signature, shared_task))
    assert current_app is not None
    assert current_task is not None


def test_the_stored_names_cover_what_is_asked_for() -> None:
    assert set(STORED["modules"]) == set(celery_names.MODULES)
    assert set(STORED["members"]) == set(celery_names.CLASSES)


def test_celerys_extras_for_redis_are_there_and_bring_nothing() -> None:
    extras = tomllib.loads((documents.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert (extras["redis"], extras["msgpack"]) == ([], [])
