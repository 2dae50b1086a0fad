"""The ledger of a child that runs many messages at once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from opsq.broker.settlement import Settlement
from opsq.worker.ledger import Ledger
from opsq.worker.runs import Runs


class SharedLedger(Ledger):
    """A ledger into which several threads write what has ended."""

    #: What runs; told by the line.
    runs: Runs

    def __init__(self, *arguments: Any, lock: AbstractContextManager[Any]) -> None:
        super().__init__(*arguments)
        self._writing = lock

    def running(self) -> list[int]:
        """The numbers of the messages that are being run."""
        return self.runs.numbers()

    def send(self, want: int, armed: bool = False) -> None:
        """With what ends goes what this process has spent since the last turn: tasks overlap here."""
        costs = self.consumer.costs
        if self.runs or self.owes:
            costs.end()
        costs.begin()
        super().send(want, armed)

    def settle_run(self, settlement: Settlement) -> None:
        """The notes are written by one at a time."""
        with self._writing:
            super().settle_run(settlement)

    #: What does not run is noted too: it was taken in its turn, and would count as started.
    settle = settle_run
