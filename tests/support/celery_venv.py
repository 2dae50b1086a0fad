"""The real Celery in a virtual environment of its own: made once, kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

CELERY = "5.7"


def python() -> Path:
    """The interpreter of the environment; OPSQ_TEST_CELERY_PYTHON names another one."""
    given = os.environ.get("OPSQ_TEST_CELERY_PYTHON")
    if given:
        return Path(given)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = platformdirs.user_cache_path("opsq") / f"tests-celery-{CELERY}-python-{version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _make(folder)
    return folder / "bin" / "python"


def _make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"celery[redis]=={CELERY}.*"], check=True, stdin=subprocess.DEVNULL)
    (folder / "complete").touch()


if __name__ == "__main__":
    print(python())
