"""The keeper: parent of all programs. It starts and reaps them, remembers their ends until these are acknowledged,
holds their log pipes open and keeps scribe and daemon running. It has no policy: the daemon says what is to be done.

Started as `python -I -S keeper.py JSON`, with the standard library only, so that it stays small and a new version of
opsq can leave it alone. It is one file because isolated Python has no path on which it would find a second one. The
descriptor `lock` in the JSON is held as long as it lives: one keeper a directory.

From the daemon, over a SOCK_SEQPACKET socket: spawn, adopt, signal, ack, hearing, exit. To it: on connecting a child
for each living one, every end not yet acknowledged and ready; then spawned, exit and signal. SIGUSR2 has the scribe
open all log files anew, for those who move them away (logrotate).
"""

from __future__ import annotations

import _socket
import json
import os
import select
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False  # not typing's: that module would cost a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: How long the daemon may take to answer a request to stop before the keeper ends all programs by itself.
HEARING_S = 5.0
#: How long the programs have then between TERM and KILL.
LAST_GRACE_S = 10.0
#: How long the scribe may take to write what is still in the pipes at the end.
DRAIN_S = 5.0
#: A scribe or daemon that lived shorter than this is started again after a pause that doubles.
SHORT_LIFE_S = 1.0
LONGEST_PAUSE_S = 5.0


class Peer:
    """A connection that never blocks: what the other side does not take now waits in a list."""

    def __init__(self, epoll: select.epoll, connection: _socket.socket) -> None:
        connection.setblocking(False)
        self.epoll, self.connection, self.waiting = epoll, connection, list[bytes]()
        self.fd = connection.fileno()
        epoll.register(self.fd, select.EPOLLIN)

    def send(self, message: Message) -> None:
        self.waiting.append(json.dumps(message).encode())
        self.flush()

    def flush(self) -> None:
        taken = 0
        try:
            for data in self.waiting:
                self.connection.send(data)
                taken += 1
        except BlockingIOError:
            pass
        except OSError:  # the other side has gone: reading will say so
            taken = len(self.waiting)
        del self.waiting[:taken]
        self.epoll.modify(self.fd, select.EPOLLIN | (select.EPOLLOUT if self.waiting else 0))

    def close(self) -> None:
        self.epoll.unregister(self.fd)
        self.connection.close()


class Child:
    """A living program. `pidfd` is there when it is watched as somebody else's child (adopted)."""

    def __init__(self, id: str, pid: int, start: int, pidfile: str, pidfd: int | None = None) -> None:
        self.id, self.pid, self.start, self.pidfile, self.pidfd = id, pid, start, pidfile, pidfd

    def told(self) -> Message:
        return {"id": self.id, "pid": self.pid, "start": self.start, "adopted": self.pidfd is not None}


class Helper:
    """One of our own processes: started, watched, and started again when it ends."""

    def __init__(self, name: str, argv: list[str], pidfile: str) -> None:
        self.name, self.argv, self.pidfile = name, argv, pidfile
        self.pid, self.pidfd, self.since, self.pause_s = 0, -1, 0.0, 0.0
        self.due: float | None = None


def start_ticks(pid: int) -> int | None:
    """When the process started: with its pid this names it, and no other."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return None


def open_process(pid: int, start: int) -> int | None:
    """A pidfd that means this very process; None when it has ended, a zombie too. Opened first, compared then."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    if start_ticks(pid) != start or wait_for(fd, 0):
        os.close(fd)
        return None
    return fd


class Keeper:
    """All state of the keeper and the one loop."""

    def __init__(self, settings: Message) -> None:
        self.settings = settings
        self.run_dir: str = settings["run"]
        with open("/proc/sys/kernel/random/boot_id") as file:
            self.boot = file.read().strip()
        self.epoll = select.epoll()
        self.on: dict[int, Callable[[int], None]] = {}
        self.children: dict[str, Child] = {}
        self.ids: dict[int, str] = {}
        self.unacknowledged: dict[int, Message] = {}
        self.last_seq = 0
        self.held: dict[str, tuple[int, Message]] = {}
        self.daemon_link: Peer | None = None
        self.scribe_link: Peer | None = None
        self.deadline: float | None = None
        self.ending = False
        self.daemon = Helper("daemon", settings["daemon"], f"{self.run_dir}/daemon.pid")
        self.scribe = Helper("scribe", settings["scribe"], f"{self.run_dir}/scribe.pid")
        self.output = Helper("output", settings["output"] or [], f"{self.run_dir}/output.pid")

    # --- start ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        os.set_inheritable(self.settings["lock"], False)
        os.ftruncate(self.settings["lock"], 0)
        os.pwrite(self.settings["lock"], f"{self.named(os.getpid())}\n".encode(), 0)
        self.terminal = os.dup(1)
        self.pipe_signals()
        self.hold(self.settings["log"])
        own = self.held[self.settings["log"]["fifo"]][0]
        os.dup2(own, 2)
        os.dup2(own, 1)
        self.listen()
        self.end_old_scribe()
        self.start(self.scribe)
        self.start(self.daemon)
        if self.output.argv:
            self.start(self.output)

    def pipe_signals(self) -> None:
        """Signals become bytes in a pipe. Handlers, not SIG_IGN: programs must start with the default ones."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        for signum in SIGNALS:
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.signals = reader
        self.watch(reader, self.on_signals)

    def listen(self) -> None:
        path = self.settings["socket"]
        remove(path)
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        os.chmod(path, 0o600)
        self.listener.listen(8)
        self.watch(self.listener.fileno(), self.on_connection)

    def watch(self, fd: int, handler: Callable[[int], None]) -> None:
        self.on[fd] = handler
        self.epoll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        self.on.pop(fd, None)
        self.epoll.unregister(fd)

    # --- scribe and daemon ------------------------------------------------------------------------------------------

    def start(self, helper: Helper) -> None:
        helper.due = None
        if helper is self.daemon and self.watch_old_daemon():
            return
        if helper is self.scribe:
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            process = subprocess.Popen(
                helper.argv,
                stdin=theirs.fileno() if helper is self.scribe else subprocess.DEVNULL,
                stdout=self.terminal if helper is self.output else None,
                stderr=self.terminal if helper is self.output else None,
                close_fds=False,
                start_new_session=True,
            )
        except OSError as error:
            self.ended(helper)
            complain(f"cannot start the {helper.name}: {error}")
            return
        process.returncode = 0
        helper.pid, helper.since = process.pid, time.monotonic()
        if helper is not self.daemon:  # that one says itself who it is, once it knows that it is the only one
            self.write_pidfile(helper.pidfile, process.pid)
        if helper is self.scribe:
            theirs.close()
            self.scribe_link = Peer(self.epoll, ours)
            self.on[ours.fileno()] = self.on_scribe
            for _fd, log in self.held.values():
                self.scribe_link.send(log)

    def ended(self, helper: Helper, status: int | None = None) -> None:
        """Start it again: at once when it had lived for a while or was killed, else after a growing pause."""
        helper.pid = 0
        if helper is self.scribe:
            self.drop_scribe()
        if self.ending or (helper is self.daemon and not self.in_charge()):
            return
        killed = status in (signal.SIGKILL, signal.SIGTERM)
        if killed or time.monotonic() - helper.since >= SHORT_LIFE_S:
            helper.pause_s = 0.0
        helper.due = time.monotonic() + helper.pause_s
        helper.pause_s = min(max(0.1, 2 * helper.pause_s), LONGEST_PAUSE_S)

    def in_charge(self) -> bool:
        """Whether our directory is still there; who has deleted it does not want us, a new `up` has its own keeper."""
        try:
            return os.path.samestat(os.stat(self.settings["pidfile"]), os.fstat(self.settings["lock"]))
        except OSError:
            return False

    def drop_scribe(self) -> None:
        if self.scribe_link is not None:
            self.on.pop(self.scribe_link.fd, None)
            self.scribe_link.close()
            self.scribe_link = None

    def on_scribe(self, event: int) -> None:
        if event & select.EPOLLOUT and self.scribe_link is not None:
            self.scribe_link.flush()
        if event & ~select.EPOLLOUT:
            self.drop_scribe()

    def end_old_scribe(self) -> None:
        """Two writers of one log file would overwrite each other: a dead keeper's scribe goes first."""
        fd = self.open_named(self.scribe.pidfile)
        if fd is not None:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            wait_for(fd, DRAIN_S)
            os.close(fd)

    def watch_old_daemon(self) -> bool:
        """A dead keeper's daemon lives on: watch it instead of starting a second one."""
        fd = self.open_named(self.daemon.pidfile)
        if fd is None:
            return False
        self.daemon.since, self.daemon.pidfd = time.monotonic(), fd
        self.watch(fd, self.on_old_daemon_end)
        return True

    def on_old_daemon_end(self, _event: int) -> None:
        self.forget(self.daemon.pidfd)
        os.close(self.daemon.pidfd)
        self.daemon.pidfd = -1
        self.ended(self.daemon)

    def open_named(self, pidfile: str) -> int | None:
        try:
            with open(pidfile) as file:
                pid, start, boot = file.read().split()
            return open_process(int(pid), int(start)) if boot == self.boot else None
        except (OSError, ValueError):
            return None

    # --- log pipes --------------------------------------------------------------------------------------------------

    def hold(self, log: Message) -> None:
        """Open a program's FIFO for reading and writing, so that nobody ever gets SIGPIPE, and tell the scribe."""
        fifo = log["fifo"]
        fd, known = self.held.get(fifo, (-1, None))
        if fd < 0:
            try:
                os.mkfifo(fifo, 0o600)
            except FileExistsError:
                pass
            fd = os.open(fifo, os.O_RDWR)
        if "uid" in log:
            os.fchown(fd, log["uid"], -1)
        if log != known:
            self.held[fifo] = fd, log
            if self.scribe_link is not None:
                self.scribe_link.send(log)

    def hold_all(self, order: Message) -> None:
        """The pipe of a program's output, and that of its errors if these go elsewhere."""
        for stream in ("log", "errors"):
            if stream in order:
                self.hold(order[stream])

    # --- programs ---------------------------------------------------------------------------------------------------

    def spawn(self, order: Message) -> None:
        id = order["id"]
        if id in self.children:
            self.tell({"event": "spawned", **self.children[id].told(), "error": None})
            return
        try:
            self.hold_all(order)
            pid = self.execute(order)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
            self.tell({"event": "spawned", "id": id, "pid": None, "start": None, "error": why})
            return
        child = Child(id, pid, start_ticks(pid) or 0, order["pidfile"])
        self.children[id] = child
        self.ids[pid] = id
        self.write_pidfile(child.pidfile, pid)
        self.tell({"event": "spawned", **child.told(), "error": None})

    @staticmethod
    def execute(order: Message) -> int:
        environment = {**os.environ, **order["env"]}
        # Opened anew each time: a program that makes its output non-blocking does so for itself only.
        out = os.open(order["log"]["fifo"], os.O_RDWR)
        errors = os.open(order["errors"]["fifo"], os.O_RDWR) if "errors" in order else out
        try:
            process = subprocess.Popen(
                order["argv"],
                cwd=order["cwd"],
                env={name: value for name, value in environment.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                close_fds=False,  # all of ours are close-on-exec
                start_new_session=True,
                user=order["uid"],
                group=order["gid"],
                extra_groups=order["groups"],
                umask=order["umask"],
            )
        finally:
            for fd in {out, errors}:
                os.close(fd)
        # waitpid(-1) is the one that reaps; Popen must not try, nor keep a list of what it thinks still runs.
        process.returncode = 0
        return process.pid

    def adopt(self, order: Message) -> None:
        """Watch a program that was started by a keeper before this one."""
        if order["id"] in self.children:
            return
        fd = open_process(order["pid"], order["start"])
        if fd is None:
            self.report(order["id"], order["pid"], order["start"], None)
            return
        child = Child(order["id"], order["pid"], order["start"], order["pidfile"], fd)
        self.children[child.id] = child
        self.watch(fd, lambda _event: self.on_adopted_end(child))
        self.hold_all(order)

    def on_adopted_end(self, child: Child) -> None:
        assert child.pidfd is not None
        self.forget(child.pidfd)
        os.close(child.pidfd)
        self.children.pop(child.id, None)
        remove(child.pidfile)
        self.report(child.id, child.pid, child.start, None)

    def signal(self, order: Message) -> None:
        child = self.children.get(order["id"])
        if child is None:
            return
        try:
            if order.get("group") and (child.pidfd is None or not wait_for(child.pidfd, 0)):
                os.killpg(child.pid, order["signal"])  # each program leads a group of its own
            elif child.pidfd is not None:
                signal.pidfd_send_signal(child.pidfd, order["signal"])
            else:  # not reaped yet, so the pid is still its own
                os.kill(child.pid, order["signal"])
        except OSError:
            pass

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            id = self.ids.pop(pid, None)
            if id is not None:
                child = self.children.pop(id)
                remove(child.pidfile)
                self.report(id, pid, child.start, status)
            for helper in (self.scribe, self.daemon, self.output):
                if pid == helper.pid:
                    self.ended(helper, status)
            self.go_if_useless()

    def go_if_useless(self) -> None:
        """Without directory, daemon and programs there is nothing left to do."""
        daemon = self.daemon.pid or self.daemon.pidfd >= 0 or self.daemon.due is not None
        if not (self.ending or self.children or daemon or self.in_charge()):
            self.finish()

    def report(self, id: str, pid: int, start: int, status: int | None) -> None:
        """Remember an end until it is acknowledged, and tell it."""
        self.last_seq += 1
        end = {"event": "exit", "seq": self.last_seq, "id": id, "pid": pid, "start": start, "status": status}
        self.unacknowledged[self.last_seq] = {**end, "at": time.time()}
        self.tell(self.unacknowledged[self.last_seq])

    # --- the daemon's connection ------------------------------------------------------------------------------------

    def tell(self, message: Message) -> None:
        if self.daemon_link is not None:
            self.daemon_link.send(message)

    def on_connection(self, _event: int) -> None:
        fd, _address = self.listener._accept()  # type: ignore[attr-defined]
        self.drop_daemon()
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self.daemon_link = Peer(self.epoll, connection)
        self.on[fd] = self.on_daemon
        for child in self.children.values():
            self.tell({"event": "child", **child.told()})
        for end in self.unacknowledged.values():
            self.tell(end)
        self.tell({"event": "ready", "last_seq": self.last_seq})

    def drop_daemon(self) -> None:
        if self.daemon_link is not None:
            self.on.pop(self.daemon_link.fd, None)
            self.daemon_link.close()
            self.daemon_link = None

    def on_daemon(self, event: int) -> None:
        link = self.daemon_link
        if link is None:
            return
        if event & select.EPOLLOUT:
            link.flush()
        if not event & ~select.EPOLLOUT:
            return
        try:
            data = link.connection.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop_daemon()
            return
        self.obey(json.loads(data))

    def obey(self, order: Message) -> None:
        verb = order["order"]
        if verb == "spawn":
            self.spawn(order)
        elif verb == "adopt":
            self.adopt(order)
        elif verb == "signal":
            self.signal(order)
        elif verb == "ack":
            self.unacknowledged.pop(order["seq"], None)
        elif verb == "hearing":
            self.deadline = None
        elif verb == "exit":
            self.finish()

    # --- the end ----------------------------------------------------------------------------------------------------

    def on_signals(self, _event: int) -> None:
        try:
            numbers = os.read(self.signals, 4096)
        except BlockingIOError:
            return
        for signum in numbers:
            if signum != signal.SIGCHLD:
                self.tell({"event": "signal", "signal": signum})
            if signum == signal.SIGUSR2 and self.scribe_link is not None:
                self.scribe_link.send({"reopen": True})
            if signum in STOP_SIGNALS and self.deadline is None:
                self.deadline = time.monotonic() + HEARING_S
        self.reap()

    def stop_alone(self) -> None:
        """No daemon answers: end the programs without it."""
        self.ending = True
        self.signal_all(signal.SIGTERM)
        limit = time.monotonic() + LAST_GRACE_S
        while self.children and time.monotonic() < limit:
            self.turn(limit - time.monotonic())
        self.signal_all(signal.SIGKILL)
        if self.daemon.pidfd >= 0:
            signal.pidfd_send_signal(self.daemon.pidfd, signal.SIGKILL)
        elif self.daemon.pid:
            os.kill(self.daemon.pid, signal.SIGKILL)
        self.finish()

    def signal_all(self, signum: int) -> None:
        for id in self.children:
            self.signal({"id": id, "signal": signum})

    def finish(self) -> None:
        """Let the scribe write what is still in the pipes, take our files away, and go."""
        self.ending = True
        self.reap()
        if not self.scribe.pid:
            self.start(self.scribe)
        if self.scribe_link is not None:
            self.scribe_link.send({"end": True})
        self.end_helper(self.scribe)
        if self.output.pid:
            os.kill(self.output.pid, signal.SIGTERM)
            self.end_helper(self.output)
        limit = time.monotonic() + DRAIN_S
        while (self.daemon.pid or self.daemon.pidfd >= 0) and time.monotonic() < limit:
            self.turn(limit - time.monotonic())
        if self.in_charge():
            for path in (*self.held, self.settings["socket"], self.daemon.pidfile, self.settings["pidfile"]):
                remove(path)
        os._exit(0)

    def end_helper(self, helper: Helper) -> None:
        """Wait for its end; the loop goes on meanwhile, it may have orders to hear yet."""
        limit = time.monotonic() + DRAIN_S
        while helper.pid and time.monotonic() < limit:
            self.turn(limit - time.monotonic())
        if helper.pid:
            os.kill(helper.pid, signal.SIGKILL)
        if self.in_charge():
            remove(helper.pidfile)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.begin()
        while True:
            self.turn(self.start_due())
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.stop_alone()

    def turn(self, timeout_s: float) -> None:
        for fd, event in self.epoll.poll(timeout_s):
            handler = self.on.get(fd)
            if handler is not None:
                handler(event)

    def start_due(self) -> float:
        """Start the helpers that are due; how long the loop may sleep after that (-1 = until something happens)."""
        now = time.monotonic()
        for helper in (self.scribe, self.daemon, self.output):
            if helper.due is not None and helper.due <= now:
                self.start(helper)
        times = [helper.due for helper in (self.scribe, self.daemon, self.output) if helper.due is not None]
        if self.deadline is not None:
            times.append(self.deadline)
        return max(0.0, min(times) - now) if times else -1.0

    def named(self, pid: int) -> str:
        return f"{pid} {start_ticks(pid) or 0} {self.boot}"

    def write_pidfile(self, path: str, pid: int) -> None:
        try:
            with open(path + ".new", "w") as file:
                file.write(f"{self.named(pid)}\n")
            os.rename(path + ".new", path)
        except OSError as error:
            complain(f"cannot write {path}: {error}")


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def wait_for(pidfd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def complain(text: str) -> None:
    sys.stderr.write(f"keeper: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    Keeper(json.loads(sys.argv[1])).run()
