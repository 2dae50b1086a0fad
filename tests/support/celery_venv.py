"""The real Celery in virtual environments of their own, one a version: made once, kept in the user's cache.

`OPSQ_TEST_CELERY` names the versions that the tests of older ones take (`4.4,5.4,5.6`); the newest is in every test.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

NEWEST = "5.7"
#: Of the Python that runs the tests.
OWN_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Version -> what it is made of; kombu as it was in its time: its bindings differ.
VERSIONS = {
    "4.4": ["celery[redis,msgpack,yaml]==4.4.0", "kombu==4.6.*", "redis==3.5.*", "setuptools<70"],
    "5.4": ["celery[redis,msgpack,yaml]==5.4.*", "kombu==5.4.*", "brotli", "zstandard"],
    "5.6": ["celery[redis,msgpack,yaml]==5.6.*", "kombu==5.6.*", "brotli", "zstandard"],
    NEWEST: ["celery[redis,msgpack,yaml,brotli]==5.7.*", "backports.zstd>=1", "flower==2.*"],
}
#: What a Django project of Celery's is made of.
DJANGO = [
    *("celery[redis]==5.7.*", "django==5.2.*", "psycopg[binary]==3.*"),
    *("django-celery-beat==2.9.*", "django-celery-results==2.6.*"),
]
#: What Python has lost since Celery 4.4 was written: run at the start of each interpreter of its environment.
SHIM = """
import collections
import collections.abc
import inspect

for _name in collections.abc.__all__:
    if not hasattr(collections, _name):
        setattr(collections, _name, getattr(collections.abc, _name))

_ArgSpec = collections.namedtuple("ArgSpec", "args varargs keywords defaults")


def getargspec(function):
    return _ArgSpec(*inspect.getfullargspec(function)[:4])


def formatargspec(args, varargs=None, varkw=None, defaults=None, *_more, formatvalue=lambda value: "=" + repr(value)):
    first = len(args) - len(defaults or ())
    parts = [name + (formatvalue(defaults[at - first]) if at >= first else "") for at, name in enumerate(args)]
    parts += ["*" + varargs] if varargs else []
    parts += ["**" + varkw] if varkw else []
    return "(" + ", ".join(parts) + ")"


inspect.getargspec, inspect.formatargspec = getargspec, formatargspec
"""


def python(version: str = NEWEST) -> Path:
    """The interpreter of a version's environment; OPSQ_TEST_CELERY_PYTHON names another one for the newest."""
    given = os.environ.get("OPSQ_TEST_CELERY_PYTHON")
    if given and version == NEWEST:
        return Path(given)
    folder = made("tests-celery" if version == NEWEST else f"tests-celery-{version}", VERSIONS[version])
    if version == "4.4":
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "opsq_tests_shim.py").write_text(SHIM)
        (packages / "opsq_tests_shim.pth").write_text("import opsq_tests_shim\n")
    return folder / "bin" / "python"


def django_python() -> Path:
    """The interpreter of an environment of the newest Celery's in which a Django project keeps schedule and results."""
    return made("tests-celery-in-django", DJANGO) / "bin" / "python"


def older() -> list[str]:
    """The older versions that are wanted."""
    return [name for name in os.environ.get("OPSQ_TEST_CELERY", "").split(",") if name and name != NEWEST]


def made(name: str, requirements: list[str], interpreter: str = sys.executable, version: str = OWN_VERSION) -> Path:
    """A virtual environment with these packages, made if it is not there; `version`: of the interpreter."""
    name = f"{name}-python-{version}"
    folder = platformdirs.user_cache_path("opsq") / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_of = folder / "made-of"
        if not made_of.exists() or made_of.read_text() != repr(requirements):
            _make(folder, requirements, interpreter)
            made_of.write_text(repr(requirements))
    return folder


def _make(folder: Path, requirements: list[str], interpreter: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements], check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    for each in (NEWEST, *older()):
        print(python(each))
    print(django_python())
