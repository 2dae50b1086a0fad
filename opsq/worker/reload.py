"""The parent's side of a reload (SIGHUP): a newcomer with today's code and settings, then fresh children one by one.

The old template and its code stay until the newcomer has said that it is ready. Nothing that runs is interrupted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from opsq.worker import slots
from opsq.worker.calls import Calls
from opsq.worker.children import Child, Children, Template
from opsq.worker.newcomer import Report, Told
from opsq.worker.sizing import Sizing
from opsq.worker.terms import differences

logger = logging.getLogger("opsq.worker")

#: A child whose message runs longer does not hold up the replacement of the others (seconds).
LONG_S = 0.1
#: How often the children are looked at while they are being replaced (seconds).
LOOK_S = 0.05
#: Until another newcomer is tried when there is no template at all (seconds): from, to.
RETRY_S = (1.0, 30.0)


class Reload:
    """Begun by `begin`; `look` goes on with it whenever something has happened."""

    def __init__(
        self,
        children: Children,
        sizing: Sizing,
        calls: Calls,
        told: Callable[[], Told],
        take: Callable[[Report], None],
        on_end: Callable[[str], None],
    ) -> None:
        """`told`: what a newcomer is told; `take`: the new terms take effect; `on_end`: it has come to something, in
        words; "" = all is well.
        """
        self._children, self._sizing, self._calls = children, sizing, calls
        self._told, self._take, self._on_end = told, take, on_end
        self._report = Path()
        self._asked = False
        self._retry_s = RETRY_S[0]

    def begin(self, asked: bool = True) -> None:
        """Start a newcomer. `asked`: somebody wants it (else a template was lost)."""
        if self._sizing.stopping:
            return
        self._asked = self._asked or asked
        self._children.table.words[slots.REPLACING] = 1
        told = self._told()
        self._report = Path(told.report)
        self._children.exec_template(msgspec.to_builtins(told), [told.writer])

    def ready(self) -> None:
        """The newcomer may fork: its terms take effect, and the children of older templates are replaced."""
        report = msgspec.json.decode(self._report.read_bytes(), type=Report)
        self._report.unlink()
        self._retry_s = RETRY_S[0]
        old = self._sizing.terms
        if self._asked:
            changed = "; ".join(differences(old, report.terms))
            logger.warning("reloaded%s; the children are replaced one by one", f": {changed}" if changed else "")
        if report.kept:
            logger.warning("needs a restart: %s", "; ".join(report.kept))
        asked, self._asked = self._asked, False
        self._take(report)
        self._sizing.renew(report.terms)
        self.look()
        if asked:
            self._on_end("")

    def lost(self, ended: Template) -> None:
        """A template has ended by itself."""
        if not ended.ready:
            self._report.unlink(missing_ok=True)
            why = ended.told or "the new process was killed or ended without a word"
            asked, self._asked = self._asked, False
            goes_on = self._children.newest is not None
            if asked:
                logger.error("cannot reload: %s%s", why, "; the old code goes on" if goes_on else "")
                self._on_end(why)
            else:
                logger.error("cannot start a template: %s", why)
            if not goes_on:
                self._calls.after(self._retry_s, self._again)
                self._retry_s = min(self._retry_s * 2, RETRY_S[1])
        elif self._children.newcomer is None and (self._children.newest is None or ended.newest):
            logger.error("the template of the children was killed, a new one starts")
            self.begin(asked=False)

    def _again(self) -> None:
        if self._children.newest is None and self._children.newcomer is None:
            self.begin(asked=False)

    def look(self) -> float | None:
        """Have the next child of an older template leave if it is time to; seconds until the next look."""
        newest = self._children.newest
        if newest is None or len(self._children.templates) < 2:
            self._children.table.words[slots.REPLACING] = 0
            return None
        self._children.end_idle_templates()
        alive = list(self._children.alive.values())
        old = [child for child in alive if child.template is not newest]
        staying = [child for child in old if not child.slot.words[slots.LEAVE]]
        # Who leaves takes nothing any more; it reads this first, then whether it leaves.
        self._children.table.words[slots.REPLACING] = bool(staying or self._children.newcomer)
        if not staying:
            return None
        if self._sizing.is_full and not any(_begins(child) or _is_leaving_soon(child) for child in alive):
            soon = next((child for child in staying if not _runs_long(child)), None)
            leaving = [child for child in staying if child is soon or _runs_long(child)]
        else:
            leaving = [child for child in staying if _runs_long(child)]
        for child in leaving:
            child.slot.words[slots.LEAVE] = 1
        if leaving:
            self._children.announce()
        return LOOK_S


def _begins(child: Child) -> bool:
    return bool(child.slot.words[slots.STATE] < slots.IDLE)


def _runs_long(child: Child) -> bool:
    words = child.slot.words
    return bool(words[slots.CURRENT]) and time.monotonic_ns() - words[slots.STARTED_NS] > LONG_S * 1e9


def _is_leaving_soon(child: Child) -> bool:
    return bool(child.slot.words[slots.LEAVE]) and not _runs_long(child)
