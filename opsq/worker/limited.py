"""Messages that wait for their limits: when they may start they are put back, in the thread of the leases.

Most come back by the turn that makes room for them. Here is done what needs the clock (rates), what nobody else does
(whoever made them wait may be gone), and what changes with the limits themselves. Between two looks nothing is asked:
the lanes are tracked.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from opsq._state import broker_time
from opsq.broker.limits import RELEASE
from opsq.datastore import keys
from opsq.datastore.line import Line
from opsq.worker.admission import as_rates
from opsq.worker.limits import Policy
from opsq.worker.post import Post

logger = logging.getLogger("opsq.worker")

#: Messages of a lane put back in one step.
MOST = 500
#: The least time between two looks that a lane asks for by itself (seconds).
SOON_S = 0.005


class Limited:
    """The lanes of a worker's queues."""

    def __init__(self, post: Post, policy: Policy) -> None:
        self.policy = policy
        self.look_after(post)
        #: Something has changed in them, or more may start than was put back: look again soon.
        self.noticed = False
        #: Rates of this worker alone that were set by command.
        self.own_rates: dict[str, str] = {}
        self._cluster_rates: dict[str, str] = {}
        self._next_s: float | None = None
        self._told: set[str] = set()

    def look_after(self, post: Post) -> None:
        """From now on the lanes of these queues."""
        self._post = post
        prefix = post.key_prefix
        self._lanes = [(prefix + keys.lanes(name), prefix + keys.lane_facts(name)) for name in post.queues]
        #: Of each queue: lanes whose limits have changed, and their facts, to be told with the next look.
        self._changed: list[list[str]] = [[] for _ in post.queues]

    def commands(self, tracks: bool) -> list[tuple[Any, ...]]:
        """For each queue: put back what may start, and ask to be told when its lanes change."""
        self.noticed = False
        found: list[tuple[Any, ...]] = []
        for (lanes, facts), changed in zip(self._lanes, self._changed, strict=True):
            if tracks:
                found.append(("CLIENT", "CACHING", "YES"))
            found.append(("EVALSHA", RELEASE.sha, 1, lanes, facts, self._post.worker_id, MOST, *changed))
        return found

    def take(self, answers: Sequence[Any]) -> None:
        """The answers to these commands."""
        found = [answer for answer in answers if isinstance(answer, list)]
        errors = {str(answer) for answer in answers if isinstance(answer, Exception)}
        for error in errors - self._told:
            logger.error("messages that wait for their limits cannot be put back: %s", error)
        self._told = errors
        if not errors:
            self._changed = [[] for _ in self._lanes]
        due = [float(again) / 1000 for _, again in found if again != b""]
        self._next_s = max(min(due), broker_time() + SOON_S) if due else None
        if any(moved >= MOST for moved, _ in found):
            self.noticed = True

    @property
    def due_in_s(self) -> float | None:
        """Seconds until the next look (0: now); None when nothing waits."""
        return None if self._next_s is None else max(self._next_s - broker_time(), 0.0)

    # -- limits that change ------------------------------------------------------------------------------------------

    def rates_question(self) -> tuple[Any, ...]:
        """With each renewal: whether the rates of the cluster have changed while this worker did not hear of it."""
        return ("HGETALL", self._post.key_prefix + keys.RATE_LIMITS)

    def differs(self, answer: Any) -> bool:
        """Whether that answer says something new."""
        return as_rates(answer) != self._cluster_rates

    def learn(self, line: Line) -> bool:
        """Read the rates that were set for the cluster, and tell of the limits here; whether there are such rates."""
        prefix = self._post.key_prefix
        answer: Any = line.ask("HGETALL", prefix + keys.RATE_LIMITS)
        before, self._cluster_rates = self._cluster_rates, as_rates(answer)
        self.policy.set_rates(self._cluster_rates, self.own_rates)
        self._register(line)
        self._look_at_lanes(line)
        return bool(before or self._cluster_rates or self.own_rates)

    def _register(self, line: Line) -> None:
        """In Redis stands what is limited and how, for whoever asks; not what is limited no more."""
        key = self._post.key_prefix + keys.LIMITS
        mine: Mapping[str, Any] = self.policy.registry()
        known: Any = line.ask("HKEYS", key)
        ours = {f"task:{name}" for name in self.policy.task_names()} | {f"queue:{name}" for name in self._post.queues}
        gone = [
            name for name in (field.decode(errors="replace") for field in known) if name in ours and name not in mine
        ]
        if gone:
            line.ask("HDEL", key, *gone)
        if mine:
            line.ask("HSET", key, *[word for name, limits in mine.items() for word in (name, json.dumps(limits))])

    def _look_at_lanes(self, line: Line) -> None:
        """What waits is under the limits as they are now."""
        for place, (_lanes, facts) in enumerate(self._lanes):
            fields: Any = line.ask("HKEYS", facts)
            for field in fields:
                lane = field.decode(errors="replace")
                text = self.policy.facts(self._post.queues[place], lane[1:]) if lane.startswith("=") else None
                if text is not None:
                    self._changed[place] += (lane[1:], text)
