"""What a person sees of `up`, `status`, `logs`, `reload` and `down` in a terminal of 80 and of 140 columns.

OPSQ_TEST_STORE=1 writes the stored text anew: look at the difference before it is kept.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import Spawner
from support.supervised import Supervised, python_program
from support.terminal import Terminal, check

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

SAYS = "import time\nprint('serving on port 8000', flush=True)\ntime.sleep(1000)"
LONG = (
    "import sys\nprint('the database at db-primary.internal.example.net is not there; ' * 3, flush=True)\nsys.exit(3)"
)
#: What differs each time, by what it means; blanks of columns are drawn together.
NUMBERS = (
    (r"exited with \d after [\d.…]+( s)?…?", "exited with 3 after a moment"),
    (r"\d+(\.\d+)? [MG]B", "SIZE"),
    (r"\b\d+(\.\d+)?(ms|s)\b", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
    (r" +\d+(\.\d+)?(?= |$)", "  N"),
    (r" {2,}", "  "),
)


@pytest.fixture(params=[80, 140])
def seen(
    request: pytest.FixtureRequest, spawn: Spawner, wait_for: Callable[..., Any]
) -> Iterator[tuple[Supervised, Terminal]]:
    """A folder with three programs, and a terminal in it. Its path is short, so that no line is broken."""
    with tempfile.TemporaryDirectory(prefix="o-") as name:
        shop = Supervised(Path(name) / "shop", spawn, wait_for)
        shop.toml(
            python_program("web", SAYS, more="startsecs = 0")
            + python_program("quite-a-long-name-of-a-program", SAYS, more="startsecs = 0\nautostart = false")
            + python_program("import", LONG, more="startretries = 0\ndepends_on = { web = 'started' }")
        )
        terminal = Terminal(shop.folder, spawn.environment({"OPSQ_STATE_DIR": None}), request.param, wait_for)
        yield shop, terminal
        terminal.end()
        shop.end()


def plain(shop: Supervised, text: str) -> str:
    """The text without what differs each time."""
    text = text.replace(str(shop.state.root), "STATE")
    for pattern, word in NUMBERS:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


def test_the_life_of_a_project_on_the_screen(seen: tuple[Supervised, Terminal]) -> None:
    shop, terminal = seen
    check("up", terminal, plain(shop, terminal.see("up")))
    shop.until("import", state="FATAL")
    status = terminal.see("status")
    assert all(len(line) <= terminal.columns for line in status.splitlines())
    check("status", terminal, plain(shop, status))
    check("status-all", terminal, plain(shop, _mine(shop, terminal.see("status", "--all"))))
    shop.wait_for(lambda: shop.log("web") and shop.log("import"))
    check("logs", terminal, plain(shop, terminal.see("logs")))
    check("logs-one", terminal, plain(shop, terminal.see("logs", "web")))
    check("stop", terminal, plain(shop, terminal.see("stop", "web", "import")))
    check("reload", terminal, plain(shop, terminal.see("reload", "--dry-run")))
    check("down", terminal, plain(shop, terminal.see("down")))
    check("status-none", terminal, plain(shop, terminal.see("status")))


def _mine(shop: Supervised, text: str) -> str:
    """Other tests have supervisors too, and some of these are just about to end."""
    end = str(shop.state.root)[-12:]
    return "\n".join(line for line in text.splitlines() if line.startswith("STATE DIRECTORY") or end in line)
