"""Run one command for an order: in a process group of its own, with a time limit, its outputs apart and bounded."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from opsq.hosts.order import Order
from opsq.runtime.bell import Bell

#: Why a command was ended, in an answer.
TIMEOUT, CANCELLED, STOPPING = "timeout", "cancelled", "stopping"
#: How long outputs are still read when the command has ended but something that it left behind keeps them open.
_DRAIN_S = 0.3
_CHUNK = 1 << 16
#: Settings of the agent that are not the command's business; they may hold passwords.
_OURS = ("OPSQ_", "CELERY_")
#: What the supervisor and the tests find their processes by.
_MARKS = ("OPSQ_PROGRAM", "OPSQ_TEST_MARK")


class Bounded:
    """The first and the last half of what was written; the middle is only counted. Memory stays within the limit."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._rest = limit - self._half
        self._head, self._tail = bytearray(), bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take what was read."""
        self.total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._rest + _CHUNK:
            self._cut()

    def _cut(self) -> None:
        del self._tail[: max(0, len(self._tail) - self._rest)]

    def kept(self) -> bytes:
        """What is kept of it."""
        self._cut()
        return bytes(self._head + self._tail)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code or signal, begin and end (Unix seconds), and why if it was ended."""

    exit: int | None
    signal: int | None
    begin: float
    end: float
    reason: str
    out: bytes
    out_bytes: int
    err: bytes
    err_bytes: int


class Runner:
    """One command. `run` blocks; `end` may be called from any thread."""

    def __init__(self, order: Order, environment: Mapping[str, str]) -> None:
        self.order = order
        self._environment = environment
        self._bell = Bell()
        self._reason = ""
        self._out, self._err = Bounded(order.output), Bounded(order.output)

    def end(self, reason: str) -> None:
        """End the command and all of its process group."""
        self._reason = self._reason or reason
        self._bell.ring()

    def run(self) -> Ended:
        """Start the command and see it to its end."""
        begin, started = time.time(), time.monotonic()
        try:
            process = self._start()
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            text = (
                f"opsq: cannot run {(self.order.argv or ('/bin/sh',))[0]}: {(error.strerror or str(error)).lower()}\n"
            )
            self._err.add(os.fsencode(text))
            return self._ended(code, begin, started)
        try:
            self._watch(process, started + self.order.timeout_s)
        except BaseException:
            _signal_group(process.pid, signal.SIGKILL)
            raise
        finally:
            code = process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        return self._ended(code, begin, started)

    def close(self) -> None:
        """Let go of what it holds."""
        self._bell.close()

    def _start(self) -> subprocess.Popen[bytes]:
        order = self.order
        argv = ["/bin/sh", "-c", order.shell] if order.shell is not None else list(order.argv or ())
        home = self._environment.get("HOME", "/")
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home if os.path.isdir(home) else "/",
            env=self._environment,
            start_new_session=True,
            bufsize=0,
        )

    def _watch(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        """Read its outputs until it has ended, is ended, or its time is over. It is not reaped here: its pid, which is
        that of its group, stays its own until then."""
        assert process.stdout is not None
        assert process.stderr is not None
        pidfd = os.pidfd_open(process.pid)
        kill_at: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, self._out)
            selector.register(process.stderr, selectors.EVENT_READ, self._err)
            selector.register(pidfd, selectors.EVENT_READ, "ended")
            selector.register(self._bell.reader, selectors.EVENT_READ, "end")
            alive = True
            while alive or (len(selector.get_map()) > 1 and time.monotonic() < deadline):
                now = time.monotonic()
                if alive and now >= deadline and kill_at is None:
                    self.end(TIMEOUT)
                if self._reason and kill_at is None:
                    kill_at = now + self.order.kill_after_s
                    _signal_group(process.pid, signal.SIGTERM)
                if alive and kill_at is not None and now >= kill_at:
                    _signal_group(process.pid, signal.SIGKILL)
                    kill_at = now + 1.0
                until = deadline if kill_at is None else kill_at
                for key, _events in selector.select(max(0.0, until - now)):
                    if isinstance(key.data, Bounded):
                        self._read(selector, key, key.data)
                    elif key.data == "end":
                        self._bell.read()
                    else:
                        alive = False
                        selector.unregister(pidfd)
                        deadline, kill_at = time.monotonic() + _DRAIN_S, None
                        if self._reason:
                            _signal_group(process.pid, signal.SIGKILL)
                            kill_at = deadline
        os.close(pidfd)

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey, sink: Bounded) -> None:
        data = os.read(key.fd, _CHUNK)
        if data:
            sink.add(data)
        else:
            selector.unregister(key.fileobj)

    def _ended(self, code: int, begin: float, started: float) -> Ended:
        out, err = self._out, self._err
        return Ended(
            exit=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            begin=begin,
            end=begin + time.monotonic() - started,
            reason=self._reason,
            out=out.kept(),
            out_bytes=out.total,
            err=err.kept(),
            err_bytes=err.total,
        )


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass


def environment_of_commands(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The agent's own environment without opsq's settings; home, user and search path as after a login."""
    import pwd

    found = {
        name: value for name, value in environ.items() if name in _MARKS or not name.startswith((*_OURS, "NOTIFY_"))
    }
    found.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError:
        return {"HOME": str(Path("/")), **found}
    return {"HOME": me.pw_dir, "USER": me.pw_name, "LOGNAME": me.pw_name, "SHELL": me.pw_shell, **found}
