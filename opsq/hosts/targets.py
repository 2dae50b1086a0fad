"""Expressions that choose hosts: `web[01-40]`, `web*,!web07`, `@db,&@eu`. Read from left to right.

A term is a name with ranges, a glob, `@group`, or `@all`; a comma adds, `!` takes away, `&` keeps what is in both. An
expression that begins with `!` or `&` begins with all hosts that are present.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from opsq.exceptions import ImproperlyConfigured, UsageError, did_you_mean
from opsq.hosts.hostset import HostSet, expand, is_name, split

ALL = "all"
_DEEPEST = 10


@dataclass(frozen=True, slots=True)
class Scene:
    """What an expression is read against: names by the caller's knowledge, groups by files and by the hosts' tags."""

    known: Collection[str]
    present: Collection[str]
    groups: Mapping[str, str]
    tags: Mapping[str, Collection[str]]


def resolve(expression: str, scene: Scene) -> HostSet:
    """The hosts that an expression means, known or not. Raises UsageError, also when it means none."""
    found = _resolve(expression, scene, 0)
    if not found:
        raise UsageError(f"no host is meant by {expression!r}", hint="opsq hosts lists them")
    return found


def groups_of(table: Mapping[str, Any]) -> dict[str, str]:
    """The groups of `[hosts] groups` as expressions. Raises ImproperlyConfigured."""
    found = {}
    for name, value in table.items():
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ImproperlyConfigured(f"cannot use the group {name!r}", why="it must be a text or a list of texts")
        found[name] = ",".join(words)
    return found


def _resolve(expression: str, scene: Scene, depth: int) -> HostSet:
    if depth > _DEEPEST:
        raise UsageError("cannot read the groups of hosts", why="they name each other in a circle")
    found: HostSet | None = None
    for term in split(expression):
        sign, word = (term[0], term[1:]) if term[0] in "!&" else ("", term)
        if not word:
            raise UsageError(f"cannot read the hosts {expression!r}", why=f"nothing follows {sign!r}")
        hosts = _term(word, scene, depth)
        before = HostSet(scene.present) if found is None and sign else found or HostSet()
        found = before - hosts if sign == "!" else before & hosts if sign == "&" else before | hosts
    return found or HostSet()


def _term(word: str, scene: Scene, depth: int) -> HostSet:
    if word.startswith("@"):
        return _group(word[1:], scene, depth)
    found: set[str] = set()
    for name in expand(word):
        if "*" in name or "?" in name:
            found.update(known for known in scene.known if fnmatchcase(known, name))
        elif is_name(name):
            found.add(name)
        else:
            raise UsageError(f"cannot read the hosts {word!r}", why=f"{name!r} is no name of a host")
    return HostSet(found)


def _group(name: str, scene: Scene, depth: int) -> HostSet:
    if name == ALL:
        return HostSet(scene.known)
    found = HostSet(host for host, tags in scene.tags.items() if name in tags)
    if name in scene.groups:
        return found | _resolve(scene.groups[name], scene, depth + 1)
    if not found:
        raise unknown_group(name, {*scene.groups, *(tag for tags in scene.tags.values() for tag in tags)})
    return found


def unknown_group(name: str, known: Iterable[str]) -> UsageError:
    """The error for a group that nobody has heard of."""
    names = [f"@{there}" for there in sorted(known)]
    hint = did_you_mean(f"@{name}", names, "groups: [hosts.groups] in opsq.toml, and opsq agent --tag")
    return UsageError(f"there is no group @{name}", hint=hint)
