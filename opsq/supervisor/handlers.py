"""What each verb of the control socket does. An order that takes time is answered when it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from opsq._version import __version__
from opsq.exceptions import SupervisorError, UsageError, did_you_mean
from opsq.supervisor import celery_commands, messages, sampling
from opsq.supervisor.child import Child
from opsq.supervisor.lifecycle import State
from opsq.supervisor.plan import Plan
from opsq.supervisor.server import Reply, Values
from opsq.supervisor.supervisor import Supervisor

#: A program that fails again is reported instead of being waited for.
_FAILURES_REPORTED = 2
#: After this a start is answered with how far it has come.
_LONGEST_WAIT_S = 60.0


_BEGINNINGS = (messages.Up, messages.Reload, messages.Start, messages.Restart)


class Handlers:
    """One method a verb."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._samples = sampling.Samples()

    def handle(self, request: messages.Request) -> Reply:
        """Do what is asked. Raises OpsqError."""
        verbs: Mapping[type[messages.Request], Callable[[Any], Reply]] = {
            messages.Status: self.status,
            messages.Up: self.up,
            messages.Reload: self.reload,
            messages.Down: self.down,
            messages.Start: self.start,
            messages.Stop: self.stop,
            messages.Restart: self.restart,
            messages.Signal: self.signal,
        }
        if self._supervisor.going_down and isinstance(request, _BEGINNINGS):
            raise SupervisorError("the supervisor is going down", hint="try again when `opsq down` has ended")
        return verbs[type(request)](request)

    def status(self, _request: messages.Status) -> Values:
        """Everything, now."""
        supervisor = self._supervisor
        usage = self._samples.take([child.process for child in supervisor.children.values() if child.process])
        return {
            "supervisor": {
                "pid": os.getpid(),
                "keeper_pid": supervisor.keeper_pid(),
                "version": __version__,
                "since": sampling.started_at(supervisor.keeper_pid()),
            },
            "app": supervisor.plan.app,
            "broker": asdict(supervisor.plan.broker) if supervisor.plan.broker else None,
            "origin": supervisor.plan.origin,
            "programs": [_told(child, usage) for child in supervisor.children.values()],
        }

    def up(self, request: messages.Up) -> Reply:
        """Take a plan over and start what is wanted of it and does not run."""
        supervisor, plan = self._supervisor, Plan.from_data(request.plan)
        running = supervisor.plan.app
        others = (
            running is not None and running != plan.app and any(child.live for child in supervisor.children.values())
        )
        if request.app_named and others:
            raise UsageError(
                f"cannot start {plan.app} here",
                why=f"{running} runs here ({supervisor.state.root})",
                hint="opsq down first, or choose another place with --state-dir",
            )
        changed = supervisor.plan.changed_in(plan)
        changed = [name for name in changed if supervisor.children[name].live]
        supervisor.add(plan)
        known = supervisor.plan
        names = known.needed_by(request.names or [p.name for p in plan.programs.values() if p.autostart])
        children = [child for child in supervisor.children.values() if child.name in names]
        idle = [child for child in children if child.state not in (State.STARTING, State.RUNNING)]
        for child in idle:
            child.start()
        already = not idle and all(child.ready for child in children)
        return self._when_started(children, {"already": already, "changed": changed, "app": known.app})

    def reload(self, request: messages.Reload) -> Reply:
        """Take a plan in place of the running one. A program that was stopped by hand stays stopped."""
        supervisor, plan = self._supervisor, Plan.from_data(request.plan)
        running = supervisor.plan
        gone, changed = running.missing_in(plan), running.changed_in(plan)
        fresh = [name for name in plan.programs if name not in running.programs]
        again = [
            child
            for name, child in supervisor.children.items()
            if request.again and name in plan.programs and name not in changed
            if child.ready and plan.programs[name].reloadsignal is not None
        ]
        told = {"added": fresh, "changed": changed, "removed": gone, "reloaded": [child.name for child in again]}
        if request.dry_run:
            return told
        supervisor.retire(gone)
        supervisor.add(plan)
        children = supervisor.children
        supervisor.restart(children[name] for name in changed if children[name].wanted)
        begun = plan.needed_by(name for name in fresh if plan.programs[name].autostart)
        for name in begun:
            children[name].start()
        for child in again:
            child.reload()
        started = self._when_started([children[name] for name in {*begun, *changed}], told)
        limit = time.monotonic() + _LONGEST_WAIT_S

        def done() -> Values | None:
            slow = any(child.reloading for child in again) and time.monotonic() < limit
            answer = None if slow else started()
            if answer is None:
                return None
            return {
                **answer,
                "not_reloaded": {child.name: _reload_trouble(child) for child in again if _reload_trouble(child)},
            }

        return done

    def down(self, _request: messages.Down) -> Reply:
        """Stop everything; the answer comes when nothing runs any more."""
        self._supervisor.go_down()
        return lambda: {} if self._supervisor.is_down() else None

    def start(self, request: messages.Start) -> Reply:
        """Start programs and what they need."""
        children = self._named(request.names)
        needed = self._supervisor.plan.needed_by(child.name for child in children)
        for child in self._supervisor.children.values():
            if child.name in needed:
                child.start()
        return self._when_started(children)

    def stop(self, request: messages.Stop) -> Reply:
        """Stop programs; those that depend on them go on."""
        children = self._named(request.names)
        self._supervisor.stop(children)
        leaving = self._supervisor.leaving

        def done() -> Values | None:
            gone = all(child.name not in leaving and child.state is State.STOPPED for child in children)
            return self._report(children) if gone else None

        return done

    def restart(self, request: messages.Restart) -> Reply:
        """Stop programs and start them again."""
        children = self._named(request.names)
        self._supervisor.restart(children)
        return self._when_started(children)

    def signal(self, request: messages.Signal) -> Values:
        """Signal what runs of these."""
        children = self._named(request.names)
        signalled = [child for child in children if child.process is not None]
        for child in signalled:
            self._supervisor.signal(child, request.signal)
        return {**self._report(children), "signalled": [child.name for child in signalled]}

    def _named(self, names: Iterable[str]) -> list[Child]:
        """The programs of these names and groups, or all. Raises UsageError for one that is neither."""
        children = self._supervisor.children
        chosen: dict[str, Child] = {}
        for name in names:
            fitting = [child for child in children.values() if means(name, child.name, child.program.group)]
            if not fitting and name != "all":
                raise unknown_program(name, children)
            chosen.update({child.name: child for child in fitting})
        return list(chosen.values())

    def _when_started(self, children: list[Child], more: Values | None = None) -> Callable[[], Values | None]:
        leaving = self._supervisor.leaving
        limit = time.monotonic() + _LONGEST_WAIT_S
        self._supervisor.later(_LONGEST_WAIT_S + 0.1, lambda: None)  # so that somebody looks then

        def done() -> Values | None:
            decided = all(child.name not in leaving and self._decided(child) for child in children)
            decided = decided and not self._supervisor.retiring
            if not decided and time.monotonic() < limit:
                return None
            return {**self._report(children), **(more or {})}

        return done

    def _decided(self, child: Child) -> bool:
        """Whether waiting longer for this program would tell nothing new."""
        if child.state is State.BACKOFF:
            return child.failures >= _FAILURES_REPORTED
        if child.state is not State.STARTING:
            return child.ready or child.state in (State.STOPPED, State.EXITED, State.FATAL)
        others = self._supervisor.children
        needed = [others[name] for name in child.program.depends_on if name in others]
        return not child.live and any(self._decided(other) and not other.ready for other in needed)

    @staticmethod
    def _report(children: Iterable[Child]) -> Values:
        return {"programs": [_told(child, {}) for child in children]}


def _reload_trouble(child: Child) -> str:
    return "it has not said yet what has come of it" if child.reloading else child.reload_trouble


def means(word: str, name: str, group: str | None) -> bool:
    """Whether a word of the command line means this program: its name, its group, supervisorctl's `group:name`, all."""
    return word in ("all", name) or (group is not None and word in (group, f"{group}:{name}", f"{group}:*"))


def unknown_program(name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that no program has, with the nearest one."""
    known = list(known)
    hint = did_you_mean(name, known, f"programs here: {', '.join(known) or 'none'}")
    return UsageError(f"no program {name!r} here", hint=hint)


def _told(child: Child, usage: Mapping[Any, sampling.Usage]) -> dict[str, Any]:
    used = usage.get(child.process)
    reason = child.reason
    if child.launchable and child.program.depends_on:
        reason = f"waits for {', '.join(child.program.depends_on)}"
    elif child.adopted and child.process is not None:
        reason = "adopted: its keeper had died"
    elif child.state is State.STARTING and child.program.ready == "notify" and reason is None:
        reason = "has not said yet that it is ready"
    celerys = celery_commands.told(child.program, child.runs, child.note)
    return {
        "name": child.name,
        "group": child.program.group,
        "state": child.state.value,
        "pid": child.process.pid if child.process else None,
        "since": child.since,
        "restarts": child.restarts,
        "ready": child.ready,
        "wanted": child.wanted,
        "cpu_percent": used.cpu_percent if used else None,
        "memory_bytes": used.memory_bytes if used else None,
        "reason": reason or (celerys["reason"] if child.process else None),
        "written": celerys["written"],
        "runs": celerys["runs"],
        "uptime": time.time() - child.started_at if child.process and child.started_at else None,
    }
