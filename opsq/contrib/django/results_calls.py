"""The call that a row of the results tells of, to be sent again: its arguments were kept as Python shows them."""

from __future__ import annotations

import ast
from typing import Any

from opsq.contrib.django.results_models import TaskResult
from opsq.contrib.django.results_rows import Rows
from opsq.exceptions import OpsqError, UsageError

#: Longer texts are cut off by whoever sends (Celery and opsq: 1024); those end about there.
CUT_FROM = 1000


def call_of(rows: Rows, row: TaskResult) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Name and arguments of the call. Raises UsageError when the row does not say them, or not all of them."""
    if not row.task_name:
        raise UsageError("its row does not say which task it was", hint="set CELERY_RESULT_EXTENDED = True")
    args, kwargs = _argument(rows, row, "task_args"), _argument(rows, row, "task_kwargs")
    if not isinstance(args, tuple | list):
        raise UsageError(f"its arguments are no list: {args!r}")
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise UsageError(f"its named arguments are no names and values: {kwargs!r}")
    return row.task_name, tuple(args), kwargs


def _argument(rows: Rows, row: TaskResult, column: str) -> Any:
    content = getattr(row, column)
    if content is None:
        raise UsageError("its row does not say its arguments", hint="set CELERY_RESULT_EXTENDED = True")
    try:
        told = rows.value_of(row, content)
    except OpsqError:
        told = content
    if not isinstance(told, str):
        return told
    if len(told) >= CUT_FROM and "..." in told:
        raise UsageError("its arguments are too long: the row has only their beginning")
    try:
        found = ast.literal_eval(told)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise UsageError(f"its arguments cannot be read back: {told[:100]}") from None
    if _has_gap(found):
        raise UsageError(f"its arguments are nested too deep, the row leaves some out: {told[:100]}")
    return found


def _has_gap(value: Any) -> bool:
    """Whether something was left out (`...`)."""
    if isinstance(value, dict):
        return any(_has_gap(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(_has_gap(each) for each in value)
    return value is ...
