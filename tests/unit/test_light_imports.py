"""What must start fast imports little: the package itself, the help, and the programs that keep others alive."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("redis", "rich", "asyncio", "psutil", "cryptography", "croniter", "jinja2", "starlette", "uvicorn", "yaml")


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return set(done.stdout.partition("LOADED")[2].split())


HELP = """
import sys
sys.argv = ["opsq", "--help"]
from opsq.cli.main import main
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code", ["import opsq", HELP], ids=["import opsq", "opsq --help"])
def test_nothing_heavy_is_imported(code: str) -> None:
    assert loaded_by(code) & set(HEAVY) == set()


def test_the_help_loads_no_command() -> None:
    assert not {name for name in loaded_by(HELP) if name.startswith("opsq.cli.commands.")}


WORKER = "import opsq.cli.commands.worker, opsq.worker.assemble, opsq.app.own"
#: What few workers need: TLS and Sentinels, coroutines, a file of settings, the versions of packages.
SELDOM = {"redis", "asyncio", "ssl", "tomllib", "email", "importlib.metadata", "tempfile", "opsq.app.control"}


def test_a_worker_loads_only_what_all_of_them_need() -> None:
    assert loaded_by(WORKER) & (SELDOM | set(HEAVY)) == set()


def test_the_supervisor_knows_neither_redis_nor_the_app() -> None:
    loaded = loaded_by("import opsq.supervisor.supervisor")
    assert "redis" not in loaded
    assert not {name for name in loaded if name.startswith(("opsq.app", "opsq.broker", "opsq.datastore"))}


AGENT = "import opsq.cli.commands.agent, opsq.hosts.agent, opsq.hosts.station, opsq.app.home, opsq.config.broker"
CALLER = "import opsq.cli.commands.run, opsq.cli.commands.run_hosts, opsq.hosts.dispatch, opsq.hosts.journal"


@pytest.mark.parametrize("code", [AGENT, CALLER], ids=["opsq agent", "opsq run host-batch"])
def test_orders_to_hosts_need_neither_an_app_nor_anything_that_paints(code: str) -> None:
    loaded = loaded_by(code)
    assert not loaded & {"rich", "opsq.app.base", "opsq.app.task", "jinja2", "starlette", "psutil"}
