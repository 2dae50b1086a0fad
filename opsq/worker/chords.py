"""The bodies of chords: whoever counts the last part joins the values and sends the body; who dies at it is replaced.

The count says whose the body is, for some seconds (`.c`, as Celery's). It is sent by a script that leaves a mark: a
body whose sender dies before it says that it is done is not sent again.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from opsq import _state, states
from opsq.broker.broker import LUA
from opsq.datastore import keys
from opsq.datastore.scripts import Script
from opsq.datastore.trouble import TROUBLE
from opsq.exceptions import ChordError, OpsqError
from opsq.execution import workflow
from opsq.execution.context import Context
from opsq.execution.outcome import ChordPart, Record
from opsq.execution.workflow import Follow
from opsq.worker.epilogue import write_new
from opsq.worker.settle import Settler

logger = logging.getLogger("opsq.worker")

SEND_ONCE = Script(LUA / "send_once.lua", LUA / "later_functions.lua")

#: Between two looks at chords that nobody looks after (seconds).
LOOK_S = 5.0
#: When a chord is looked at whose last part was settled by somebody who sends no bodies (as in chord_functions.lua).
SOON_S = 1.0
#: How long a child that ends waits for bodies that it is sending (seconds).
PATIENCE_S = 5.0
#: So many bodies that nobody sends are sent by one process: a hundred processes would be in each other's way.
TOGETHER = 5
#: While so many orders of the last seconds were taken up by no process there are no others: on a machine that is busy
#: they would only make it busier, and keep the parent from everything else.
OPEN_ORDERS, OPEN_S = 8, 10
SUFFIX = ".chord"


class Conductor:
    """Sends the bodies of chords, in a thread of its own: a long task must not keep one waiting."""

    def __init__(self, app: Any, settler: Settler) -> None:
        self._app, self._settler, self._chords = app, settler, app.backend.chords
        self._complete: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def complete(self, name: str) -> None:
        """A chord is complete, and its body is ours to send."""
        self._complete.put(name)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="opsq-chords", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait for what is being sent; what does not go through in time is left to a reaper."""
        if self._thread is not None:
            self._complete.put(None)
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while (name := self._complete.get()) is not None:
            self.dispatch(name)

    def dispatch(self, name: str, why: str = "complete") -> None:
        """Send the body of a chord that is ours, or tell that it has failed. What cannot be done now is left to a
        reaper."""
        try:
            facts = self._chords.facts(name)
            if facts is None or not self._chords.is_ours(name):
                return
            follows = self._follows(name, facts, why) if why == "complete" or not self._has_ended(facts.body) else []
            if not self._chords.is_ours(name):
                logger.warning("the body of the chord %s took too long to make; somebody else sends it", name)
                return
            self._send(name, facts.run, follows)
            self._chords.done(name)
        except (*TROUBLE, OpsqError) as error:
            logger.warning("the body of the chord %s is not sent yet: %s", name, error)
        except Exception:
            logger.exception("the body of the chord %s is not sent yet", name)

    def _has_ended(self, body: Any) -> bool:
        """Whether a body has a result: a Celery worker has told that the chord failed, and has left the parts."""
        ids = [task["options"]["task_id"] for task in workflow.tasks_of(body) if task["options"].get("task_id")]
        found = self._app.backend.get_metas(ids)
        return any(meta["status"] in states.READY_STATES for meta in found.values())

    # -- what becomes of it -----------------------------------------------------------------------------------------

    def _follows(self, name: str, facts: Any, why: str) -> list[Follow]:
        following = self._app.following
        parent = Context(id=facts.parent_id, root_id=facts.root_id, called_directly=False)
        token = _state.push_request(parent)
        try:
            values = self._values(name, why)
            try:
                return list(following.unfold(facts.body, (values,)))
            except (*TROUBLE, ConnectionError):
                raise
            except Exception as error:
                raise ChordError(f"Callback error: {error!r}") from error
        except ChordError as error:
            logger.error("Chord %r raised: %r", name, error)
            return workflow.fail_body(following, facts.body, error, self._app.tasks)
        finally:
            _state.pop_request(token)

    def _values(self, name: str, why: str) -> list[Any]:
        """The values of the header in its shape. Raises ChordError."""
        if why != "complete":
            count, wanted = self._chords.counted(name)
            if why == "counter":
                raise ChordError(f"{count} parts have ended, and how many there are is not known: the counter is lost")
            raise ChordError(f"only {count} of {wanted} parts have ended before the chord expired")
        parts = self._chords.values(name)
        saved = self._chords.restore(name)
        if saved is None:
            return [value for _, value in parts]
        found: list[Any] = _in_shape(saved, dict(parts))
        return found

    def _send(self, name: str, run: str, follows: list[Follow]) -> None:
        """Results and parts of other chords first (told twice they change nothing), then the messages, once."""
        records = [(each.key, each.ttl_s, each.data) for each in follows if isinstance(each, Record)]
        if records:
            self._app.backend.store_records(records)
        parts = [self._chords.part(each) for each in follows if isinstance(each, ChordPart)]
        for other in self._chords.count(parts) if parts else ():
            self.complete(other)
        words: list[Any] = [keys.CHORD_SENT_S]
        for each in follows:
            if not isinstance(each, Record | ChordPart):
                words += self._settler.write_of(each)
        broker = self._app.broker
        SEND_ONCE.run(broker.client, [broker.key(keys.chord_sent(name, run))], words)


def _in_shape(saved: Any, values: Mapping[str, Any]) -> Any:
    """Values in the shape of the results that were saved of a header: groups in it are lists. Raises ChordError."""
    (own_id, _parent), nodes = saved
    if nodes is not None:
        return [_in_shape(node, values) for node in nodes]
    if own_id not in values:
        raise ChordError(f"Join error: nothing is known of the part {own_id}")
    return values[own_id]


class Watch(threading.Thread):
    """The reaper of chords, in the parent: looks for those that nobody looks after. It sends none itself."""

    def __init__(self, chords: Any, folder: Path, tell: Callable[[Path], None]) -> None:
        """`tell` has a fresh child of the template read the file (`dispatch_file`)."""
        super().__init__(name="opsq-chords", daemon=True)
        self._chords, self._folder, self._tell = chords, folder, tell
        self._poked = threading.Event()
        self._ended = False

    def poke(self) -> None:
        """Look soon: something was settled by somebody who sends no bodies."""
        self._poked.set()

    def end(self) -> None:
        """Nobody looks after chords here any more."""
        self._ended = True
        self._poked.set()

    def run(self) -> None:
        """Look every few seconds, until `end` or as long as the process lives."""
        while not self._ended:
            if self._poked.wait(LOOK_S):
                self._poked.clear()
                time.sleep(SOON_S)
            if self._ended:
                return
            try:
                found = [] if _open_orders(self._folder) >= OPEN_ORDERS else self._chords.look()
                random.shuffle(found)  # a body that ends its sender must not stand before the same others each time
                for first in range(0, len(found), TOGETHER):
                    self._tell(_write(self._folder, found[first : first + TOGETHER], self._chords.token))
            except TROUBLE as error:
                logger.debug("cannot look after chords: %s", error)


def _write(folder: Path, found: Sequence[tuple[str, str]], token: str) -> Path:
    """Write down whose bodies are to be sent: chords, each with the reason."""
    return write_new(folder, SUFFIX, msgspec.msgpack.encode((found, token)))


def _open_orders(folder: Path) -> int:
    """How many that were written down a moment ago are still there."""
    found = 0
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):  # it has just been taken
            found += abs(time.time() - path.stat().st_mtime) < OPEN_S
    return found


def dispatch_file(path: Path, app: Any, settler: Settler) -> None:
    """Send the bodies of the chords that were written down, unless others do meanwhile."""
    found, token = msgspec.msgpack.decode(path.read_bytes())
    path.unlink()
    own = app.backend.chords
    conductor = Conductor(app, settler)
    for name, why in found:
        try:
            taken = own.take(name, token)
        except (*TROUBLE, OpsqError) as error:
            logger.warning("bodies of chords are not sent yet: %s", error)
            return
        if taken:
            conductor.dispatch(name, why)
    conductor.finish()
