"""`app.control`, `inspect()` and the table of remote commands have Celery's names, and parameters in its order."""

from __future__ import annotations

import inspect
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from opsq.app.control import Control, Inspect
from opsq.result import AsyncResult
from opsq.worker import control, inspection
from opsq.worker.panel import Panel

ASK = """
import inspect, json
from celery.app.control import Control, Inspect
from celery.result import AsyncResult
from celery.worker.control import Panel

def names(function):
    return [name for name, each in inspect.signature(function).parameters.items()]

def methods(kind):
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: names(function) for name, function in found if not name.startswith("_")}

commands = {
    name: [info.type, info.alias, info.visible, info.signature, [each for each, _ in info.args or []], info.variadic]
    for name, info in Panel.meta.items()
}
result = {name: names(getattr(AsyncResult, name)) for name in ("revoke", "revoke_by_stamped_headers")}
print(json.dumps([methods(Control), methods(Inspect), result, commands]))
"""


@pytest.fixture(scope="module")
def celery(celery_python: Path) -> Any:
    found = subprocess.run([celery_python, "-c", ASK], capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def lacking(theirs: dict[str, list[str]], ours: type) -> list[str]:
    """What of theirs ours does not have, or has with other parameters."""
    found = []
    for name, parameters in theirs.items():
        mine = getattr(ours, name, None)
        if mine is None or [*inspect.signature(mine).parameters][: len(parameters)] != parameters:
            found.append(name)
    return found


def test_control_has_all_of_celerys(celery: Any) -> None:
    assert lacking(celery[0], Control) == []


def test_inspect_has_all_of_celerys(celery: Any) -> None:
    assert lacking(celery[1], Inspect) == []


def test_results_are_revoked_as_celerys_are(celery: Any) -> None:
    assert lacking(celery[2], AsyncResult) == []


def test_workers_know_all_of_celerys_commands(celery: Any) -> None:
    """Those that are not there yet, or never will be, are named here."""
    assert control
    assert inspection
    ours = {
        name: [
            info.type,
            info.alias,
            info.visible,
            info.signature,
            [each for each, _ in info.args or []],
            info.variadic,
        ]
        for name, info in Panel.meta.items()
    }
    missing = celery[3].keys() - ours.keys()
    assert {name: ours[name] for name in celery[3].keys() & ours.keys()} == {
        name: facts for name, facts in celery[3].items() if name in ours
    }
    assert missing <= NOT_HERE


#: What has no meaning here (objgraph: graphs of Celery's own objects).
NOT_HERE = {"objgraph"}
