"""What the end of a run means for its workflow: callbacks, the next step of a chain, errbacks, the part of a chord.

A signature is a plain dictionary here, as it travels; `Following` makes messages of it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from opsq import states
from opsq.exceptions import ChordError
from opsq.execution.context import Context
from opsq.execution.outcome import ChordPart, FollowUp, Record
from opsq.protocol.envelope import Envelope

logger = logging.getLogger("opsq.worker")

Signature = Mapping[str, Any]
Follow = FollowUp | Record | ChordPart


class Following(Protocol):
    """What knows how signatures are sent, and how results are written."""

    def unfold(self, signature: Signature, args: Sequence[Any], **options: Any) -> Sequence[FollowUp | Record]:
        """What a call comes to: messages, not yet sent, and what their workflow needs among the results."""

    def unfold_errbacks(self, errbacks: Signature, args: Sequence[Any]) -> Sequence[FollowUp | Record]:
        """The same of a group of errbacks."""

    def member(self, task_id: str, state: str, value: Any) -> bytes:
        """A part of a chord as it is kept. Raises EncodeError."""

    def failed(
        self, task_id: str, group_id: str | None, state: str, error: BaseException, text: str | None
    ) -> Record | None:
        """The record of a task that will never run; None when none are kept."""


def after_success(following: Following, request: Context, value: Any) -> list[Follow]:
    """Its callbacks get the value, then the next step of its chain; it is a part of its chord."""
    found: list[Follow] = []
    callbacks = list(request.callbacks or ())
    if len(callbacks) > 1:
        groups = [each for each in callbacks if each.get("subtask_type") == "group"]
        plain = [each for each in callbacks if each.get("subtask_type") != "group"]
        callbacks = [*groups, *([group_of(plain)] if plain else [])]
    for callback in callbacks:
        found += following.unfold(callback, (value,))
    if request.chain:
        *rest, following_step = request.chain
        found += following.unfold(following_step, (value,), chain=rest)
    if request.chord:
        found.append(part_of(following, request, states.SUCCESS, value))
    return found


def after_failure(
    following: Following,
    tasks: Mapping[str, Any],
    request: Context,
    state: str,
    error: BaseException,
    text: str | None,
) -> list[Follow]:
    """Its part of the chord has failed, and so have all steps that wait for it; a failure's errbacks are sent.

    `state`: FAILURE or REVOKED.
    """
    found: list[Follow] = []
    if request.chord:
        found.append(part_of(following, request, state, error))
    for signature in request.chain or ():
        fail_signature(following, found, signature, state, error, text)
    if state == states.FAILURE:
        send_errbacks(following, found, request, tasks)
    return found


def after_ignored(following: Following, request: Context) -> list[Follow]:
    """A task that has said nothing: its chord must not wait for it for ever."""
    found: list[Follow] = []
    if request.chord:
        found.append(part_of(following, request, states.FAILURE, ChordError("the task was ignored (Ignore)")))
    return found


def fail_signature(
    following: Following, found: list[Follow], signature: Signature, state: str, error: BaseException, text: str | None
) -> None:
    """Tasks that will never run have failed too, so that nobody waits for them."""
    for task in tasks_of(signature):
        options = task.get("options") or {}
        task_id = options.get("task_id")
        if task_id is None:
            continue
        group_id = options.get("group_id")
        record = following.failed(task_id, group_id, state, error, text)
        if record is not None:
            found.append(record)
        if options.get("chord"):
            request = Context(id=task_id, group=group_id, chord=options["chord"], root_id=options.get("root_id"))
            request.update(group_index=options.get("group_index"))
            found.append(part_of(following, request, state, error))


def tasks_of(signature: Signature) -> Iterator[Signature]:
    """The plain tasks that a signature comes to, as far as somebody may wait for them."""
    kind, held = signature.get("subtask_type"), signature.get("kwargs") or {}
    if kind in ("chain", "group"):
        for each in held.get("tasks") or ():
            yield from tasks_of(each)
    elif kind == "chord":
        if held.get("body"):
            yield from tasks_of(held["body"])
    else:
        yield signature
    for each in (signature.get("options") or {}).get("chain") or ():
        yield from tasks_of(each)


def part_of(following: Following, request: Context, state: str, value: Any) -> ChordPart:
    """The part of its chord that a run is."""
    member = following.member(request.id, state, value)
    root_id = request.root_id or request.id
    return ChordPart(request.group, request.id, request.group_index, member, request.chord, root_id)


def unreadable_part(following: Following, message: Envelope, error: BaseException) -> list[ChordPart]:
    """The part of a message whose body cannot be read: if its group is a chord, that must not wait for it for ever."""
    headers = message.headers
    assert headers.group is not None
    member = following.member(headers.id, states.FAILURE, error)
    return [ChordPart(headers.group, headers.id, headers.group_index, member, None, headers.root_id)]


def group_of(signatures: Sequence[Signature]) -> Signature:
    """Several calls as one."""
    return {
        "task": "celery.group",
        "args": (),
        "kwargs": {"tasks": list(signatures)},
        "options": {},
        "subtask_type": "group",
        "immutable": False,
    }


# -- errbacks -------------------------------------------------------------------------------------------------------


def send_errbacks(following: Following, found: list[Follow], request: Context, tasks: Mapping[str, Any]) -> None:
    """Errbacks that take one argument are sent as tasks: they get the id of the task that has failed."""
    sent = [each for each in request.errbacks or () if not runs_inline(each, tasks)]
    if not sent:
        return
    try:
        found += following.unfold_errbacks(group_of(sent), (request.id,))
    except Exception:  # the failure is told all the same
        logger.exception("the errbacks of %s cannot be sent", request.id)


def runs_inline(errback: Signature, tasks: Mapping[str, Any]) -> bool:
    """Whether an errback is a function of more than the id (request, error, traceback): it is called where the task
    has failed, as in Celery. Bound tasks, classes and names that are not known here are sent.
    """
    task = tasks.get(errback["task"]) if errback.get("subtask_type") is None else None
    function = getattr(task, "__wrapped__", None)
    if function is None or getattr(task, "bind", False):
        return False
    if not errback.get("immutable"):
        function = partial(function, *(errback.get("args") or ()), **(errback.get("kwargs") or {}))
    return _positional(function) > 1


def _positional(function: Callable[..., Any]) -> float:
    """How many arguments a function takes by their places."""
    try:
        kinds = [each.kind for each in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return 0
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return float("inf")
    return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)


def call_errbacks(tasks: Mapping[str, Any], request: Context, error: BaseException, text: str | None) -> None:
    """Call those errbacks of a task that are called where it has failed; what they raise is logged."""
    for errback in request.errbacks or ():
        if not runs_inline(errback, tasks):
            continue
        own = tuple(errback.get("args") or ())
        args = own if errback.get("immutable") else (request, error, text, *own)
        try:
            tasks[errback["task"]](*args, **(errback.get("kwargs") or {}))
        except Exception:
            logger.exception("the errback %r failed", errback["task"])


# -- the body of a chord --------------------------------------------------------------------------------------------


def fail_body(following: Following, body: Signature, error: BaseException, tasks: Mapping[str, Any]) -> list[Follow]:
    """A chord has failed: so has its body, and all that would have followed it; its errbacks are told of it.

    Those of a body that is a group are told what went wrong in the part, as in Celery.
    """
    if body.get("subtask_type") == "group" and isinstance(error.__cause__, Exception):
        error = error.__cause__
    found: list[Follow] = []
    fail_signature(following, found, body, states.FAILURE, error, None)
    for target in (body, *(body["kwargs"]["tasks"] if body.get("subtask_type") == "group" else ())):
        options = target.get("options") or {}
        errbacks = options.get("link_error") or ()
        errbacks = [errbacks] if isinstance(errbacks, Mapping) else list(errbacks)
        request = Context(id=options.get("task_id"), task=target["task"], errbacks=errbacks, called_directly=False)
        request.update(args=list(target.get("args") or ()), kwargs=target.get("kwargs") or {})
        request.update(delivery_info={}, root_id=options.get("root_id"))
        send_errbacks(following, found, request, tasks)
        call_errbacks(tasks, request, error, None)
    return found
