"""Start a process that outlives its starter, or become it; and who a program runs as."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from opsq.exceptions import ImproperlyConfigured
from opsq.runtime.process import adopt_orphans


@dataclass(frozen=True, slots=True)
class RunAs:
    """A user in numbers; all None means: whoever starts it."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None


def run_as(user: str | None) -> RunAs:
    """What a user's name (or number) means here. Raises ImproperlyConfigured."""
    if not user:
        return RunAs()
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise ImproperlyConfigured(f"cannot run a program as {user!r}", why="no such user") from None
    if entry.pw_uid == os.geteuid():
        return RunAs()
    if os.geteuid() != 0:
        raise ImproperlyConfigured(f"cannot run a program as {user!r}", why="only root can choose the user")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return RunAs(entry.pw_uid, entry.pw_gid, groups)


def become(argv: Sequence[str], environ: Mapping[str, str], keep_open: Sequence[int] = ()) -> NoReturn:
    """Go on as another program, which also becomes the parent of its descendants' orphans."""
    adopt_orphans()
    for fd in keep_open:
        os.set_inheritable(fd, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(argv[0], list(argv), dict(environ))


def detach(argv: Sequence[str], environ: Mapping[str, str], log: Path, keep_open: Sequence[int] = ()) -> None:
    """Start a program in a session of its own, as nobody's child, without terminal; it writes to the end of `log`."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            for fd in map(int, os.listdir("/proc/self/fd")):
                if fd > 2:  # also those that our own starter had open
                    _close_on_exec(fd)
            become(argv, environ, keep_open)
    finally:
        os._exit(0)


def _close_on_exec(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError:
        pass
