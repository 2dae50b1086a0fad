"""`delay` keeps the parameters of the function, for type checkers."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

EXAMPLE = """
from typing import Any
from opsq import App, Celery, Signature, chord, group, shared_task

app = Celery("typed", broker="redis://")

@app.task
def add(x: int, y: int = 1) -> int:
    return x + y

@app.task(bind=True, max_retries=5)
def bound(self: Any, name: str) -> None: ...

@app.task(queue="mail")
def with_options(x: float) -> str:
    return str(x)

@shared_task
def shared(x: int) -> int:
    return x

@shared_task(bind=True)
def shared_bound(self: Any, x: int) -> int:
    return x

number: int = add(1) + add(1, y=2)
add.delay(1, y=2).get()
bound.delay("name")
with_options.delay(1.5)
shared.delay(1)
shared_bound.delay(x=1)
add.apply_async((1,), countdown=3)
flow: Signature = add.s(1).set(queue="mail")
header: group = group(add.s(1), add.si(2, 3))
whole: chord = chord(header, with_options.s())
(flow | add.s(2) | header).delay()
add.chunks([(1, 2)], 10).group().apply_async()
"""

MISTAKES = {
    'add.delay("1")': "arg-type",
    "add.delay()": "call-arg",
    "add.delay(1, z=2)": "call-arg",
    "bound.delay(1)": "arg-type",
    "bound.delay('a', 'b')": "call-arg",
    "with_options.delay('x')": "arg-type",
    "shared.delay('x')": "arg-type",
    "shared_bound.delay('x')": "arg-type",
    "text: str = add(1)": "assignment",
}


@pytest.mark.timeout(300)
def test_delay_takes_what_the_function_takes(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(EXAMPLE + "\n".join(MISTAKES))
    first = EXAMPLE.count("\n") + 1
    output, errors, _code = api.run(["--strict", "--no-error-summary", "--follow-imports=silent", str(file)])
    assert not errors
    found = {
        int(line.split(":")[1]): line.rpartition("[")[2].rstrip("]")
        for line in output.splitlines()
        if ": error:" in line
    }
    assert found == {first + place: code for place, code in enumerate(MISTAKES.values())}, output
