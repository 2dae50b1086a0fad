"""How a child without work waits: for its turn at the worker's waiting lock, then on its socket for a notice.

One child of a worker waits at the broker, the others wait for it: a push then wakes one waiter a worker, not one a
child. The lock is a flock, which the kernel frees when its holder dies. SIGUSR1 ends either wait (`Woken`).

A child that was given less than it asked for has emptied the queues: it keeps the lock while it runs that, and arms the
turn that settles it. So a short task wakes nobody else, and costs one turn. `let_go` is called as soon as somebody else
could have work: when all that was asked for came, or (by the stall thread) when a task takes long.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from opsq.broker.consumer import Consumer, Turn
from opsq.runtime import flock
from opsq.worker.crowd import Crowd

#: Who has met messages that only others can run lets these go first so long, when it is woken (seconds).
DEFERENCE_S = 0.03
#: How often a server that gives no notices is asked (seconds): from, to.
POLL_S = (0.05, 1.0)


def stay_away(consumer: Consumer, crowd: Crowd, sleep: Callable[[float], object]) -> bool:
    """A waiter is woken: let others go first, if it has met messages that only they can run, and then the crowd.

    True when it was away for the crowd: somebody else may have taken what there was.
    """
    if consumer.defers_until_s:
        if time.monotonic() < consumer.defers_until_s:
            sleep(DEFERENCE_S)
        else:
            consumer.defers_until_s = 0.0
    delay_s = crowd.delay_s()
    if delay_s:
        sleep(delay_s)
    return delay_s > 0


class Woken(BaseException):
    """The parent wants something; raised only while a child waits, so that it cannot hit anything else."""


class Waiting:
    """The waiting of one child."""

    def __init__(self, lock: Path, lease_s: float, crowd: Crowd) -> None:
        self._path, self._lease_s, self._crowd = lock, lease_s, crowd
        self._descriptor: int | None = None
        self._handler: Callable[[int, FrameType | None], None] = self.on_signal
        self.held = False
        self._may_wake = False
        self._poll_s = POLL_S[0]

    def install(self, handler: Callable[[int, FrameType | None], None]) -> None:
        """In the child: open the lock's file anew (a lock belongs to an open file); `handler` gets SIGUSR1."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._handler = handler
        signal.signal(signal.SIGUSR1, handler)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """SIGUSR1: wake the child if it waits."""
        if self._may_wake:
            self._may_wake = False
            raise Woken

    def for_work(self, consumer: Consumer, want: int, wanted: Any) -> Turn | None:
        """Wait until a turn brings messages, or says something else that must be looked at; None when woken.

        `wanted(turn)` is true for a turn that the caller must see.
        """
        keep = look = False
        if signal.getsignal(signal.SIGUSR1) is not self._handler:  # a task has taken it away
            signal.signal(signal.SIGUSR1, self._handler)
        try:
            if not self.held:
                self._take_lock()
            while True:
                if not (self.held and consumer.listening) and not (look and consumer.arm()):
                    turn = consumer.turn((), want, armed=consumer.tracks)
                    if turn.leased or turn.unregistered or wanted(turn):
                        self._crowd.fed()
                        self._poll_s = POLL_S[0]
                        keep = 0 < sum(len(leased.messages) for leased in turn.leased) < want
                        return turn
                look = self._sleep(consumer)
                consumer.listening = False
        except Woken:
            return None
        finally:
            self._may_wake = False
            if not keep:
                self.let_go()

    def pause(self, seconds: float) -> None:
        """Sleep, unless woken."""
        try:
            self._may_wake = True
            time.sleep(seconds)
        except Woken:
            pass
        finally:
            self._may_wake = False

    def _take_lock(self) -> None:
        assert self._descriptor is not None
        self._may_wake = True
        flock.take(self._descriptor)
        self.held = True
        self._may_wake = False

    def let_go(self) -> None:
        """Let another child wait at the broker; also from the stall thread."""
        self.held = False
        if self._descriptor is not None:
            flock.let_go(self._descriptor)

    def _sleep(self, consumer: Consumer) -> bool:
        """Until there may be something: a notice, a lease without one, or the next turn at a server without notices.

        True when a look will do before a turn: nothing was told, or somebody else may have taken what there was.
        """
        if not consumer.tracks:
            self._doze(self._poll_s)
            self._poll_s = min(self._poll_s * 2, POLL_S[1])
            return False
        deadline = time.monotonic() + self._lease_s
        while not consumer.noticed and (left := deadline - time.monotonic()) > 0:
            self._may_wake = True
            ready = consumer.readable(left)
            self._may_wake = False
            if ready:
                consumer.read_notices()
        if not consumer.noticed:
            self._crowd.fed()
            return True  # a notice may have got lost with its connection
        return stay_away(consumer, self._crowd, self._doze)

    def _doze(self, seconds: float) -> None:
        self._may_wake = True
        time.sleep(seconds)
        self._may_wake = False
