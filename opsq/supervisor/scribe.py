"""The scribe: moves what programs write from their FIFOs into log files, and rotates these by size. Nothing else.

Started by the keeper as `python -I -S scribe.py`; the keeper names FIFOs on standard input, one JSON message each.
Bytes go by `splice`, inside the kernel: there is no moment when they are only in this process's memory, so it may be
killed at any time without a line lost, doubled or torn. Several FIFOs may go to one file.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys

TYPE_CHECKING = False  # not typing's: that module would cost a megabyte
if TYPE_CHECKING:
    from typing import Any

CHUNK = 1 << 20


class File:
    """One log file. The only one that writes to it is this process, so it knows the size."""

    def __init__(self, path: str) -> None:
        self.path, self.fd, self.size, self.lost = path, -1, 0, 0
        self.mode, self.most, self.keep = 0o600, 0, 0
        #: How many pipes go to it.
        self.users = 0

    def configure(self, order: dict[str, Any]) -> None:
        self.mode, self.most, self.keep = order.get("mode", 0o600), order["max_bytes"], order["backups"]
        if self.fd < 0:
            self.open()

    def open(self) -> None:
        """Open it at its end. Not with O_APPEND, which splice refuses."""
        self.close()
        try:
            self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, self.mode)
            self.regular = stat.S_ISREG(os.fstat(self.fd).st_mode)
            self.size = os.lseek(self.fd, 0, os.SEEK_END) if self.regular else 0
        except OSError as error:
            complain(f"cannot open {self.path}: {error.strerror}")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def take(self, source: int, null: int) -> int:
        """Move what is in the pipe, at most a chunk; 0 when all writers have gone. Raises BlockingIOError."""
        most = self.most if self.fd >= 0 and self.regular else 0
        if most and self.size >= most:
            self.rotate()
        # What stands between two lines of one program must not be another one's: a shared file is not filled exactly.
        room = min(CHUNK, most - self.size) if most and self.users == 1 else CHUNK
        try:
            moved = os.splice(source, self.fd, room) if self.fd >= 0 else -1
        except BlockingIOError:
            raise
        except OSError:  # the disk is full: programs go on, what they say meanwhile is lost and counted
            moved = -1
        if moved < 0:
            dropped = os.splice(source, null, CHUNK)
            self.lost += dropped
            return dropped
        self.size += moved
        if self.lost and moved:
            self.say_lost()
        return moved

    def say_lost(self) -> None:
        try:
            self.size += os.write(self.fd, b"\nopsq: %d bytes lost, the disk was full\n" % self.lost)
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
                if entry.startswith(name + ".") and entry[len(name) + 1 :].isdigit() and len(entry) - len(name) > 6
            )
            number = numbers[-1] + 1 if numbers else 1
            os.rename(self.path, f"{self.path}.{number:06d}")
            for old in (*numbers, number)[: max(0, len(numbers) + 1 - self.keep)]:
                os.unlink(f"{self.path}.{old:06d}")
        except OSError as error:
            complain(f"cannot rotate {self.path}: {error.strerror}")
        self.open()


class Pipe:
    """One FIFO and the file that it goes to."""

    def __init__(self, fifo: str, file: File) -> None:
        self.source, self.file = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), file


class Scribe:
    """All pipes, all files and the one loop."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.pipes: dict[int, Pipe] = {}
        self.by_fifo: dict[str, Pipe] = {}
        self.files: dict[str, File] = {}
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
                    self.move(self.pipes[fd])

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
        if "reopen" in order:
            for file in self.files.values():
                file.open()
            return
        self.add(order)

    def add(self, order: dict[str, Any]) -> None:
        file = self.files.setdefault(order["path"], File(order["path"]))
        file.configure(order)
        pipe = self.by_fifo.get(order["fifo"])
        if pipe is not None:
            left, pipe.file = pipe.file, file
            file.users += 1
            self.leave(left)
            return
        try:
            pipe = self.by_fifo[order["fifo"]] = Pipe(order["fifo"], file)
            file.users += 1
            self.pipes[pipe.source] = pipe
            self.epoll.register(pipe.source, select.EPOLLIN)
        except OSError as error:
            complain(f"cannot read {order['fifo']}: {error.strerror}")

    def leave(self, file: File) -> None:
        file.users -= 1
        if not file.users:
            self.files.pop(file.path, None)
            file.close()

    def move(self, pipe: Pipe) -> bool:
        """Move one chunk; False when there is nothing more now."""
        try:
            if pipe.file.take(pipe.source, self.null):
                return True
        except BlockingIOError:
            return False
        self.epoll.unregister(pipe.source)
        del self.pipes[pipe.source]
        self.by_fifo = {fifo: other for fifo, other in self.by_fifo.items() if other is not pipe}
        os.close(pipe.source)
        self.leave(pipe.file)
        self.end_if_idle()
        return False

    def end_if_idle(self) -> None:
        """Without a keeper nobody will name another pipe; our own standard output keeps its pipe open for ever."""
        own = os.fstat(1)
        if self.alone and all(os.path.samestat(os.fstat(source), own) for source in self.pipes):
            os._exit(0)

    def finish(self) -> None:
        """Empty all pipes and go."""
        for pipe in list(self.pipes.values()):
            while self.move(pipe):
                pass
        os._exit(0)


def complain(text: str) -> None:
    sys.stderr.write(f"scribe: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    Scribe().run()
