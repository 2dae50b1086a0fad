"""One message becomes one Outcome: resolve, decode, guard, call, judge. Touches neither Redis nor processes.

Built for the hot path: what is known of a task is looked up once (`Plan`), what a message does not need is not read.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Literal

from opsq import _state, signals, states
from opsq.concurrency.base import Job
from opsq.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    Ignore,
    NotRegistered,
    OpsqError,
    Reject,
    Retry,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
)
from opsq.execution import telling, workflow
from opsq.execution.context import Context
from opsq.execution.followups import next_try
from opsq.execution.outcome import Outcome, Replaced
from opsq.execution.plan import Around, Plan
from opsq.execution.workflow import Following
from opsq.protocol.envelope import NO_EMBED, Envelope

#: (request, state, value or error, traceback) -> the record to store. Raises EncodeError.
Record = Callable[[Context, str, Any, "str | None"], bytes]


class _Refused(Exception):
    """A message cannot be run."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class Runner:
    """Runs messages of the tasks of one app, in this process."""

    def __init__(
        self,
        tasks: Mapping[str, Any],
        accept: frozenset[str],
        hostname: str,
        record: Record | None,
        following: Following | None = None,
    ) -> None:
        """`accept`: content types that may be read; `record` is None when no results are kept; `following` sends what
        follows a task (None: such a task is refused)."""
        self.tasks, self.accept, self.hostname, self.record = tasks, accept, hostname, record
        self.following = following
        #: True: what cannot be run is thrown away, as Celery does; else it is a dead letter.
        self.discards = False
        self.plans: dict[str, Plan] = {}
        #: True while a task's own code runs: only then may a time limit interrupt this thread.
        self.inside = False
        #: Makes a task's function one that can be interrupted, where it takes more than a signal.
        self.wrap: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
        #: What a framework does around each task.
        self.around: Around | None = None

    def plan(self, name: str) -> Plan | None:
        """What is known of a task; None when there is no such task."""
        plan = self.plans.get(name)
        if plan is None and name in self.tasks:
            plan = Plan(self.tasks[name], self.around)
            if self.wrap is not None:
                plan.call = self.wrap(plan.call)
            self.plans[name] = plan
        return plan

    def run(self, message: Envelope, plan: Plan | None = None) -> Outcome:
        """Run one message. Never raises for what a task or a message does wrong."""
        plan = plan or self.plan(message.headers.task)
        try:
            request, args, kwargs, follows = self._open(message, plan)
        except _Refused as refused:
            return refused.outcome
        assert plan is not None
        token = _state.push_request(request)
        try:
            return self._call(plan, request, args, kwargs, follows)
        finally:
            _state.pop_request(token)

    async def run_in_loop(self, message: Envelope, plan: Plan, job: Job) -> Outcome:
        """The same for a task whose code is a coroutine, in the loop that runs here and in a context of its own."""
        try:
            request, args, kwargs, follows = self._open(message, plan)
        except _Refused as refused:
            return refused.outcome
        _state.push_request(request)  # in this context, which ends with it
        told = signals.around_runs or not plan.quiet
        if told and signals.task_prerun.receivers:
            signals.task_prerun.send(plan.task, task_id=request.id, task=plan.task, args=args, kwargs=kwargs)
        begin = perf_counter()
        try:
            if told and "before_start" in plan.handlers:
                plan.task.before_start(request.id, args, kwargs)
            assert plan.coroutine is not None
            value = await plan.coroutine(*args, **kwargs)
            if job.verdict is not None:
                raise job.verdict
            outcome = self._success(plan, request, value, follows)
        except BaseException as error:  # whatever a task raises is its outcome, unless it was ended from outside
            outcome = self._judge(plan, request, error if job.verdict is None else job.verdict)
        outcome.runtime_s = perf_counter() - begin
        if told:
            telling.ended(plan, request, outcome, args, kwargs)
        return outcome

    def _open(self, message: Envelope, plan: Plan | None) -> tuple[Context, Any, Any, bool]:
        """The request of a message, its arguments, and whether something follows. Raises _Refused."""
        if plan is None:
            name = message.headers.task
            raise _Refused(self.refuse(message, NotRegistered(name), f"unknown task {name!r}"))
        try:
            args, kwargs, embed = message.arguments(self.accept)
        except (DecodeError, ContentDisallowed) as error:
            raise _Refused(self.refuse(message, error, str(error))) from None
        request = Context.of(message, plan.task, self.hostname, args, kwargs)
        follows = embed is not NO_EMBED and embed != NO_EMBED
        if follows:
            request.update({name: embed.get(name) for name in NO_EMBED})
            if self.following is None:
                reason = "nothing can follow a task here"
                raise _Refused(self.refuse(message, OpsqError("cannot run the task", why=reason), reason))
        return request, args, kwargs, follows

    def _call(self, plan: Plan, request: Context, args: Any, kwargs: Any, follows: bool) -> Outcome:
        told = signals.around_runs or not plan.quiet
        if told and signals.task_prerun.receivers:
            signals.task_prerun.send(plan.task, task_id=request.id, task=plan.task, args=args, kwargs=kwargs)
        begin = perf_counter()
        try:
            if told and "before_start" in plan.handlers:
                plan.task.before_start(request.id, args, kwargs)
            self.inside = True
            try:
                value = plan.call(*args, **kwargs)
            finally:
                self.inside = False
            outcome = self._success(plan, request, value, follows)
        except BaseException as error:  # whatever a task raises is its outcome
            outcome = self._judge(plan, request, error)
        outcome.runtime_s = perf_counter() - begin
        if told:
            telling.ended(plan, request, outcome, args, kwargs)
        return outcome

    def _success(self, plan: Plan, request: Context, value: Any, follows: bool) -> Outcome:
        after: Sequence[workflow.Follow] = ()
        if follows:  # first, so that the record can name those that it has sent
            assert self.following is not None
            after = workflow.after_success(self.following, request, value)
        record = None
        if self.record is not None and not plan.ignores(request.ignore_result):
            record = self.record(request, states.SUCCESS, value, None)
        return Outcome(states.SUCCESS, value, None, record, after)

    # -- what was raised --------------------------------------------------------------------------------------------

    def _judge(self, plan: Plan, request: Context, error: BaseException) -> Outcome:
        if isinstance(error, Retry):
            try:
                return self._retry(plan, request, error)
            except Exception as trouble:
                error = trouble
        if isinstance(error, Ignore):
            return self._ignored(request, error)
        if isinstance(error, Reject):
            return self._reject(plan, request, error)
        if isinstance(error, Terminated):
            return self._terminated(plan, request, error)
        outcome = self.failure(plan, request, error, traceback_text(error))
        workflow.call_errbacks(self.tasks, request, error, outcome.traceback)
        outcome.expected = isinstance(error, plan.throws)
        if isinstance(error, TimeLimitExceeded) and not plan.acks_timeouts:
            outcome.dead = f"it exceeded its time limit ({error}), and such are not acknowledged"
        if not plan.acks_failures:
            outcome.dead = f"it failed ({type(error).__name__}), and its failures are not acknowledged"
        return outcome

    def _terminated(self, plan: Plan, request: Context, error: Terminated) -> Outcome:
        """It was revoked while it ran, and interrupted."""
        outcome = self.failure(plan, request, TaskRevokedError("terminated"), None, "REVOKED")
        outcome.value = error
        telling.revoked(plan, request, False, error.args[0])
        return outcome

    def _ignored(self, request: Context, error: Ignore) -> Outcome:
        outcome = Outcome(states.IGNORED, error)
        if isinstance(error, Replaced):
            outcome.follows = error.follows
        elif request.chord and self.following is not None:
            outcome.follows = workflow.after_ignored(self.following, request)
        return outcome

    def _retry(self, plan: Plan, request: Context, retry: Retry) -> Outcome:
        assert request.envelope is not None
        follow = next_try(request, request.envelope, retry, {name: request.get(name) for name in NO_EMBED})
        text = traceback_text(retry)
        record = None
        if self.record is not None and not plan.ignores(request.ignore_result):
            record = self.record(request, states.RETRY, retry.exc or retry, text)
        return Outcome(states.RETRY, retry, text, record, [follow])

    def _reject(self, plan: Plan, request: Context, reject: Reject) -> Outcome:
        if reject.requeue:
            return Outcome(states.REJECTED, reject, requeue=True)
        outcome = self.failure(plan, request, reject, None)
        workflow.call_errbacks(self.tasks, request, reject, None)
        outcome.dead = f"rejected: {reject.reason}"
        return outcome

    def failure(
        self,
        plan: Plan | None,
        request: Context,
        error: BaseException,
        text: str | None,
        state: Literal["FAILURE", "REVOKED"] = "FAILURE",
    ) -> Outcome:
        """The outcome of an error: its record is kept unless nobody wants it, and its workflow is told."""
        ignored = bool(request.ignore_result) if plan is None else plan.ignores(request.ignore_result)
        record = None
        if self.record is not None and (not ignored or (plan is not None and plan.store_errors)):
            record = self._error_record(request, error, text, state)
        outcome = Outcome(state, error, text, record)
        known = request.at_hand()
        if self.following is not None and (known.get("errbacks") or known.get("chain") or known.get("chord")):
            outcome.follows = workflow.after_failure(self.following, self.tasks, request, state, error, text)
        return outcome

    def ended_outside(
        self, message: Envelope, error: BaseException, state: Literal["FAILURE", "REVOKED"] = "FAILURE"
    ) -> Outcome:
        """The outcome of a message that has ended otherwise than by its run: it was expired, revoked, killed, lost."""
        plan = self.plan(message.headers.task)
        request = self.request_of(message, plan)
        token = _state.push_request(request)
        try:
            return self.failure(plan, request, error, None, state)
        finally:
            _state.pop_request(token)

    def request_of(self, message: Envelope, plan: Plan | None) -> Context:
        """The request of a message that does not run, as far as it can be read."""
        request = Context.of(message, plan and plan.task, self.hostname)
        try:
            args, kwargs, embed = message.arguments(self.accept)
        except (DecodeError, ContentDisallowed):
            return request
        request.update({name: embed.get(name) for name in NO_EMBED})
        request.update(args=args, kwargs=kwargs)
        return request

    def _error_record(self, request: Context, error: BaseException, text: str | None, state: str) -> bytes:
        assert self.record is not None
        try:
            return self.record(request, state, error, text)
        except EncodeError as trouble:
            return self.record(request, state, trouble, text)

    def revoked(self, message: Envelope, why: str) -> Outcome:
        """The outcome of a task that is not run, or was killed: `why` is expired, revoked or terminated."""
        return self.ended_outside(message, TaskRevokedError(why), "REVOKED")

    def refuse(self, message: Envelope, error: BaseException, reason: str) -> Outcome:
        """A message that cannot be run: its record says why; it is a dead letter, or thrown away."""
        if isinstance(error, NotRegistered) and signals.task_unknown.receivers:
            headers = message.headers
            signals.task_unknown.send(None, message=message, exc=error, name=headers.task, id=headers.id)
        outcome = self.ended_outside(message, error)
        unread = isinstance(error, DecodeError | ContentDisallowed)
        if unread and self.following is not None and message.headers.group:
            outcome.follows = workflow.unreadable_part(self.following, message, error)
        outcome.dead = None if self.discards else reason
        return outcome


def traceback_text(error: BaseException) -> str:
    """The traceback from the task's own first line on: without what opsq has put around its function."""
    found = error.__traceback__
    while found is not None and _module(found) == __name__:
        found = found.tb_next
    first = found
    while first is not None and _module(first).startswith("opsq."):
        first = first.tb_next
    return "".join(traceback.format_exception(type(error), error, first or found))  # all of it of tasks that are opsq's


def _module(found: TracebackType) -> str:
    return str(found.tb_frame.f_globals.get("__name__"))
