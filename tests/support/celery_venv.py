"""The real Celery in a virtual environment of its own: made once, kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

REQUIREMENTS = ["celery[redis,msgpack,yaml,brotli]==5.7.*", "backports.zstd>=1"]


def python() -> Path:
    """The interpreter of the environment; OPSQ_TEST_CELERY_PYTHON names another one."""
    given = os.environ.get("OPSQ_TEST_CELERY_PYTHON")
    if given:
        return Path(given)
    name = f"tests-celery-python-{sys.version_info.major}.{sys.version_info.minor}"
    folder = platformdirs.user_cache_path("opsq") / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_of = folder / "made-of"
        if not made_of.exists() or made_of.read_text() != repr(REQUIREMENTS):
            _make(folder)
            made_of.write_text(repr(REQUIREMENTS))
    return folder / "bin" / "python"


def _make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *REQUIREMENTS], check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    print(python())
