"""The fields of a crontab by Celery's rules: numbers, names, ranges, lists and steps become sets of numbers.

What Celery refuses is refused with the same kind of error; what it reads by accident (text behind a range) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
#: Names by their first three letters; a month's wins over a day's, there is none that is both.
NAMES = {name: number for number, name in enumerate(DAYS)} | {name: n for n, name in enumerate(MONTHS, 1)}
#: Of each month, in a leap year.
MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_PART = re.compile(r"(?:(?P<star>\*)|(?P<first>\w+?)-(?P<last>\w+))(?P<steps>/(?P<step>\w*))?")

Field = int | str | Iterable[int]


class ParseException(Exception):
    """A field of a crontab cannot be read."""


class crontab_parser:
    """Reads fields whose values begin at `min_` and of which there are `max_`: `crontab_parser(31, 1).parse("1-5")`."""

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_, self.min_ = max_, min_

    def parse(self, spec: str) -> set[int]:
        """The numbers that a field means. Raises ParseException or ValueError."""
        found: set[int] = set()
        for part in spec.split(","):
            if not part:
                raise ParseException("empty part")
            found.update(self._part(part))
        return found

    def _part(self, part: str) -> list[int]:
        match = _PART.fullmatch(part)
        if match is None:
            return [self._number(part)]
        if match["steps"] == "/":
            raise ParseException("empty filter")
        numbers = self._all() if match["star"] else self._range(match["first"], match["last"])
        return numbers[:: int(match["step"])] if match["steps"] else numbers

    def _all(self) -> list[int]:
        return list(range(self.min_, self.min_ + self.max_))

    def _range(self, first: str, last: str) -> list[int]:
        """From the first to the last; over the end and on from the beginning if the last is the smaller one."""
        begin, end = self._number(first), self._number(last)
        if begin <= end:
            return list(range(begin, end + 1))
        return [*range(begin, self.min_ + self.max_), *range(self.min_, end + 1)]

    def _number(self, text: str) -> int:
        if text.startswith("-"):
            raise ParseException("negative numbers not supported")
        try:
            number = int(text)
        except ValueError:
            if (name := text[:3].lower()) not in NAMES:
                raise ValueError(f"Invalid weekday literal {text!r}.") from None
            number = NAMES[name]
        largest = self.min_ + self.max_ - 1
        if number > largest:
            raise ValueError(f"Invalid end range: {number} > {largest}.")
        if number < self.min_:
            raise ValueError(f"Invalid beginning range: {number} < {self.min_}.")
        return number


def expanded(field: Field, max_: int, min_: int = 0) -> set[int]:
    """The numbers that a field means: a number, a text, or numbers. Raises ParseException, ValueError, TypeError."""
    if isinstance(field, int):
        found = {field}
    elif isinstance(field, str):
        found = crontab_parser(max_, min_).parse(field)
    elif isinstance(field, Iterable):
        found = set(field)
    else:
        raise TypeError(f"a field of a crontab is a number, a text or a list of numbers, not {type(field)!r}")
    for number in found:
        if not min_ <= number < min_ + max_:
            raise ValueError(
                f"Invalid crontab pattern.  Valid range is {min_}-{max_ - 1 + min_}. '{number}' was found."
            )
    return found
