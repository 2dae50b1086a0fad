"""A turn that Redis refuses while a long task runs: its answer has come and gone, nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab

TASKS = """
@app.task
def locks_out(seconds):
    may = app.broker.client.execute_command
    may("ACL", "SETUSER", "default", "-@scripting")
    time.sleep(seconds)
    may("ACL", "SETUSER", "default", "+@scripting")
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        yield lab


def test_a_child_whose_answer_went_missing_behind_a_long_task_goes_on_after_it(lab: Lab) -> None:
    worker = lab.worker("-c", "1", name="worker")
    lab.run("locks_out", 0)  # its connection is made
    for round_ in range(20):
        lab.push("celery", *[("add", n, 1) for n in range(3000)])  # a child that runs short tasks takes many at once
        lab.wait_for(lab.is_quiet, "they are done")
        lab.push("celery", ("locks_out", 0.3), *[("nap", f"behind-{round_}-{n}") for n in range(3)])
        for n in range(3):
            lab.wait_mark("end", f"behind-{round_}-{n}", 20)
        if "cannot give back what waits behind a long task" in worker.output():
            break
    else:
        pytest.fail("they were always given back before they were locked out")
    assert "no answer in time" not in worker.output()
    assert worker.stop() == 0
