"""Celery's own schedules in a process of their own: what their fields mean and when they are due.

Run by the interpreter of the Celery environment, this file is the answering side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the answering side
from support.peer import Peer, serve


class CelerySchedules(Peer):
    """The asking side. What Celery refuses raises PeerError with the name of its error's class."""

    def __init__(self, python: Path) -> None:
        super().__init__([python, __file__])

    def field(self, text: str, count: int, first: int) -> set[int]:
        """What a field of a crontab means."""
        answer: set[int] = self.ask("field", text, count, first)
        return answer

    def remaining_s(self, kind: str, arguments: dict[str, Any], zone: str, last: float, now: float) -> float:
        """`remaining_estimate` of a schedule, seconds."""
        answer: float = self.ask("remaining_s", kind, arguments, zone, last, now)
        return answer

    def is_due(
        self, kind: str, arguments: dict[str, Any], zone: str, last: float, now: float, deadline_s: int | None = None
    ) -> tuple[bool, float]:
        """`is_due` of a schedule."""
        answer: tuple[bool, float] = self.ask("is_due", kind, arguments, zone, last, now, deadline_s)
        return answer

    def times(self, fields: dict[str, Any], zone: str, start: float, end: float) -> list[float]:
        """When a crontab is due between two points in time, each run's time being the last one's of the next."""
        answer: list[float] = self.ask("times", fields, zone, start, end)
        return answer


def _verbs() -> dict[str, Callable[..., Any]]:
    from zoneinfo import ZoneInfo

    from celery import Celery, schedules

    def made(kind: str, arguments: dict[str, Any], zone: str, now: float, deadline_s: int | None = None) -> Any:
        app = Celery(set_as_current=False)
        app.conf.update(timezone=zone, beat_cron_starting_deadline=deadline_s)
        clock = datetime.fromtimestamp(now, ZoneInfo(zone))
        return getattr(schedules, kind)(**arguments, app=app, nowfun=lambda: clock)

    def moment(unix_s: float, zone: str) -> datetime:
        return datetime.fromtimestamp(unix_s, ZoneInfo(zone))

    def remaining_s(kind: str, arguments: dict[str, Any], zone: str, last: float, now: float) -> float:
        left: timedelta = made(kind, arguments, zone, now).remaining_estimate(moment(last, zone))
        return left.total_seconds()

    def is_due(
        kind: str, arguments: dict[str, Any], zone: str, last: float, now: float, deadline_s: int | None
    ) -> tuple[bool, float]:
        due, again_s = made(kind, arguments, zone, now, deadline_s).is_due(moment(last, zone))
        return bool(due), float(again_s)

    def times(fields: dict[str, Any], zone: str, start: float, end: float) -> list[float]:
        found = []
        last = start
        while True:
            last += remaining_s("crontab", fields, zone, last, last)
            if last > end:
                return found
            found.append(last)

    return {
        "field": lambda text, count, first: schedules.crontab_parser(count, first).parse(text),
        "remaining_s": remaining_s,
        "is_due": is_due,
        "times": times,
    }


if __name__ == "__main__":
    serve(_verbs())
