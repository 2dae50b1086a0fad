"""The names of settings: new, old, with a namespace; and what a name that is no setting was probably meant to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opsq.config.option import Option
from opsq.config.options.celery import OPTIONS
from opsq.config.options.engine import ENGINE_OPTIONS
from opsq.config.options.foreign import FOREIGN_OPTIONS
from opsq.exceptions import ImproperlyConfigured

BY_NAME: Mapping[str, Option] = {option.name: option for option in (*OPTIONS, *FOREIGN_OPTIONS, *ENGINE_OPTIONS)}
#: Old name -> new name. Django's `TIME_ZONE` counts as one, as it does in Celery.
BY_OLD_NAME: Mapping[str, str] = {option.old: option.name for option in BY_NAME.values() if option.old} | {
    "TIME_ZONE": "timezone"
}


def canonical(name: str, namespace: str | None = None) -> str | None:
    """The new name of the setting that is called `name`, or None when there is none."""
    if name in BY_NAME:
        return name
    if namespace:
        prefix = namespace.rstrip("_") + "_"
        if name.startswith(prefix) and name[len(prefix) :].lower() in BY_NAME:
            return name[len(prefix) :].lower()
    return BY_OLD_NAME.get(name)


def sort_out(
    given: Mapping[str, Any], namespace: str | None = None, source: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given in one place as (settings by their new names, all other names as they are).

    Names with the namespace win over others, and all over Django's `TIME_ZONE`. Raises ImproperlyConfigured when two
    names that count alike give one setting different values.
    """
    found: dict[str, tuple[int, str]] = {}
    others: dict[str, Any] = {}
    for name in given:
        setting = canonical(name, namespace)
        if setting is None:
            others[name] = given[name]
            continue
        rank = _rank(name, namespace)
        known = found.get(setting)
        if known is not None and known[0] == rank and not _same(given[known[1]], given[name]):
            raise _twice(setting, known[1], name, source)
        if known is None or rank < known[0]:
            found[setting] = rank, name
    return {setting: given[name] for setting, (_, name) in found.items()}, others


def _rank(name: str, namespace: str | None) -> int:
    """What counts more has the lower number: with the namespace, any name of ours, `TIME_ZONE`."""
    if name == "TIME_ZONE":
        return 2
    return 0 if namespace and name.startswith(namespace) else 1


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))


def _twice(setting: str, one: str, other: str, source: str) -> ImproperlyConfigured:
    where = f" of {source}" if source else ""
    return ImproperlyConfigured(
        f"cannot use {setting}{where}",
        why=f"{one} and {other} are names of one setting, and have different values",
        hint="keep one of them",
    )


def meant(name: str) -> str | None:
    """The setting's name that is at most two typing errors away from a name that is none."""
    for known in (*BY_NAME, *BY_OLD_NAME):
        if abs(len(known) - len(name)) <= 2 and _edits(name, known) <= 2:
            return known
    return None


def _edits(one: str, other: str) -> int:
    """How many letters must be put in, taken out or replaced to make one word the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != wanted))
    return row[-1]
