"""Who waits for whom: what must run before a program may start, and what must have ended before it may stop."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from opsq.supervisor.child import Child
from opsq.supervisor.lifecycle import State


def may_start(child: Child, children: Mapping[str, Child], leaving: Collection[str]) -> bool:
    """Whether all that it depends on is started, or ready, as it wants. `leaving`: names of those about to stop."""
    for name, condition in child.program.depends_on.items():
        other = children.get(name)
        if other is None or name in leaving or other.state is State.STOPPING:
            return False
        if not (other.ready if condition == "ready" else other.process is not None):
            return False
    return True


def free_to_stop(children: Mapping[str, Child], leaving: Collection[str]) -> list[str]:
    """The names of those about to stop for which nothing has to end first: who depends on them, higher priorities.

    In the order in which they are to be told, the highest priority first.
    """
    if not leaving:
        return []
    going = [
        child for child in children.values() if child.state is State.STOPPING or (child.live and child.name in leaving)
    ]
    needed = {name for child in going for name in child.program.depends_on}
    highest = max((child.program.priority for child in going), default=0)
    free = [name for name in leaving if name not in needed and _is_due(children[name], highest)]
    return sorted(free, key=lambda name: -children[name].program.priority)


def _is_due(child: Child, highest: int) -> bool:
    """What does not run any more keeps nobody waiting and waits for nobody."""
    return child.program.priority >= highest or not child.live
