"""`opsq why ID`: why a task waits, failed, ran twice or is gone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from opsq import states
from opsq.broker import limited, losses, queues, revoked, whereabouts, workers
from opsq.cli import history, reasons
from opsq.cli.commands.limits import in_words
from opsq.cli.commands.results import describe
from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.reasons import Facts

EXAMPLES = """
opsq why 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11
opsq why 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11 --queue mail
opsq why 5a1e0c7e-6b5c-4d0e-9d55-2f6a4c8c2a11 --json
"""


@command(EXAMPLES)
@click.argument("task_id", metavar="ID")
@click.option("-Q", "--queue", metavar="QUEUE", help="Look only into this queue.")
@pass_context
def why(context: Context, task_id: str, queue: str | None) -> None:
    """Why a task waits, failed, ran twice or is gone, in one sentence, and what to do next.

    From what is stored: queues (the newest million of each list), what workers hold, dead letters, losses of the last
    week, results, the monitor's history. Ends with 1 when nothing is known of the task.
    """
    names = context.queue_names(queue)
    found = whereabouts.search(context.broker, names, task_id)
    facts = _facts(context, names, task_id, found)
    reason = reasons.explain(facts)
    if context.out.json:
        context.out.document(
            {
                "id": task_id,
                "state": reason.state,
                "sentence": reason.sentence,
                "next": reason.next or None,
                "messages": [_shown(place) for place in found.places],
                "losses": [{**asdict(loss), "node": loss.node} for loss in facts.losses],
                "result": facts.result,
                "not_searched": found.cut_short,
            }
        )
    else:
        context.out.sentence(reason.sentence)
        context.out.steps(reason.next, "next: ", "then: ")
        for key in found.cut_short:
            context.out.say(f"only the newest {whereabouts.MOST:,} of {key!r} were looked at")
    if reason.state == "unknown":
        raise click.exceptions.Exit(1)


def _facts(context: Context, names: list[str], task_id: str, found: whereabouts.Search) -> Facts:
    broker, backend = context.broker, context.app.backend
    meta = backend.get_meta(task_id) if backend.keeps_results else {"status": states.PENDING}
    needed = sorted({place.queue for place in found.places})
    return Facts(
        id=task_id,
        places=found.places,
        losses=losses.of_task(broker, names, task_id),
        result=None if meta["status"] == states.PENDING else describe(meta, task_id),
        history=history.any_of(broker, task_id),
        searched=names,
        queues={state.name: state for state in queues.states(broker, needed)},
        workers=workers.live(broker) if found.places else [],
        limits=_limits(context, names) if any(place.kind == "limited" for place in found.places) else {},
        revoked=revoked.is_revoked(broker.client, broker.key_prefix, task_id),
        celery_waits=bool(found.places) and workers.celery_waits(broker),
        keeps_results=backend.keeps_results,
        now=found.now_ms / 1000,
    )


def _limits(context: Context, names: list[str]) -> dict[str, str]:
    return {f"{state.kind} {state.name}": in_words(state) for state in limited.states(context.broker, names)}


def _shown(place: whereabouts.Place) -> dict[str, Any]:
    """A message as scripts get it; points in time are Unix seconds."""
    told = asdict(place)
    due_ms, lease_ms = told.pop("due_ms"), told.pop("lease_ms")
    return {
        **told,
        "due": None if due_ms is None else due_ms / 1000,
        "lease": None if lease_ms is None else lease_ms / 1000,
    }
