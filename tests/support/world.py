"""Another world for a process: a wall clock that jumps and a disk that is slow, while it runs. Needs a C compiler."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def compiler() -> str | None:
    """The C compiler, None where there is none."""
    return shutil.which("cc") or shutil.which("gcc")


def library() -> Path:
    """The library that is loaded into processes; compiled once for each state of its source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"opsq-test-world-{os.getuid()}-{digest}.so"
    if not path.exists():
        cc = compiler()
        assert cc, "no C compiler is here"
        made = path.with_name(f"{path.name}.{os.getpid()}")
        subprocess.run([cc, "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-lm"], check=True)
        made.rename(path)
    return path


class World:
    """What the processes that got its `environment` see of clock and disk."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(struct.pack("=dd", 0.0, 0.0))
        self._path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be given at its start."""
        return {"LD_PRELOAD": str(library()), "OPSQ_TEST_WORLD": str(self._path)}

    def set_clock(self, offset_s: float) -> None:
        """The wall clock jumps to this much ahead of the right time (behind: negative)."""
        struct.pack_into("=d", self._map, 0, offset_s)

    def slow_disk(self, seconds: float) -> None:
        """Each sync takes this much longer from now on."""
        struct.pack_into("=d", self._map, 8, seconds)
