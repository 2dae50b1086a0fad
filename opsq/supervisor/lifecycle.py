"""The states of a program, in supervisord's words, as one table of (state, event) -> state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a program stands."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"


class Event(StrEnum):
    """What happens to a program."""

    START = "it is to run"
    UP = "it ran long enough, or said that it is ready"
    FAIL = "its start failed, and will be tried again"
    GIVE_UP = "its start failed too often"
    RETRY = "the pause after a failed start is over"
    EXIT = "it ended by itself"
    STOP = "it is to end"
    END = "nothing of it is left after the stop"


TABLE: Mapping[tuple[State, Event], State] = {
    (State.STOPPED, Event.START): State.STARTING,
    (State.STARTING, Event.UP): State.RUNNING,
    (State.STARTING, Event.FAIL): State.BACKOFF,
    (State.STARTING, Event.GIVE_UP): State.FATAL,
    (State.STARTING, Event.STOP): State.STOPPING,
    (State.RUNNING, Event.EXIT): State.EXITED,
    (State.RUNNING, Event.STOP): State.STOPPING,
    (State.BACKOFF, Event.RETRY): State.STARTING,
    (State.BACKOFF, Event.START): State.STARTING,
    (State.BACKOFF, Event.STOP): State.STOPPED,
    (State.STOPPING, Event.END): State.STOPPED,
    (State.EXITED, Event.START): State.STARTING,
    (State.EXITED, Event.STOP): State.STOPPED,
    (State.FATAL, Event.START): State.STARTING,
    (State.FATAL, Event.STOP): State.STOPPED,
}

#: States in which a process may exist.
LIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})


def follow(state: State, event: Event) -> State:
    """The state after an event. Raises ValueError for an event that cannot happen then."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ValueError(f"{event.name} cannot happen to a program that is {state}") from None
