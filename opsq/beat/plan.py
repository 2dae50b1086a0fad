"""What a beat knows of one entry while it ticks: what was served last, and what comes next."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from opsq.beat.entry import ASK_AGAIN_S, NEVER_MS, Entry
from opsq.beat.stores import Record
from opsq.schedules import BaseSchedule, portable

logger = logging.getLogger("celery.beat")


@dataclass(slots=True)
class Plan:
    """An entry and its next run; Unix ms: the due time served last, from where to count, what is next, when to send."""

    entry: Entry
    served_ms: int
    from_ms: int
    record: Record
    paused: bool = False
    due_ms: int = 0
    fire_ms: int = 0
    #: When a schedule of the program's own, which has just been due, wants to be asked again; 0: now.
    ask_ms: int = 0

    def look_ahead(self, now_ms: int) -> None:
        """Find the next run."""
        entry = self.entry
        try:
            if self.ask_ms:
                self.due_ms, self.ask_ms = self.ask_ms, 0
                self.fire_ms = self.due_ms
            elif entry.is_asked:
                due, again_ms = entry.asked_ms(self.from_ms, now_ms)
                self.due_ms = self.fire_ms = now_ms if due else again_ms
            else:
                self.due_ms = entry.next_ms(self.from_ms)
                self.fire_ms = self.due_ms + entry.delay_ms(self.due_ms)
        except Exception as error:
            self._say_that_it_fails(error)
            self.due_ms = self.fire_ms = now_ms + int(ASK_AGAIN_S * 1000)
        self.record["next"] = _seconds(self.due_ms)

    def runs(self, now_ms: int) -> tuple[list[int], int]:
        """The due times that are to be served now, in order, and the last one that has come (Unix ms)."""
        entry = self.entry
        try:
            if entry.is_asked:
                due, self.ask_ms = entry.asked_ms(self.from_ms, now_ms)
                return ([now_ms], now_ms) if due else ([], self.from_ms)
            found = entry.due_between(self.from_ms, now_ms - (self.fire_ms - self.due_ms))
        except Exception as error:
            self._say_that_it_fails(error)
            return [], self.from_ms
        if not found[0]:
            logger.info("beat: a run of %s was missed and is left out", entry.name)
        return found

    def next_s(self, due_ms: int) -> float | None:
        """What is next when this due time has been served (Unix seconds); None: nothing."""
        later = not self.entry.is_asked and due_ms > self.from_ms
        return _seconds(self.entry.next_ms(due_ms) if later else self.due_ms)

    def _say_that_it_fails(self, error: Exception) -> None:
        """One entry whose schedule fails must not stop the others."""
        reason = f"{type(error).__name__}: {error}"
        logger.error("beat: cannot calculate the next run of %r: %s", self.entry.name, reason)


def _seconds(due_ms: int) -> float | None:
    """Unix seconds; None for what is never due again."""
    return due_ms / 1000 if due_ms < NEVER_MS else None


def description(entry: Entry) -> Record:
    """What stands in Redis about an entry because it is as it is."""
    ends = entry.once or entry.ends_ms is not None
    return {
        "task": entry.task,
        "schedule": portable.to_text(entry.schedule),
        "data": portable.to_data(entry.schedule) if isinstance(entry.schedule, BaseSchedule) and not ends else None,
        "zone": entry.zone,
        "source": entry.source,
        "enabled": entry.enabled,
    }
