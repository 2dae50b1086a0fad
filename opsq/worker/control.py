"""The remote commands that change something, one function each; their table is `panel`'s."""

from __future__ import annotations

import logging
from typing import Any

from opsq.worker.panel import NO_REPLY, Panel, State, control_command, inspect_command, nok, ok

__all__ = ["Panel", "control_command", "inspect_command"]

logger = logging.getLogger("opsq.worker")


# -- events ------------------------------------------------------------------------------------------------------------


@control_command
def heartbeat(state: State) -> None:
    """Tell worker(s) to send event heartbeat immediately."""
    state.in_lease_thread(state.pulse.call)


@control_command
def enable_events(state: State) -> Any:
    """Tell worker(s) to send task-related events."""
    if state.pulse.never:
        return nok("task events are switched off by the setting worker_send_task_events")
    were_on = state.pulse.tells_of_tasks
    state.in_lease_thread(state.pulse.unmute)
    return ok("task events already enabled" if were_on else "task events enabled")


@control_command
def disable_events(state: State) -> Any:
    """Tell worker(s) to stop sending task-related events."""
    were_on = not (state.pulse.never or state.pulse.muted)
    state.in_lease_thread(state.pulse.mute)
    return ok("task events disabled" if were_on else "task events already disabled")


@control_command
def election(state: State, id: str, topic: str, action: Any = None, **_: Any) -> None:
    """Hold election: nobody stands for one here."""


# -- the worker --------------------------------------------------------------------------------------------------------


@control_command
def shutdown(state: State, msg: str = "Got shutdown from remote", **_: Any) -> Any:
    """Shutdown worker(s): what runs may end."""
    logger.warning(msg)
    state.in_parent(lambda: state.worker.ask_to_stop("warm"))
    return NO_REPLY
