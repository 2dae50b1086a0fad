"""Whether every promise was kept: what was sent, what the tasks wrote down, and what Redis holds in the end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.arena import QUEUES, Arena, wait_for
from support import key_audit

#: Reasons for which a late task may be a dead letter although its effect was not had: what it would send is impossible.
_IMPOSSIBLE = "its outcome could not be written"


@dataclass
class Verdict:
    """Counts for the table, and the promises that were broken."""

    counts: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def expect(self, none_of: set[Any] | list[Any], what: str) -> None:
        """Nothing is among these."""
        if none_of:
            self.broken.append(f"{len(none_of)} {what}, such as {sorted(none_of, key=str)[:3]}")


def judge(arena: Arena) -> Verdict:
    """Wait until everything is settled, stop the workers, compare."""
    verdict = Verdict()
    wait_for(arena.is_settled, "everything is settled")
    _end_workers(arena, verdict)
    sent, unsure, ids = _sent(arena.folder / "sent")
    marks = arena.marks.read().counts
    letters = arena.dead_letters()
    dead = {task: numbers_of(letters, task) for task in ("early", "late", "follow")}
    reasons = {_number(letter): letter["reason"] for letter in letters}
    had = set(marks["effect"])
    late = sent["late"] | sent["follow"]
    blocked = {number for number in dead["follow"] if _IMPOSSIBLE in reasons[number]}

    verdict.expect(late - had - blocked, "late tasks never had their effect")
    verdict.expect(
        {n for n in dead["late"] | dead["follow"] if n not in blocked and n not in had}, "late tasks are dead"
    )
    early = sent["early"] | unsure
    verdict.expect({n for n in early if marks["begin"][n] > 1}, "early tasks ran more than once")
    verdict.expect(sent["early"] - set(marks["end"]) - dead["early"], "early tasks are lost")
    verdict.expect([letter["id"] for letter in letters if not letter["reason"]], "dead letters have no reason")
    doubled = [one for one, count in Counter(letter["id"] for letter in letters).items() if count > 1]
    verdict.expect(doubled, "dead letters are there twice")
    verdict.expect(arena.doubled, "messages were in two places at once")
    _results(arena, ids, verdict)
    _redis(arena, verdict)
    verdict.counts |= {
        "sent": sum(map(len, sent.values())),
        "not known to be sent": len(unsure),
        "effects": len(had),
        "late ones more than once": sum(marks["effect"][n] > 1 for n in late),
        "dead letters, early": len(dead["early"]),
        "  of these begun": len({n for n in dead["early"] if marks["begin"][n]}),
        "  of these with effect": len(dead["early"] & had),
        "dead letters, late": len(dead["late"]) + len(dead["follow"]),
        "  of these blocked": len(blocked),
        "worker starts": arena.starts,
    }
    return verdict


def _end_workers(arena: Arena, verdict: Verdict) -> None:
    """A warm stop ends with 0, and nobody is registered after it."""
    for name, running in arena.workers.items():
        wait_for(lambda running=running: " ready." in running.output(), f"worker {name} is ready")
        code = running.stop()
        if code:
            verdict.broken.append(f"worker {name} stopped with {code}")
    client = arena.store.client()
    registries = ["opsq:workers", *(f"opsq:consumers:{{{queue}}}" for queue in QUEUES)]
    # Those who were killed and never came back under their name are left to reapers: none of them holds anything.
    verdict.counts["registered in the end"] = sum(int(client.zcard(key)) for key in registries)
    verdict.expect([key.decode() for key in client.scan_iter("opsq:inflight:*")], "stores of consumers are not empty")
    if client.zcard("opsq:workers") or client.zcard(registries[1]):
        verdict.broken.append("leases are left: " + str([client.zrange(key, 0, -1) for key in registries]))


def _sent(path: Path) -> tuple[dict[str, set[int]], set[int], dict[int, str]]:
    """Numbers by task, early ones that may or may not have arrived, and ids."""
    sent: dict[str, set[int]] = {"early": set(), "late": set(), "follow": set()}
    unsure, ids = set(), {}
    for line in path.read_text().rpartition("\n")[0].splitlines():
        how, task, number, task_id = line.split()
        if how == "sent":
            sent[task].add(int(number))
            ids[int(number)] = task_id
        else:
            unsure.add(int(number))
    return sent, unsure, ids


def _number(letter: dict[str, Any]) -> int:
    return int(json.loads(letter["message"])["headers"]["argsrepr"].strip("(,)"))


def numbers_of(letters: list[dict[str, Any]], task: str) -> set[int]:
    """The numbers of a task's dead letters."""
    return {_number(letter) for letter in letters if letter["task"] == f"tasks.{task}"}


def _results(arena: Arena, ids: dict[int, str], verdict: Verdict) -> None:
    """Everything that was sent has a result, and none says SUCCESS of a dead letter."""
    client = arena.store.client(arena.results_db)
    records: Any = client.mget([f"celery-task-meta-{task_id}" for task_id in ids.values()]) if ids else []
    states = {
        number: json.loads(record)["status"] if record else "nothing"
        for number, record in zip(ids, records, strict=True)
    }
    verdict.counts |= {f"results {state}": count for state, count in sorted(Counter(states.values()).items())}
    verdict.expect({n for n, state in states.items() if state not in ("SUCCESS", "FAILURE")}, "results are missing")
    dead = {_number(letter) for letter in arena.dead_letters()}
    verdict.expect({n for n in dead if states.get(n) == "SUCCESS"}, "dead letters have the result SUCCESS")


def _redis(arena: Arena, verdict: Verdict) -> None:
    """No key is left that nobody knows or that nothing bounds."""
    for db in {0, arena.results_db}:
        verdict.broken += key_audit.problems(arena.store.client(db))
