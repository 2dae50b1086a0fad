"""The daemon: brings the programs to what the plan says and keeps them there. It may be killed or replaced any time.

One loop. At the end of each turn the state is written first, and only then the keeper is asked for anything.
"""

from __future__ import annotations

import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from opsq.exceptions import OpsqError
from opsq.runtime import notify, pidfile
from opsq.runtime.process import ProcessId, boot_id
from opsq.runtime.statedir import StateDir
from opsq.supervisor import celery_commands, launch, orders, precedence, readiness, statefile, units
from opsq.supervisor.child import Child
from opsq.supervisor.lifecycle import State
from opsq.supervisor.link import KeeperLink, Message
from opsq.supervisor.plan import Plan
from opsq.supervisor.timers import Timer, Timers

#: More orders than this at once would fill both buffers of the connection.
MOST_SPAWNS = 64
_KEEPER_PATIENCE_S = 10.0


class Supervisor:
    """All children, the connection to the keeper, and the loop."""

    def __init__(self, state: StateDir) -> None:
        self.state = state
        self.plan = Plan()
        self.children: dict[str, Child] = {}
        self.going_down = self.in_haste = False
        #: Stops and restarts that wait for those that depend on them to end first.
        self.leaving: dict[str, Callable[[], None]] = {}
        #: Programs that are forgotten once they have ended.
        self.retiring: set[str] = set()
        self.selector = selectors.DefaultSelector()
        self.timers = Timers()
        self.after_turn: Callable[[], None] = lambda: None
        self._to_sweep: dict[str, Child] = {}
        self._changed = False
        self._told_ready = False
        self._link: KeeperLink | None = None
        self._reloads: list[subprocess.Popen[bytes]] = []
        self._file = statefile.StateFile(state)

    # --- beginning, and changes of keeper ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Take over what the daemon before this one left, and what the keeper knows."""
        if (kept := statefile.read(self.state)) is not None:
            self.plan, self.going_down = kept.plan, kept.going_down
            for name, record in kept.records.items():
                if name in self.plan.programs:
                    child = self.children[name] = Child(self.plan.programs[name], self)
                    child.restore(record)
            self.retiring = {name for name in kept.retiring if name in self.children}
        self._notices = notify.Listener(self.state.notify_socket)
        self.selector.register(self._notices, selectors.EVENT_READ, self._on_notices)
        self._connect()
        for child in self.children.values():
            child.resume()
        self.retire(())
        if self.going_down:
            self.go_down()
        self.settle()

    def _connect(self) -> None:
        """Reach the keeper, or start one; then compare what it holds with what should be there."""
        limit = time.monotonic() + _KEEPER_PATIENCE_S
        while True:
            try:
                self._link = link = KeeperLink(self.state.keeper_socket)
                if self._reconcile(link):
                    break
                link.close()
            except OSError:
                pass
            if time.monotonic() > limit:
                say("no keeper answers")
                sys.exit(1)
            launch.start_keeper(self.state)
            time.sleep(0.005)
        self.selector.register(link, selectors.EVENT_READ, self._on_keeper)

    def _reconcile(self, link: KeeperLink) -> bool:
        """Hear the keeper's table to its end; False when the keeper went away meanwhile."""
        living: dict[str, Message] = {}
        while link.wait(_KEEPER_PATIENCE_S):
            messages = link.receive()
            if messages is None:
                return False
            for message in messages:
                if message["event"] == "child":
                    living[message["id"]] = message
                elif message["event"] == "exit":
                    self._on_exit(link, message)
                elif message["event"] == "ready":
                    for child in self.children.values():
                        self._compare(link, child, living.get(child.name))
                    self._find_running(link, [child for child in self.children.values() if child.launchable])
                    return True
        return False

    def _compare(self, link: KeeperLink, child: Child, told: Message | None) -> None:
        if told is not None:
            process = _process(told)
            if child.process == process:
                child.adopted = told["adopted"]
            else:
                child.spawned(process, told["adopted"])
        elif child.process is not None:  # started by a keeper that has gone
            link.say("adopt", **orders.adopt(self.state, child.program, child.process))
            child.adopted = True
        child.asked = False
        self._changed = True

    def _on_keeper(self) -> None:
        assert self._link is not None
        messages = self._link.receive()
        if messages is None:
            say("the keeper has gone: starting another one")
            self.selector.unregister(self._link)
            self._link.close()
            self._connect()
            return
        for message in messages:
            event = message["event"]
            if event == "spawned":
                self._on_spawned(message)
            elif event == "exit":
                self._on_exit(self._link, message)
            elif event == "signal":
                self._on_signal(message["signal"])

    def _on_spawned(self, message: Message) -> None:
        child = self.children.get(message["id"])
        if child is None or not child.asked:
            return
        if message["error"] is not None:
            child.not_spawned(message["error"])
        else:
            child.spawned(_process(message))

    def _on_exit(self, link: KeeperLink, message: Message) -> None:
        child, process = self.children.get(message["id"]), _process(message)
        if child is not None and child.process is None and child.asked and child.last_process != process:
            child.spawned(process)  # it began and ended while nobody listened
        if child is not None and child.process == process:
            child.exited(message["status"])
        link.say("ack", seq=message["seq"])
        self._changed = True

    def _on_signal(self, signum: int) -> None:
        """What the keeper was told by a terminal, a service manager or a user."""
        if signum == signal.SIGHUP:
            self._reloads = [each for each in self._reloads if each.poll() is None]
            self._reloads.append(launch.start_reload(self.state, self.plan.origin))
            return
        if signum not in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            return
        assert self._link is not None
        self._link.say("hearing")
        if self.going_down or signum == signal.SIGQUIT:
            self.in_haste = True
            for child in self.children.values():
                child.hurry()
        self.go_down()

    def _on_notices(self) -> None:
        for notice in self._notices.receive():
            child = readiness.said_by(notice, self.children.values())
            if child is None:
                continue
            if notice.values.get("READY") == "1":
                child.says_ready()
            if runs := notice.values.get(celery_commands.RUNS):
                child.says_what_runs(runs, notice.values.get(celery_commands.NOTE, ""))
            trouble = notify.reload_trouble(notice.values.get("STATUS", ""))
            if trouble is not None:
                child.says_reloaded(trouble)

    # --- orders from outside ----------------------------------------------------------------------------------------

    def add(self, plan: Plan) -> None:
        """Make these programs part of the plan; a program that runs gets its new values with its next start."""
        self.plan = self.plan.with_more(plan)
        self.retiring -= {*plan.programs}
        fresh = [Child(program, self) for name, program in plan.programs.items() if name not in self.children]
        self.children |= {child.name: child for child in fresh}
        for name, program in plan.programs.items():
            self.children[name].program = program
        assert self._link is not None
        self._find_running(self._link, fresh)
        self._changed = True

    def _find_running(self, link: KeeperLink, children: Sequence[Child]) -> None:
        """What still runs is taken over, though nobody has told of it: never start a second copy.

        Its pidfile names it; or, when a keeper was killed before it could write that, what the program carries.
        """
        found = {child.name: pidfile.holder(orders.pidfile_of(self.state, child.name)) for child in children}
        unknown = [child for child in children if found[child.name] is None]
        found |= units.leaders({child.name: self._traces(child) for child in unknown})
        for child in children:
            if (process := found[child.name]) is not None:
                child.start()
                child.spawned(process, adopted=True)
                link.say("adopt", **orders.adopt(self.state, child.program, process))

    def _traces(self, child: Child) -> tuple[str, Path]:
        return units.mark_of(child.name, self.state.key), orders.fifo_of(self.state, child.name)

    def stop(self, children: Iterable[Child]) -> None:
        """Stop these, each after those among them that depend on it."""
        self.leaving.update({child.name: child.stop for child in children})

    def restart(self, children: Iterable[Child]) -> None:
        """Stop these in the same order, and start each when what it depends on is back."""
        self.leaving.update({child.name: child.restart for child in children})

    def retire(self, names: Iterable[str]) -> None:
        """Stop these and forget them."""
        self.retiring.update(names)
        self.stop(self.children[name] for name in self.retiring)

    def go_down(self) -> None:
        """Stop everything, then the keeper and this process."""
        if not self.going_down:
            say("going down")
        self.going_down = True
        self._changed = True
        self.stop(child for child in self.children.values() if child.state is not State.STOPPED)

    # --- the hands of the children ----------------------------------------------------------------------------------

    def changed(self, child: Child) -> None:
        """Something about a child has to be kept."""
        if child.reason and child.state in (State.BACKOFF, State.EXITED, State.FATAL):
            say(f"{child.name}: {child.state.value}: {child.reason}")
        self._changed = True

    def signal(self, child: Child, signum: int, group: bool = False) -> None:
        """Through the keeper: it is the one that knows whether the pid is still the child's."""
        if self._link is not None:
            self._link.say("signal", id=child.name, signal=int(signum), group=group)

    def kill_unit(self, child: Child) -> None:
        """Kill all of it, now; of a program that wants it so the main process only."""
        if child.program.killasgroup:
            units.kill([self._unit(child)])
        else:
            self.signal(child, signal.SIGKILL)

    def sweep_later(self, child: Child) -> None:
        """Kill what is left of it at the end of this turn, together with others."""
        self._to_sweep[child.name] = child

    def ask(self, child: Child) -> None:
        """Ask the program's socket until it answers, as long as this process of it lives."""
        process = child.process
        assert child.program.answer is not None
        readiness.Question(
            child.program.answer,
            self.selector,
            self.timers,
            lambda: child.process is not None and child.process == process,
            child.says_ready,
        )

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call something after a while."""
        return self.timers.later(delay_s, call)

    def _unit(self, child: Child) -> units.Unit:
        return units.Unit(units.mark_of(child.name, self.state.key), child.last_process)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until everything is down."""
        while not (self.going_down and self.is_down()):
            for key, _events in self.selector.select(self.timers.next_s()):
                key.data()
            self.timers.run_due()
            self.settle()
        self._finish()

    def settle(self) -> None:
        """The end of a turn: do what has become possible, keep the state, then let the keeper hear."""
        while self._leave() or self._sweep() or self._forget() or self._launch():
            pass
        if self._changed:
            self._changed = False
            self._keep()
            self._tell_service_manager()
        assert self._link is not None
        self._link.flush()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._link.behind else 0)
        if self.selector.get_key(self._link).events != wanted:
            self.selector.modify(self._link, wanted, self._on_keeper)
        self.after_turn()

    def _leave(self) -> bool:
        free = precedence.free_to_stop(self.children, self.leaving)
        for name in free:
            self.leaving.pop(name)()
            if self.in_haste:
                self.children[name].hurry()
        return bool(free)

    def _sweep(self) -> bool:
        swept, self._to_sweep = self._to_sweep, {}
        if doomed := [child for child in swept.values() if child.program.killasgroup]:
            units.kill([self._unit(child) for child in doomed])
        for child in swept.values():
            child.swept()
        return bool(swept)

    def _forget(self) -> bool:
        ended = {
            name
            for name in self.retiring
            if name not in self.leaving and self.children[name].state is State.STOPPED and not self.children[name].live
        }
        if ended:
            self.retiring -= ended
            self.plan = self.plan.without(ended)
            self.children = {name: child for name, child in self.children.items() if name not in ended}
            self._changed = True
        return bool(ended)

    def _launch(self) -> bool:
        ready = [
            child
            for child in self.children.values()
            if child.launchable and precedence.may_start(child, self.children, self.leaving)
        ]
        room = MOST_SPAWNS - sum(child.asked for child in self.children.values())
        chosen = sorted(ready, key=lambda child: child.program.priority)[: max(0, room)]
        for child in chosen:
            self._spawn(child)
        return bool(chosen)

    def _spawn(self, child: Child) -> None:
        assert self._link is not None
        try:
            order = orders.spawn(self.state, child.program)
        except OpsqError as error:
            child.not_spawned(error.why)
            return
        self._link.say("spawn", **order)
        child.asked = self._changed = True

    def _keep(self) -> None:
        records = {child.name: child.to_record() for child in self.children.values()}
        self._file.write(statefile.Kept(self.plan, records, self.going_down, sorted(self.retiring)))

    def _tell_service_manager(self) -> None:
        wanted = [child for child in self.children.values() if child.wanted]
        if not self._told_ready and wanted and all(child.ready for child in wanted):
            self._told_ready = True
            notify.notify("READY=1", patience_s=0)

    def keeper_pid(self) -> int:
        """The process that holds the other end of the connection."""
        assert self._link is not None
        return self._link.keeper_pid()

    # --- the end ----------------------------------------------------------------------------------------------------

    def is_down(self) -> bool:
        """Whether every program has stopped."""
        return not self.leaving and all(child.state is State.STOPPED for child in self.children.values())

    def _finish(self) -> None:
        """Nothing of us stays: strays go, clients hear it, the keeper ends after this process's last word to it."""
        units.kill_instance(self.state.key)
        statefile.remove(self.state)
        self.state.notify_socket.unlink(missing_ok=True)
        assert self._link is not None
        say("down")
        self._link.say("exit")
        self._link.drain(_KEEPER_PATIENCE_S)


def _process(message: Message) -> ProcessId:
    return ProcessId(message["pid"], message["start"], boot_id())


def say(text: str) -> None:
    """One line in the supervisor's own log."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    print(f"[{stamp},{int(now % 1 * 1000):03d}: INFO/daemon] {text}", file=sys.stderr, flush=True)
