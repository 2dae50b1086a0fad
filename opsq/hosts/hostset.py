"""Sets of host names as short text: `web[01-40,50]`, `rack[1-2]n[1-8].dc1`. Parse, fold, and the algebra of sets.

A name consists of letters, digits, dots, hyphens and underscores. Leading zeros count: `web1` and `web01` are two.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from opsq.exceptions import UsageError

#: A typing error like web[1-10000000000] must not fill the memory.
MOST_NAMES = 100_000
LONGEST_NAME = 253
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_NUMBER = re.compile(r"([0-9]+)")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def is_name(text: str) -> bool:
    """Whether a text may be the name of a host."""
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


class HostSet(frozenset[str]):
    """An immutable set of host names; `str()` is its folded text, iteration goes in the order in which people count."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> HostSet:
        """The set that a folded text means. Raises UsageError."""
        found: set[str] = set()
        for part in split(text):
            for name in expand(part):
                if not is_name(name):
                    raise UsageError(f"cannot read the hosts {text!r}", why=f"{name!r} is no name of a host")
                found.add(name)
            if len(found) > MOST_NAMES:
                raise UsageError(f"cannot read the hosts {text!r}", why=f"they are more than {MOST_NAMES:,}")
        return cls(found)

    def __str__(self) -> str:
        return fold(self)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), key=counting_order))

    def __repr__(self) -> str:
        return f"HostSet({fold(self)!r})"

    def __or__(self, other: Collection[str]) -> HostSet:  # type: ignore[override]
        return HostSet(frozenset.__or__(self, frozenset(other)))

    def __and__(self, other: Collection[str]) -> HostSet:  # type: ignore[override]
        return HostSet(frozenset.__and__(self, frozenset(other)))

    def __sub__(self, other: Collection[str]) -> HostSet:  # type: ignore[override]
        return HostSet(frozenset.__sub__(self, frozenset(other)))


def counting_order(name: str) -> tuple[tuple[str, int, int], ...]:
    """A sort key by which web2 comes before web10."""
    words = _NUMBER.split(name)
    numbers = [*words[1::2], ""]
    return tuple((text, int(number or 0), len(number)) for text, number in zip(words[::2], numbers, strict=True))


# -- text to names -----------------------------------------------------------------------------------------------------


def split(text: str) -> list[str]:
    """The parts between commas and blanks that stand outside of brackets. Raises UsageError."""
    parts, depth, part = [], 0, ""
    for char in text:
        depth += (char == "[") - (char == "]")
        if depth not in (0, 1):
            raise UsageError(f"cannot read the hosts {text!r}", why="its brackets do not match")
        if depth == 0 and (char == "," or char.isspace()):
            parts.append(part)
            part = ""
        else:
            part += char
    if depth:
        raise UsageError(f"cannot read the hosts {text!r}", why="a bracket is not closed")
    return [part for part in (*parts, part) if part]


def expand(part: str) -> Iterator[str]:
    """The names (or globs) that one part means: the product of its brackets. Raises UsageError."""
    pieces = _BRACKET.split(part)
    choices = [[piece] if place % 2 == 0 else _numbers(part, piece) for place, piece in enumerate(pieces)]
    count = 1
    for each in choices:
        count *= len(each)
    if count > MOST_NAMES:
        raise _too_many(part)
    return map("".join, itertools.product(*choices))


def _numbers(part: str, ranges: str) -> list[str]:
    """The numbers of one bracket, as text."""
    found: list[str] = []
    for each in ranges.split(","):
        match = _RANGE.fullmatch(each.strip())
        if match is None:
            raise UsageError(
                f"cannot read the hosts {part!r}", why=f"[{ranges}] is no range", hint="write web[01-40] or web[1,3-5]"
            )
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first):
            raise UsageError(f"cannot read the hosts {part!r}", why=f"the range {each} ends before it begins")
        if int(last) - int(first) >= MOST_NAMES:
            raise _too_many(part)
        width = _width(first)
        found += [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    return found


def _too_many(part: str) -> UsageError:
    return UsageError(f"cannot read the hosts {part!r}", why=f"they are more than {MOST_NAMES:,}")


def _width(number: str) -> int:
    """How many digits the numbers of a range have at least: as many as its first one if that begins with a zero."""
    return len(number) if number[0] == "0" else 0


# -- names to text -----------------------------------------------------------------------------------------------------


def fold(names: Iterable[str]) -> str:
    """The names as short text; `HostSet.parse` of it gives exactly these names."""
    alike: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for name in sorted(set(names), key=counting_order):
        words = _NUMBER.split(name)
        alike[tuple(words[::2])].append(tuple(words[1::2]))
    return ",".join(text for literals, vectors in alike.items() for text in _fold_alike(literals, vectors))


def _fold_alike(literals: tuple[str, ...], vectors: list[tuple[str, ...]]) -> Iterator[str]:
    """Names that differ in their numbers only: one number after the other, from the last, becomes a range."""
    for place in reversed(range(len(literals) - 1)):
        by_rest: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for vector in vectors:
            by_rest[(*vector[:place], "", *vector[place + 1 :])].append(vector[place])
        vectors = [(*rest[:place], _ranges(numbers), *rest[place + 1 :]) for rest, numbers in by_rest.items()]
    for vector in vectors:
        yield "".join(itertools.chain.from_iterable(zip(literals, (*vector, ""), strict=True)))


def _ranges(numbers: list[str]) -> str:
    """`[01-40,50]` of these numbers; one alone stands without brackets."""
    if len(numbers) == 1:
        return numbers[0]
    left = set(numbers)
    runs: list[tuple[int, str]] = []
    for first in sorted(numbers, key=lambda number: (number[0] != "0" or len(number) == 1, len(number), int(number))):
        if first not in left:
            continue
        width = _width(first)
        last = int(first)
        left.discard(first)
        while (following := str(last + 1).zfill(width)) in left:
            left.discard(following)
            last += 1
        end = str(last).zfill(width)
        runs.append((int(first), first if end == first else f"{first}-{end}"))
    return f"[{','.join(text for _first, text in sorted(runs))}]"
