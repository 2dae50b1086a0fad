"""Arguments and the parameters of a task's function: whether they fit, as cheaply as a call of it; their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
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


def parameters_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The parameters of a function; None of a built-in one that does not tell."""
    try:
        return inspect.signature(function)
    except ValueError:
        return None


def by_name(parameters: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names, with defaults. Raises TypeError when they do not fit."""
    bound = parameters.bind(*args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if parameters.parameters[name].kind is _KINDS.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


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
