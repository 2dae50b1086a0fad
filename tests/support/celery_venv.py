"""The real Celery in a virtual environment of its own: made once, kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

REQUIREMENTS = ["celery[redis,msgpack,yaml,brotli]==5.7.*", "backports.zstd>=1", "flower==2.*"]


def python() -> Path:
    """The interpreter of the environment; OPSQ_TEST_CELERY_PYTHON names another one."""
    given = os.environ.get("OPSQ_TEST_CELERY_PYTHON")
    if given:
        return Path(given)
    return made("tests-celery", REQUIREMENTS) / "bin" / "python"


def made(name: str, requirements: list[str]) -> Path:
    """A virtual environment with these packages, made if it is not there."""
    name = f"{name}-python-{sys.version_info.major}.{sys.version_info.minor}"
    folder = platformdirs.user_cache_path("opsq") / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_of = folder / "made-of"
        if not made_of.exists() or made_of.read_text() != repr(requirements):
            _make(folder, requirements)
            made_of.write_text(repr(requirements))
    return folder


def _make(folder: Path, requirements: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements], check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    print(python())
