"""What makes two calls of a task the same one: the key of a unique or debounced call."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from opsq.app.signatures import by_name
from opsq.exceptions import EncodeError, ImproperlyConfigured, OpsqError
from opsq.protocol import jsontypes

#: A longer key is replaced by its digest.
LONGEST = 200


def is_unique(task: Any, options: Mapping[str, Any]) -> bool:
    """Whether a call claims something; one that others wait for (group, chord, chain) is sent in any case."""
    return may_claim(task, options) and not any(options.get(name) for name in ("group_id", "chord", "chain"))


def may_claim(task: Any, options: Mapping[str, Any]) -> bool:
    """Whether a call would claim something if nobody waited for it."""
    return bool(options.get("unique_key") or options.get("debounce") or (task is not None and task.unique))


def key_of(name: str, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The key of a call: the task's name, and what its `unique_key` or its task's `unique` makes of the arguments."""
    text = options.get("unique_key") or _made_by(_rule(task), name, task, args, kwargs)
    if not isinstance(text, str):
        raise TypeError(f"the unique_key of a call of {name} must be a str, not {type(text).__name__}")
    return f"{name}:{text if len(text) <= LONGEST else _digest(text)}"


def _rule(task: Any) -> Any:
    """What a task says in `unique`; a function is taken as it is, not as a method."""
    found = inspect.getattr_static(task, "unique", True)
    return found.__func__ if isinstance(found, staticmethod) else found


def _made_by(rule: Any, name: str, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    if callable(rule):
        return str(rule(*args, **kwargs))
    given = _by_name(task, args, kwargs)
    if isinstance(rule, str):
        try:
            return rule.format(**given)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ImproperlyConfigured(
                f"cannot make a key of unique = {rule!r} for {name}",
                why=f"{type(error).__name__}: {error}",
                hint=f"it may name the arguments: {', '.join(given) or 'there are none'}",
            ) from error
    try:
        return _digest(json.dumps(json.loads(jsontypes.dumps(given)), sort_keys=True))
    except EncodeError as error:
        raise OpsqError(
            f"cannot make a key of the arguments of {name}",
            why=error.why,
            hint='give the task unique="..." with the names of arguments in braces, or a function of them',
        ) from error


def _by_name(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by their names, with defaults: however a call is written, it is the same call."""
    if task is None or task.parameters is None:
        return {"args": list(args), "kwargs": dict(kwargs)}
    return by_name(task.parameters, args, kwargs)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
