"""The scribe: moves what programs write from their FIFOs into log files, and rotates these by size. Nothing else.

Started by the keeper as `python -I -S scribe.py`; the keeper names FIFOs on standard input, one JSON message each.
Bytes go by `splice`, inside the kernel: there is no moment when they are only in this process's memory, so it may be
killed at any time without a line lost, doubled or torn.
"""

from __future__ import annotations

import json
import os
import select
import sys

TYPE_CHECKING = False  # not typing's: that module would cost a megabyte
if TYPE_CHECKING:
    from typing import Any

CHUNK = 1 << 20


class Log:
    """One FIFO and the file that it goes to."""

    def __init__(self, fifo: str) -> None:
        self.source = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.file, self.size, self.lost = -1, 0, 0
        self.path, self.most, self.keep = "", 0, 0

    def configure(self, order: dict[str, Any]) -> None:
        if order["path"] != self.path:
            self.path = order["path"]
            self.open()
        self.most, self.keep = order["max_bytes"], order["backups"]

    def open(self) -> None:
        """Open the file at its end. Not with O_APPEND, which splice refuses; there is one writer."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
        try:
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            self.size = os.lseek(self.file, 0, os.SEEK_END)
        except OSError as error:
            complain(f"cannot open {self.path}: {error.strerror}")

    def move(self, null: int) -> int:
        """Move what is in the pipe, at most a chunk; 0 when all writers have gone. Raises BlockingIOError."""
        if self.most and self.size >= self.most:
            self.rotate()
        room = min(CHUNK, self.most - self.size) if self.most else CHUNK
        try:
            moved = os.splice(self.source, self.file, room) if self.file >= 0 else -1
        except BlockingIOError:
            raise
        except OSError:  # the disk is full: programs go on, what they say meanwhile is lost and counted
            moved = -1
        if moved < 0:
            dropped = os.splice(self.source, null, CHUNK)
            self.lost += dropped
            return dropped
        self.size += moved
        if self.lost and moved:
            self.say_lost()
        return moved

    def say_lost(self) -> None:
        try:
            self.size += os.write(self.file, b"\nopsq: %d bytes lost, the disk was full\n" % self.lost)
            self.lost = 0
        except OSError:
            pass

    def rotate(self) -> None:
        """Rename the file to the next number and begin a new one; the oldest beyond `keep` go."""
        folder, name = os.path.split(self.path)
        try:
            numbers = sorted(
                int(entry[len(name) + 1 :])
                for entry in os.listdir(folder)
                if entry.startswith(name + ".") and entry[len(name) + 1 :].isdigit()
            )
            number = numbers[-1] + 1 if numbers else 1
            os.rename(self.path, f"{self.path}.{number:06d}")
            for old in (*numbers, number)[: max(0, len(numbers) + 1 - self.keep)]:
                os.unlink(f"{self.path}.{old:06d}")
        except OSError as error:
            complain(f"cannot rotate {self.path}: {error.strerror}")
        self.open()

    def close(self) -> None:
        os.close(self.source)
        if self.file >= 0:
            os.close(self.file)


class Scribe:
    """All logs and the one loop."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.logs: dict[int, Log] = {}
        self.by_fifo: dict[str, Log] = {}
        self.null = os.open("/dev/null", os.O_WRONLY)
        self.alone = False

    def run(self) -> None:
        os.set_blocking(0, False)
        self.epoll.register(0, select.EPOLLIN)
        while True:
            for fd, _event in self.epoll.poll():
                if fd == 0:
                    self.hear()
                else:
                    self.move(self.logs[fd])

    def hear(self) -> None:
        """Take the keeper's orders. When the keeper has gone go on without: its successor will end us."""
        try:
            data = os.read(0, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.epoll.unregister(0)
            self.alone = True
            self.end_if_idle()
            return
        order = json.loads(data)
        if "end" in order:
            self.finish()
        self.add(order)

    def add(self, order: dict[str, Any]) -> None:
        log = self.by_fifo.get(order["fifo"])
        try:
            if log is None:
                log = self.by_fifo[order["fifo"]] = Log(order["fifo"])
                self.logs[log.source] = log
                self.epoll.register(log.source, select.EPOLLIN)
            log.configure(order)
        except OSError as error:
            complain(f"cannot read {order['fifo']}: {error.strerror}")

    def move(self, log: Log) -> bool:
        """Move one chunk; False when there is nothing more now."""
        try:
            if log.move(self.null):
                return True
        except BlockingIOError:
            return False
        self.epoll.unregister(log.source)
        del self.logs[log.source]
        self.by_fifo = {fifo: other for fifo, other in self.by_fifo.items() if other is not log}
        log.close()
        self.end_if_idle()
        return False

    def end_if_idle(self) -> None:
        """Without a keeper nobody will name another pipe; our own standard output keeps its pipe open for ever."""
        own = os.fstat(1)
        if self.alone and all(os.path.samestat(os.fstat(source), own) for source in self.logs):
            os._exit(0)

    def finish(self) -> None:
        """Empty all pipes and go."""
        for log in list(self.logs.values()):
            while self.move(log):
                pass
        os._exit(0)


def complain(text: str) -> None:
    sys.stderr.write(f"scribe: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    Scribe().run()
