"""Texts that name a logger: they stay, for opsq's loggers are children of Celery's."""

from __future__ import annotations

import ast

_CALLS = ("getLogger", "get_logger", "get_task_logger")


def named(tree: ast.AST) -> set[int]:
    """The ids of the nodes that do: what is in a call of `getLogger`, and what `loggers` of a configuration lists."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in _CALLS:
            found.update(id(each) for each in ast.walk(node))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "loggers" and isinstance(value, ast.Dict):
                    found.update(id(name) for name in value.keys)
    return found


def _called(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
