"""`opsq init`: an `opsq.toml` and a first `tasks.py`; what exists is never touched."""

from __future__ import annotations

from pathlib import Path

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command

EXAMPLES = """
opsq init
opsq init shop
"""

TOML = """\
# What `opsq up` starts in this folder. `opsq config` shows every setting and where it comes from.
app = "tasks"

# Without a broker `opsq up` runs a private Redis for this folder.
# broker_url = "redis://localhost:6379/0"

[worker]                  # options of `opsq worker` by their long names
# concurrency = 4
# queues = ["celery"]

# [programs.web]          # other programs, in supervisord's words
# command = ["gunicorn", "site.wsgi"]
# depends_on = { redis = "ready" }
"""

TASKS = """\
from opsq import App

app = App("tasks")


@app.task
def add(x: int, y: int) -> int:
    return x + y
"""


@command(EXAMPLES)
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path), default=Path("."))
@pass_context
def init(context: Context, folder: Path) -> None:
    """Write an opsq.toml and a first tasks.py, here or in FOLDER. Files that exist stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("opsq.toml", TOML), ("tasks.py", TASKS)):
        try:
            with open(folder / name, "x") as file:
                file.write(text)
            context.out.say(f"wrote {folder / name}")
        except FileExistsError:
            context.out.say(f"{folder / name} is there already: left as it is")
    context.out.say("next: opsq up, then opsq run task tasks.add '[2, 3]' --wait")
