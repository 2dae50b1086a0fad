"""Mingle: a worker that starts asks Celery's workers what they know as revoked, and tells them what it knows.

Celery's workers keep revocations in memory only. What opsq's know is in Redis: they do not answer one of their own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from opsq.broker import revoked
from opsq.broker.mailbox import Request
from opsq.datastore import keys
from opsq.datastore.trouble import TROUBLE
from opsq.exceptions import OpsqError
from opsq.worker.panel import State

logger = logging.getLogger("opsq.worker")

#: How long the next answer is waited for (seconds).
ANSWER_S = 1.0


def begin(state: State, mailbox: str) -> None:
    """In the thread of the leases: ask, if the bindings of the mailbox say that a Celery worker is or was there."""
    if state.leases.ask_all([("EXISTS", state.key(keys.binding(mailbox)))]) != [0]:
        Mingle(state).start()


class Mingle(threading.Thread):
    """One exchange, in a thread of its own: nothing waits for it."""

    def __init__(self, state: State) -> None:
        super().__init__(name="opsq-mingle", daemon=True)
        self._state = state

    def run(self) -> None:
        """Ask, take over what is answered, and tell."""
        try:
            self._exchange()
        except (*TROUBLE, OpsqError) as error:
            logger.warning("cannot ask Celery's workers what is revoked: %s", error)

    def _exchange(self) -> None:
        state, mailbox = self._state, self._state.app.control.mailbox
        ours = revoked.ids(state.redis, state.key(""))
        hello: dict[str, Any] = {"from_node": state.hostname, "revoked": []}
        answers = mailbox.call(Request("hello", {**hello, "of_opsq": True}, clock=state.tick()), ANSWER_S)
        theirs = {node: told for answer in answers for node, told in answer.items() if isinstance(told, Mapping)}
        for told in theirs.values():
            state.tick(int(told.get("clock") or 0))
        found = {str(each) for told in theirs.values() for each in _ids(told.get("revoked"))}
        new = revoked.revoke(state.redis, state.key(""), sorted(found)) if found else []
        if theirs:
            logger.info("mingle: Celery's workers %s knew %d more revoked", ", ".join(sorted(theirs)), len(new))
        if theirs and ours:
            mailbox.cast(Request("hello", {**hello, "revoked": ours}, sorted(theirs), clock=state.tick()))


def _ids(told: Any) -> Iterable[Any]:
    """Ids as they are told: a list, or by older versions a mapping of them."""
    return told if isinstance(told, list | tuple | dict) else ()
