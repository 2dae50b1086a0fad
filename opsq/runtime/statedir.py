"""The state directory: where it is for a project, and what lies where in it. It finds no configuration."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from opsq.exceptions import OpsqError, RefusedError
from opsq.platforms import is_root
from opsq.project import find_django, find_project_file

#: A Unix socket's path has room for 108 bytes, the last of them zero.
_LONGEST_SOCKET_PATH = 107
_SHARED = Path("/tmp")
_HINT = "name another one with --state-dir or OPSQ_STATE_DIR"


@dataclass(frozen=True, slots=True)
class StateDir:
    """Paths below one state directory."""

    root: Path

    @property
    def run(self) -> Path:
        """Sockets, pidfiles, FIFOs, the supervisor's state."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        """What programs wrote."""
        return self.root / "log"

    @property
    def redis(self) -> Path:
        """The private Redis: its configuration and its data."""
        return self.root / "redis"

    @property
    def slots(self) -> Path:
        """What each worker's children run."""
        return self.run / "slots"

    @property
    def key(self) -> str:
        """A short name for this directory, different from every other one's on this machine."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]

    @property
    def control_socket(self) -> Path:
        """Where the supervisor's daemon takes orders."""
        return self._socket("control.sock")

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper takes the daemon's orders."""
        return self._socket("keeper.sock")

    @property
    def notify_socket(self) -> Path:
        """Where programs say that they are ready (sd_notify)."""
        return self._socket("notify.sock")

    @property
    def redis_socket(self) -> Path:
        """Where the private Redis listens."""
        return self._socket("redis.sock")

    @property
    def short(self) -> Path:
        """Where sockets lie whose path in `run` would be too long; the same for whoever looks, whatever is set."""
        return _SHARED / f"opsq-{os.geteuid()}-{self.key}"

    def of_user(self, uid: int | None) -> Path:
        """The state directory of programs that run as another user (None: as this one): this one is closed to them."""
        return self.root if uid is None else _SHARED / f"opsq-{uid}-{self.key}"

    def _socket(self, name: str) -> Path:
        path = self.run / name
        return path if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH else self.short / name

    def create(self) -> None:
        """Make what is missing, for this user alone; one clear error if that cannot be."""
        self._folder(self.root)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            try:
                ignore.write_text("*\n")
            except OSError as error:
                raise _unusable(self.root, error) from None
        for folder in (self.run, self.log, self.slots):
            self._folder(folder)
        if self.control_socket.parent != self.run:
            self._folder(self.short)

    def _folder(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.lstat()
        except OSError as error:
            raise _unusable(path, error) from None
        if not stat.S_ISDIR(found.st_mode) and not path.is_dir():
            raise OpsqError(f"cannot use {path} as state directory", why="it is no directory", hint=_HINT)
        if (path != self.root or path.parent == _SHARED) and hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            raise RefusedError(f"cannot use {path}", why="it belongs to another user", hint=_HINT)
        if not os.access(path, os.W_OK | os.X_OK):
            raise RefusedError(f"cannot write the state directory {path}", why="permission denied", hint=_HINT)


def _unusable(path: Path, error: OSError) -> OpsqError:
    kind = RefusedError if isinstance(error, PermissionError) else OpsqError
    return kind(f"cannot write the state directory {path}", why=(error.strerror or str(error)).lower(), hint=_HINT)


def find(explicit: str | None = None, environ: Mapping[str, str] = os.environ, start: Path | None = None) -> StateDir:
    """The state directory for what is done in the folder `start` (the current one).

    `--state-dir`; `OPSQ_STATE_DIR`; `.opsq` beside the project's file; else one of this user's, named after the folder
    of the Django project around `start`, or after `start`.
    """
    if named := explicit or environ.get("OPSQ_STATE_DIR"):
        return StateDir(Path(named).resolve())
    start = start or Path.cwd()
    if (file := find_project_file(start, environ)) is not None:
        return StateDir(file.parent.resolve() / ".opsq")
    django = find_django(start)
    folder = (django.folder if django is not None else start).resolve()
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return StateDir(_user_state() / f"{folder.name or 'root'}-{digest}")


def keys_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the keys of hosts and operators are: those of this machine's user, whatever the project.

    `OPSQ_KEYS_DIR` (which the supervisor sets for its programs); `keys/` in the state directory that `OPSQ_STATE_DIR`
    or `--state-dir` names; else one of this user's.
    """
    if named := environ.get("OPSQ_KEYS_DIR"):
        return Path(named).resolve()
    if named := environ.get("OPSQ_STATE_DIR"):
        return Path(named).resolve() / "keys"
    return _user_state() / "keys"


def _user_state() -> Path:
    if is_root():
        return Path("/var/lib/opsq")
    import platformdirs

    return platformdirs.user_state_path("opsq")


def private_redis_url(state: StateDir) -> str | None:
    """The URL of the private Redis of this state directory, if its socket answers and is ours to trust."""
    path = state.redis_socket
    try:
        if path.stat().st_uid not in (0, os.geteuid()):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except OSError:
        return None
    return redis_url(state)


def redis_url(state: StateDir) -> str:
    """How the private Redis of this state directory is named, whether it runs or not."""
    from urllib.parse import quote

    return f"redis+socket://{quote(str(state.redis_socket))}"
