"""Whether arguments fit a task's function, as cheaply as a call of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_KINDS = inspect.Parameter
_STARS = {int(_KINDS.VAR_POSITIONAL): "*", int(_KINDS.VAR_KEYWORD): "**"}


def argument_check(function: Callable[..., Any], bound: bool) -> Callable[..., None]:
    """A function with the same parameters (without the first if `bound`) that does nothing.

    Calling it raises the TypeError that calling the task would raise: many times cheaper than `Signature.bind`.
    """
    try:
        parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())[1 if bound else 0 :]
    except (TypeError, ValueError):  # built-in functions without a signature
        return lambda *_args, **_kwargs: None
    name = function.__name__ if function.__name__.isidentifier() else "task"
    space: dict[str, Any] = {}
    exec(f"def {name}({_head(parameters)}): pass", space)
    check: Callable[..., None] = space[name]
    return check


def _head(parameters: list[inspect.Parameter]) -> str:
    """The parameters as source text, every default None."""
    parts: list[str] = []
    star = False
    for index, parameter in enumerate(parameters):
        if parameter.kind is _KINDS.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        prefix = _STARS.get(int(parameter.kind), "")
        star = star or prefix == "*"
        parts.append(prefix + parameter.name + ("" if parameter.default is _KINDS.empty else "=None"))
        following = parameters[index + 1].kind if index + 1 < len(parameters) else None
        if parameter.kind is _KINDS.POSITIONAL_ONLY and following is not _KINDS.POSITIONAL_ONLY:
            parts.append("/")
    return ", ".join(parts)
