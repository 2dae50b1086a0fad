"""The mapped file of a worker: what each child runs and since when, and the page of facts that the parent tells them.

Its pages outlive kill -9 of everybody (they are the kernel's), so whoever comes next knows what had been started.
After a power cut the file does not count: it carries the boot id. The parent alone locks it, through
a second open of the file.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsq.runtime import flock
from opsq.runtime.process import boot_id

MAGIC = 0x32_54_4F_4C_53_51_50_4F  # "OPSQLOT2", little-endian
#: The parent's page, with the facts about the worker.
PAGE = 65_536
SLOT = 256
#: Slots of a worker; a slot is used again only after what its last child held was settled.
COUNT = 1024
#: Each slot's two notebooks of settlements that are not yet confirmed, in bytes. The file is sparse: what is not used
#: takes no room.
NOTEBOOK = 32_768
SIZE = PAGE + COUNT * (SLOT + 2 * NOTEBOOK)

# The parent's page: words of 8 bytes.
_MAGIC, GENERATION, DEADLINE_NS, LAPSES, STOPPING, WATCHING, EVENTS, CLOCK = range(8)
BROKER_EPOCH_MS, HELP, FACTS_AT, LIMITS, OVERRIDES, REPLACING, CROWD = range(8, 15)
_BOOT = slice(128, 192)
#: Two places for the facts; the word FACTS_AT tells which one counts, so that nobody ever reads half of them.
_FACTS = (slice(512, PAGE // 2), slice(PAGE // 2, PAGE))

# A slot: words of 8 bytes; the last part of a slot names the task that runs, if it has a time limit.
_NAME = slice(168, SLOT)
PID, TICKS, FIRST, HIGHEST, CURRENT, STARTED_NS, SOFT_NS, HARD_NS, SEEN, STATE, DONE, SOFT_NUMBER, SOFT_TOLD, LEAVE = (
    range(14)
)
_HIGHEST_AT = HIGHEST * 8
#: How much is written in each of the two notebooks (bytes).
NOTED = (14, 15)
#: In a child that runs many at once: how many. CURRENT and what belongs to it then is the message whose hard limit
#: comes first, if there is one.
RUNNING = 16
#: There too: the message that is to end because it was revoked, and by which signal; the child takes the order away.
END_NUMBER, END_SIGNAL = 17, 18
#: The child holds what it may not know: it is to compare; the child takes the order away.
DOUBT = 19
#: How many children it has had; stays when a slot becomes free.
BIRTHS = 20
#: Between the first numbers of two children of one slot, and of how many in turn. A turn that a dead child had sent may
#: be carried out after its successor's first ones, in the same consumer's name: it must not meet their messages.
#: All stay below 2**53, which scripts count up to.
_APART, _IN_TURN = 2**40, 4096
FREE, STARTING, IDLE, BUSY, LEAVING, SETTLING = range(6)

_begin = struct.Struct("=QQQQQ").pack_into
#: In a notebook, in the place of a length: a number follows, of a success of which nothing is to be written.
_SUCCESS, _SUCCESS_SIZE = 2**32 - 1, 12
_success = struct.Struct("<IQ").pack_into


@dataclass(frozen=True, slots=True)
class Facts:
    """Whose file it is: the worker's id, the queues it consumes, and which broker (a digest, never the URL)."""

    worker: str
    queues: list[str]
    broker: str
    parent: list[int]


class Slots:
    """The file, mapped. `words` is the parent's page, `slot(i)` one child's part; both as unsigned 64-bit numbers."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """`descriptor`: of the file, or -1 for memory of this process alone."""
        self.path = path
        self._map = mmap.mmap(descriptor, SIZE)
        if descriptor >= 0:
            os.close(descriptor)
        self.words = memoryview(self._map)[:512].cast("Q")
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path, facts: Facts) -> Slots:
        """Make and lock the file of a worker that starts.

        It is locked before it has its size: nobody claims what is smaller, to take it away as of somebody who has gone.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # of its own: every child closes it (`let_go`)
        flock.take(lock)
        os.ftruncate(descriptor, SIZE)
        slots = cls(path, descriptor)
        slots._lock = lock
        slots._map[_BOOT] = boot_id().encode().ljust(64, b"\0")
        slots.write_facts(facts)
        slots.words[_MAGIC] = MAGIC
        return slots

    @classmethod
    def private(cls, facts: Facts) -> Slots:
        """Of a worker that is one process: nobody else reads it, and it goes with its process."""
        slots = cls(Path(), -1)
        slots.write_facts(facts)
        return slots

    @classmethod
    def claim(cls, path: Path) -> Slots | None:
        """The file of a worker that has gone, now locked by us; None while its parent lives, or for another file."""
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if not flock.try_to_take(lock) or os.fstat(lock).st_size != SIZE or os.fstat(lock).st_nlink == 0:
                raise OSError("not a whole file of ours, or already taken away")
            slots = cls(path, os.open(path, os.O_RDWR))
        except OSError:
            os.close(lock)
            return None
        slots._lock = lock
        return slots

    @classmethod
    def attach(cls, path: Path) -> Slots:
        """The file of the worker one belongs to, without its lock."""
        return cls(path, os.open(path, os.O_RDWR))

    @property
    def counts(self) -> bool:
        """True when the file is whole and of this boot: what it says was so when its writer died."""
        return self.words[_MAGIC] == MAGIC and bytes(self._map[_BOOT]).rstrip(b"\0").decode() == boot_id()

    @property
    def facts(self) -> Facts:
        """Whose file it is."""
        text = bytes(self._map[_FACTS[self.words[FACTS_AT]]])
        worker, queues, broker, parent = json.loads(text.rstrip(b"\0"))
        return Facts(worker, queues, broker, parent)

    def write_facts(self, facts: Facts) -> None:
        """Say whose file it is; what was said before counts until all of it is written. Raises ValueError."""
        place = self.words[FACTS_AT] ^ 1
        room = _FACTS[place]
        text = json.dumps([facts.worker, facts.queues, facts.broker, facts.parent]).encode()
        if len(text) > room.stop - room.start:
            raise ValueError(f"the names of {len(facts.queues)} queues are too long for the file of a worker")
        self._map[room] = text.ljust(room.stop - room.start, b"\0")
        self.words[FACTS_AT] = place

    def let_go(self) -> None:
        """Close the lock's descriptor; a child does so after the fork."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """The worker has ended and everything is settled: its files go."""
        for path in self.path.parent.glob(f"{self.path.stem}.*"):
            path.unlink(missing_ok=True)
        self.let_go()

    def slot(self, index: int) -> Slot:
        """One child's part."""
        start, notes = PAGE + index * SLOT, PAGE + COUNT * SLOT + index * 2 * NOTEBOOK
        view = memoryview(self._map)
        return Slot(index, view[start : start + SLOT], view[notes : notes + 2 * NOTEBOOK])

    def used(self) -> Iterator[Slot]:
        """The slots that a child has, or had and nobody has settled."""
        for index, state in enumerate(self._states()):
            if state != FREE:
                yield self.slot(index)

    def free(self, count: int) -> list[Slot]:
        """So many slots that nobody uses, or as many as there are."""
        free = [index for index, state in enumerate(self._states()) if state == FREE]
        return [self.slot(index) for index in free[:count]]

    def _states(self) -> list[int]:
        """The states of all slots."""
        words = memoryview(self._map)[PAGE : PAGE + COUNT * SLOT].cast("Q")
        return words[STATE :: SLOT // 8].tolist()


class Slot:
    """One child's part of the file."""

    __slots__ = ("_bytes", "_notes", "index", "words")

    def __init__(self, index: int, view: memoryview, notes: memoryview) -> None:
        self.index = index
        self._bytes, self._notes = view, notes
        self.words = view.cast("Q")

    def clear(self) -> None:
        """Nobody uses it any more."""
        births = self.words[BIRTHS]
        self._bytes[:] = bytes(SLOT)
        self.words[BIRTHS] = births

    @property
    def first_number(self) -> int:
        """The number of the first message of the child that has it now."""
        return 1 + max(self.words[BIRTHS] - 1, 0) % _IN_TURN * _APART

    def begin(self, number: int, now_ns: int, soft_ns: int, hard_ns: int) -> None:
        """A message begins to run; limits are points of the monotonic clock, 0 = none.

        The highest number is written first: whoever reads in between takes the message for started, never the other
        way.
        """
        _begin(self._bytes, _HIGHEST_AT, number, number, now_ns, soft_ns, hard_ns)

    def end(self) -> None:
        """The message that ran has ended."""
        self.words[CURRENT] = 0

    @property
    def running(self) -> int:
        """How many messages run."""
        return self.words[RUNNING] or int(self.words[CURRENT] != 0)

    def name_task(self, name: str) -> None:
        """Write down what runs, for whoever speaks of it."""
        self._bytes[_NAME] = name.encode(errors="replace")[: SLOT - _NAME.start].ljust(SLOT - _NAME.start, b"\0")

    @property
    def task_name(self) -> str:
        """What runs, if it was written down."""
        return bytes(self._bytes[_NAME]).rstrip(b"\0").decode(errors="ignore")

    def had_started(self, number: int) -> bool:
        """Whether a message that is still held had been started, by all that the child wrote down."""
        return self.words[FIRST] <= number <= self.words[HIGHEST]

    # -- what has ended and is not yet confirmed ---------------------------------------------------------------------

    def note(self, book: int, text: bytes) -> None:
        """Write a settlement into one of the two notebooks; when it is full, the message counts as started only."""
        used = self.words[NOTED[book]]
        end = used + 4 + len(text)
        if end > NOTEBOOK:
            return
        start = book * NOTEBOOK
        self._notes[start + used : start + end] = len(text).to_bytes(4, "little") + text
        self.words[NOTED[book]] = end

    def note_success(self, book: int, number: int) -> None:
        """The same for a success of which nothing is to be written: its number says it all."""
        words, place = self.words, NOTED[book]
        used = words[place]
        if used + _SUCCESS_SIZE > NOTEBOOK:
            return
        _success(self._notes, book * NOTEBOOK + used, _SUCCESS, number)
        words[place] = used + _SUCCESS_SIZE

    def wipe(self, book: int) -> None:
        """What is in a notebook is confirmed."""
        self.words[NOTED[book]] = 0

    def notes(self) -> Iterator[bytes | int]:
        """All settlements that were noted and not confirmed; the numbers of plain successes."""
        for book in (0, 1):
            at, end = 0, min(self.words[NOTED[book]], NOTEBOOK)
            while at < end:
                start = book * NOTEBOOK + at
                length = int.from_bytes(self._notes[start : start + 4], "little")
                if length == _SUCCESS:
                    yield int.from_bytes(self._notes[start + 4 : start + _SUCCESS_SIZE], "little")
                    at += _SUCCESS_SIZE
                    continue
                yield bytes(self._notes[start + 4 : start + 4 + length])
                at += 4 + length
