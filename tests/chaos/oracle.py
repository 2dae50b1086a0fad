"""Whether every promise was kept: what was sent, what the tasks wrote down, and what Redis holds in the end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.arena import PATIENCE_S, QUEUES, Arena, wait_for
from support import key_audit

from opsq.broker import audit
from opsq.broker.broker import Broker

#: Reasons for which a late task may be a dead letter although its effect was not had: what it would send is impossible.
_IMPOSSIBLE = "its outcome could not be written"
#: What rude tasks do.
RUDE = ("hold", "fork", "close_all", "change_handlers")
#: What Redis may use in the end besides what keys hold: scripts, connections, tables of keys (bytes).
MEMORY_BESIDES = 4_000_000


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
    wait_for(arena.is_settled, "everything is settled", patience_s(arena))
    over_ms = arena.server_ms()
    wait_for(lambda: arena.only_the_living(over_ms), "all who are gone have been reaped", patience_s(arena))
    _end_workers(arena, verdict)
    sent, unsure, ids = _sent(arena.folder / "sent")
    marks = arena.marks.read().counts
    letters = arena.dead_letters()
    dead = {task: numbers_of(letters, task) for task in ("early", "late", "follow", "rude", "rude_early", "bulk")}
    dead["early"] |= dead["rude_early"]
    reasons = {_number(letter): letter["reason"] for letter in letters}
    had = set(marks["effect"])
    late = sent["late"] | sent["follow"] | sent["rude"]
    blocked = {number for number in dead["follow"] if _IMPOSSIBLE in reasons[number]}

    verdict.expect(late - had - blocked, "late tasks never had their effect")
    verdict.expect(
        {n for n in dead["late"] | dead["follow"] | dead["rude"] if n not in blocked and n not in had},
        "late tasks are dead",
    )
    verdict.expect(set(range(arena.bulk)) - set(marks["bulk"]), "of ten thousand were never run")
    early = sent["early"] | sent["rude_early"] | unsure
    verdict.expect({n for n in early if marks["begin"][n] > 1}, "early tasks ran more than once")
    lost = (sent["early"] | sent["rude_early"]) - set(marks["end"]) - dead["early"]
    verdict.expect(lost, "early tasks are lost")
    verdict.expect([letter["id"] for letter in letters if not letter["reason"]], "dead letters have no reason")
    doubled = [one for one, count in Counter(letter["id"] for letter in letters).items() if count > 1]
    verdict.expect(doubled, "dead letters are there twice")
    verdict.expect(arena.doubled, "messages were in two places at once")
    _limits(arena, verdict)
    _results(arena, ids, verdict)
    _books(arena, letters, verdict)
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
        **{f"tasks that {how.replace('_', ' ')}": marks[how].total() for how in RUDE},
    }
    return verdict


def patience_s(arena: Arena) -> float:
    """Longer than a task that keeps the interpreter, and what was lost, may take."""
    return PATIENCE_S + 4 * arena.setup.lease + 4 * arena.setup.hold_s


def _end_workers(arena: Arena, verdict: Verdict) -> None:
    """A warm stop ends with 0, and nobody is registered after it."""
    for name, running in arena.workers.items():
        wait_for(lambda running=running: " ready." in running.output(), f"worker {name} is ready")
        code = running.stop()
        if code:
            verdict.broken.append(f"worker {name} stopped with {code}")
    client = arena.store.client()
    registries = ["opsq:workers", *(f"opsq:consumers:{{{queue}}}" for queue in QUEUES)]
    verdict.counts["registered in the end"] = sum(int(client.zcard(key)) for key in registries)
    verdict.expect([key.decode() for key in client.scan_iter("opsq:inflight:*")], "stores of consumers are not empty")
    if verdict.counts["registered in the end"]:
        verdict.broken.append("leases are left: " + str([client.zrange(key, 0, -1) for key in registries]))


def _sent(path: Path) -> tuple[dict[str, set[int]], set[int], dict[int, str]]:
    """Numbers by task, early ones that may or may not have arrived, and ids."""
    sent: dict[str, set[int]] = {task: set() for task in ("early", "late", "follow", "rude", "rude_early")}
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


def _limits(arena: Arena, verdict: Verdict) -> None:
    """Nobody holds a place any more, and no pass is left of a message that was settled."""
    client = arena.store.client()
    left = [key.decode() for name in ("places", "passes") for key in client.scan_iter(f"opsq:{name}:*")]
    verdict.expect([name for name in left if not name.endswith(":waiting")], "places or passes are held by nobody")


def _books(arena: Arena, letters: list[dict[str, Any]], verdict: Verdict) -> None:
    """`opsq audit` says the same as what was written down."""
    for books in audit.balances(Broker(arena.store.url()), QUEUES):
        if books.missing or books.in_flight or books.waiting or books.delayed or books.limited:
            verdict.broken.append(f"the books of {books.queue!r} do not balance: {books}")
        buried = sum(letter["queue"] == books.queue for letter in letters)
        if books.ended.get("dead", 0) != buried:
            verdict.broken.append(f"{books.ended.get('dead')} dead in the books of {books.queue!r}, {buried} letters")
        verdict.counts[f"books of {books.queue}"] = books.sent


def _redis(arena: Arena, verdict: Verdict) -> None:
    """No key is left that nobody knows or that nothing bounds, and no memory is used for anything else."""
    arena.store.client(15).flushdb()  # what made it slow to load
    known = 0
    for db in {0, arena.results_db}:
        client = arena.store.client(db)
        verdict.broken += key_audit.problems(client)
        pipe = client.pipeline(transaction=False)
        for key in client.scan_iter(count=1000):
            pipe.memory_usage(key, samples=0)
        known += sum(size or 0 for size in pipe.execute())
    more = arena.memory() - arena.memory_before - known
    verdict.counts["memory of results and dead letters, kB"] = known // 1024
    verdict.counts["memory besides, more than at first, kB"] = more // 1024
    if more > MEMORY_BESIDES:
        verdict.broken.append(f"Redis uses {more:,} bytes more than at first, besides results and dead letters")
