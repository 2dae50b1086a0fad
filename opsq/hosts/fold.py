"""Equal results once, under the folded names of their hosts. Nothing is compared but exit codes and digests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from opsq.hosts.hostset import HostSet
from opsq.hosts.job import FINAL, HostResult, State
from opsq.hosts.order import Output


@dataclass(frozen=True, slots=True)
class Folded:
    """Hosts to which the same happened; durations in seconds."""

    hosts: HostSet
    state: State
    reason: str
    exit: int | None
    signal: int | None
    out: Output | None
    err: Output | None
    shortest: float | None
    longest: float | None


def fold_results(results: Iterable[HostResult]) -> list[Folded]:
    """The groups: what went well first, the largest first."""
    alike: dict[tuple[State, str, int | None, int | None, Output | None, Output | None], list[HostResult]]
    alike = defaultdict(list)
    for result in results:
        alike[result.state, result.reason, result.exit, result.signal, result.out, result.err].append(result)
    folded = []
    for what, group in alike.items():
        durations = [result.duration for result in group if result.duration is not None]
        hosts = HostSet(result.name for result in group)
        folded.append(Folded(hosts, *what, min(durations, default=None), max(durations, default=None)))
    order = {state: place for place, state in enumerate(FINAL)}
    return sorted(folded, key=lambda group: (order.get(group.state, -1), -len(group.hosts), str(group.hosts)))
