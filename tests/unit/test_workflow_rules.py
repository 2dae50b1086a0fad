"""What the engine reads of what follows a task."""

from __future__ import annotations

from typing import Any

import pytest

from opsq import App
from opsq.execution.runner import Runner
from opsq.execution.workflow import runs_inline
from opsq.protocol import envelope, writing

app = App("proj", broker="redis://nowhere.invalid", set_as_current=False)


@app.task(name="whoami", bind=True)
def whoami(self: Any) -> Any:
    return self.request.id


@app.task(name="one")
def one(task_id: str) -> None: ...


@app.task(name="three")
def three(request: Any, error: Any, traceback: Any) -> None: ...


@app.task(name="any")
def any_number(*args: Any) -> None: ...


@app.task(name="bound", bind=True)
def bound(self: Any, request: Any, error: Any, traceback: Any) -> None: ...


def test_words_that_nobody_knows_in_what_follows_change_nothing() -> None:
    embed = {**envelope.NO_EMBED, "id": "another", "retries": 7}
    raw = writing.build(task="whoami", id="its-own", args=(), kwargs={}, embed=embed, queue="celery")
    runner = Runner(app.tasks, frozenset({"application/json"}), "here", None, app.following)
    outcome = runner.run(envelope.parse(raw))
    assert (outcome.state, outcome.value, list(outcome.follows)) == ("SUCCESS", "its-own", [])


@pytest.mark.parametrize(
    ("errback", "inline"),
    [
        ({"task": "one"}, False),
        ({"task": "three"}, True),
        ({"task": "any"}, True),
        ({"task": "bound"}, False),
        ({"task": "not.known.here"}, False),
        ({"task": "three", "args": [1, 2]}, False),
        ({"task": "three", "args": [1, 2], "immutable": True}, True),
        ({"task": "celery.chain", "subtask_type": "chain"}, False),
    ],
    ids=str,
)
def test_an_errback_is_called_on_the_spot_if_it_takes_more_than_the_id(errback: dict[str, Any], inline: bool) -> None:
    assert runs_inline(errback, app.tasks) is inline
