"""How a child that runs many tasks at once waits: for the broker, for tasks that end, and for its parent, together."""

from __future__ import annotations

import signal

from opsq.broker.consumer import Consumer
from opsq.runtime.bell import Bell
from opsq.runtime.ready import readable


class Alarm:
    """Ends a wait: `ring` and `call` from any thread, SIGUSR1 from the parent."""

    def __init__(self) -> None:
        self._bell = Bell()
        self._rung = False

    def install(self) -> None:
        """In the main thread of the child: take SIGUSR1."""
        signal.signal(signal.SIGUSR1, lambda *_: None)
        self.take_signals()

    def take_signals(self) -> None:
        """In the main thread: any signal that has a handler ends the wait."""
        signal.set_wakeup_fd(self._bell.writer, warn_on_full_buffer=False)

    def ring(self) -> None:
        """End the wait, or the next one."""
        if not self._rung:
            self._rung = True
            self._bell.ring()

    def call(self) -> None:
        """The same as the parent's signal, from another thread of this process."""
        self._bell.ring(b"\1")

    def wait(self, seconds: float | None, consumer: Consumer | None = None) -> bool:
        """Until it rings, the consumer's connection can be read, or so long; true when the parent wants something."""
        if consumer is not None and consumer.readable(0):
            return False
        reader = self._bell.reader
        descriptors = [reader] if consumer is None else [reader, consumer.fileno()]
        return reader in readable(descriptors, seconds) and self._read()

    def _read(self) -> bool:
        told = self._bell.read()
        self._rung = False  # last: who rings in between has changed before what the caller looks at now
        return any(told)

    def pause(self, seconds: float) -> None:
        """Sleep, unless the parent wants something or a task ends."""
        self.wait(seconds)

    def let_go(self) -> None:
        """Nobody waits behind this child: there is one of its kind in a worker."""
