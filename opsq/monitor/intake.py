"""What becomes of a batch of events: which records change, which are kept, and which are only counted.

Under load the history is a sample: so many records a second and no more, trouble first. A task that was kept once is
kept to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from opsq.monitor import record as records
from opsq.monitor.record import Event, Record

#: New records a second: of any kind, and beyond that of those in trouble.
KEPT_PER_S, TROUBLE_PER_S = 400.0, 400.0
#: What a quiet moment may save up for a burst (seconds).
_SAVED_S = 2.0
#: Tasks that are remembered while they have not ended: those that are kept, and those that still may be.
OPEN_LIMIT = 10_000


class Allowance:
    """So many a second, with some saved up."""

    def __init__(self, per_s: float) -> None:
        self._per_s, self._left = per_s, per_s * _SAVED_S

    def pass_time(self, seconds: float) -> None:
        """Time has passed."""
        self._left = min(self._left + seconds * self._per_s, self._per_s * _SAVED_S)

    def take(self) -> bool:
        """One more, if there is one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to write: records that changed; `skipped`: tasks that ended and are not kept."""

    changed: list[Record]
    skipped: int


class Intake:
    """Turns batches of task events into records. `stored` gives the records of ids that Redis has."""

    def __init__(
        self,
        stored: Callable[[Sequence[str]], Mapping[str, Record]],
        kept_per_s: float = KEPT_PER_S,
        trouble_per_s: float = TROUBLE_PER_S,
    ) -> None:
        self._stored = stored
        self._any, self._trouble = Allowance(kept_per_s), Allowance(trouble_per_s)
        self._kept: dict[str, Record] = {}
        self._waiting: dict[str, list[Event]] = {}

    def take(self, events: Iterable[Event], elapsed_s: float) -> Outcome:
        """Work through a batch; `elapsed_s`: since the batch before it (seconds)."""
        self._any.pass_time(elapsed_s)
        self._trouble.pass_time(elapsed_s)
        changed: dict[str, Record] = {}
        fresh: dict[str, list[Event]] = {}
        for event in events:
            if event.type not in records.STATES:
                continue
            task_id = event.uuid or ""
            record = self._kept.get(task_id)
            if record is not None:
                records.apply(record, event)
                changed[task_id] = record
            elif task_id in fresh:
                fresh[task_id].append(event)
            else:
                fresh[task_id] = [*self._waiting.pop(task_id, ()), event]
        admitted, skipped = self._admit(fresh)
        changed.update(self._begin(admitted))
        self._forget(changed)
        return Outcome(list(changed.values()), skipped)

    def forget(self, task_id: str) -> None:
        """A task's record was changed by somebody else."""
        self._kept.pop(task_id, None)

    def _admit(self, fresh: dict[str, list[Event]]) -> tuple[dict[str, list[Event]], int]:
        """Those that are kept from now on, and how many have ended and are not."""
        admitted: dict[str, list[Event]] = {}
        skipped = 0
        for task_id, events in fresh.items():
            seen = {records.STATES[event.type] for event in events}
            if self._any.take() or (seen & records.TROUBLE and self._trouble.take()):
                admitted[task_id] = events
            elif seen - records.OPEN:
                skipped += 1
            else:
                self._waiting[task_id] = events
        for task_id in [each for each in self._waiting if each not in fresh]:
            if not self._any.take():  # those that run for long come in once there is room
                break
            admitted[task_id] = self._waiting.pop(task_id)
        return admitted, skipped

    def _begin(self, admitted: Mapping[str, list[Event]]) -> dict[str, Record]:
        """Records for tasks that are new here; Redis may know them from before."""
        known = self._stored(list(admitted)) if admitted else {}
        made = {}
        for task_id, events in admitted.items():
            record = made[task_id] = known.get(task_id) or Record(task_id)
            for event in events:
                records.apply(record, event)
        return made

    def _forget(self, changed: Mapping[str, Record]) -> None:
        """Remember those that have not ended, within bounds: the oldest are read from Redis when they are needed."""
        for task_id, record in changed.items():
            if record.open:
                self._kept[task_id] = record
            else:
                self._kept.pop(task_id, None)
        for table in (self._kept, self._waiting):
            while len(table) > OPEN_LIMIT:
                del table[next(iter(table))]
