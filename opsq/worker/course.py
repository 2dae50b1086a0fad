"""The course of one message among many: taken in its turn, begun, run where it was taken or in the loop, ended."""

from __future__ import annotations

from collections.abc import Callable

from opsq.worker.attempt import Attempts
from opsq.worker.runs import Run, Runs


class Course:
    """What an executor runs: the messages of one child."""

    def __init__(self, runs: Runs, attempts: Attempts, on_end: Callable[[], None]) -> None:
        """`on_end`: is told of what the child may be waiting for."""
        #: That a task has begun is stored, before it does.
        self.begins_slowly = any(task.track_started for task in attempts.runner.tasks.values())
        self._runs, self._attempts, self._runner = runs, attempts, attempts.runner
        self.take, self.ended = runs.take, on_end

    def begin(self, run: Run) -> bool:
        """Read it; false when it is not run, and is settled."""
        try:
            opened = self._attempts.open(run.held)
        except Exception as error:
            self._attempts.unforeseen(run.held, error)
            opened = None
        run.opened = True
        if opened is None:
            self._runs.ended(run, False)
            return False
        run.message, run.plan = opened
        return True

    def finish(self, run: Run) -> None:
        """Run its task here, and settle it."""
        ran = False
        try:
            self._runs.start(run)
            outcome = self._runner.run(run.message, run.plan)
            self._attempts.close(run.held, run.message, run.plan, outcome)
            ran = True
        except Exception as error:
            self._attempts.unforeseen(run.held, error)
        self._runs.ended(run, ran)

    def run(self, run: Run) -> None:
        """All of it, here."""
        if self.begin(run):
            self.finish(run)

    async def run_in_loop(self, run: Run) -> None:
        """The same as `finish` for a task that is a coroutine."""
        ran = False
        try:
            self._runs.start(run)
            assert run.plan is not None
            outcome = await self._runner.run_in_loop(run.message, run.plan, run)
            self._attempts.close(run.held, run.message, run.plan, outcome)
            ran = True
        except Exception as error:
            self._attempts.unforeseen(run.held, error)
        self._runs.ended(run, ran)
