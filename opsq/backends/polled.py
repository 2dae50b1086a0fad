"""Results in a place that tells nobody of what is stored there: code of the program's own keeps them.

Workers store them before they settle the message; the turn that settles it then says on the broker's Redis that a
result is there. Whoever waits listens to that, and looks by itself as well: other workers say nothing.
"""

from __future__ import annotations

import importlib
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeGuard

from opsq import states
from opsq.backends.base import Backend, Format
from opsq.backends.chords import Chords
from opsq.backends.records import Records
from opsq.backends.waiting import Subscriber
from opsq.datastore.trouble import TROUBLE
from opsq.exceptions import ImproperlyConfigured, TimeoutError

#: Between two looks for a result that is waited for (seconds): the first one, the longest.
LOOK_S = (0.01, 0.5)

#: The ids to look for, each time.
Occasions = Generator[Sequence[str], None, None]


class Polled(Records):
    """Results that are looked for again and again. The counters of chords stay at the broker."""

    def __init__(self, app: Any, name: str, wanted: Format, chords: Chords | None = None) -> None:
        """`name`: what the settings call it."""
        url = app.find_broker().url
        super().__init__(name, wanted, "", chords or Chords.of(url, wanted, "", app.conf))
        self.app = app
        self._notices = Subscriber(url)

    @abstractmethod
    def get_metas(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of several tasks, by id; nothing of those of which nothing is known."""

    def wait_each(
        self,
        ids: Sequence[str],
        timeout_s: float | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        interval_s: float = 0.5,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id of each that has ended, as it ends, and what is known of it. Raises TimeoutError."""
        left = dict.fromkeys(ids)
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with closing(self._occasions(left, until, interval_s)) as occasions:
            for those in occasions:
                for task_id, meta in self.get_metas([each for each in those if each in left]).items():
                    if meta["status"] in states.READY_STATES:
                        if on_message is not None:
                            on_message(meta)
                        del left[task_id]
                        yield task_id, meta
                if not left:
                    return
                if on_interval is not None:
                    on_interval()
        raise TimeoutError(f"the result of {next(iter(left))} did not come in time")

    def _occasions(self, left: dict[str, None], until: float | None, interval_s: float) -> Occasions:
        """The ids to look for, whenever there is reason to; ends at `until` (monotonic)."""
        yield list(left)
        names = {self.key(task_id).encode(): task_id for task_id in left}
        listening = False
        try:
            updates = self._notices.updates(tuple(names), until, min(interval_s, LOOK_S[1]), absent=True)
            with closing(updates):
                for key, data in updates:
                    if key and data:
                        yield [names[key]]
                    elif not key or not listening:  # what was stored before somebody listened was told to nobody
                        listening = listening or bool(key)
                        yield list(left)
        except TROUBLE:  # the broker is away; what is stored can be found all the same
            yield from _at_intervals(left, until, interval_s)
        else:
            yield list(left)


def _at_intervals(left: dict[str, None], until: float | None, interval_s: float) -> Occasions:
    pause_s = LOOK_S[0]
    while until is None or time.monotonic() < until:
        rest_s = pause_s if until is None else max(until - time.monotonic(), 0.0)
        time.sleep(min(pause_s, interval_s, rest_s))
        pause_s = min(pause_s * 2, LOOK_S[1])
        yield list(left)


def _is_place(kind: Any) -> TypeGuard[Callable[[Any], Backend]]:
    return isinstance(kind, type) and issubclass(kind, Polled)


def of_a_program(name: str, app: Any) -> Backend:
    """The one that `module:Class` names. Raises ImproperlyConfigured."""
    module, _, kind = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(f"cannot use {name!r} as result backend", why=str(error)) from error
    if not _is_place(found):
        why = "it is no subclass of opsq.backends.keyvalue.KeyValueBackend"
        raise ImproperlyConfigured(f"cannot use {name!r} as result backend", why=why)
    return found(app)
