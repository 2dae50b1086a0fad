"""What Celery's guide shows of tasks, calls, workflows and results, written once for Celery and once for opsq.

`flows.py` holds a function for each item; what it returns must be the same with both libraries.
"""

from __future__ import annotations

from pathlib import Path

from support.guide_items import ITEMS
from support.guide_tasks import TASKS

#: Functions of `flows.py` that need no worker, and those that do.
AS_DATA = (
    *("signatures", "clones_and_replacements", "frozen", "kept_as_json_and_pickled", "piped"),
    *("chords_and_groups_as_data", "links", "maps_as_data", "applied", "always_eager"),
    *(
        "declared_tasks",
        "settings_of_an_app",
        "schedules",
        "periodic_tasks",
        "queues_and_exchanges",
        "signals_of_a_call",
    ),
)
RUN = (
    *("calls", "wrong_calls", "expired", "the_request", "retries", "ends_of_other_kinds", "errors"),
    *("results_nobody_wants", "inside_tasks", "chains", "groups", "groups_that_are_saved", "sets_of_results", "chords"),
    *(
        "chords_in_workflows",
        "maps",
        "replacements",
        "trees",
        "results",
        "words_of_the_backend",
        "revocations",
        "stamps",
    ),
)
#: Those that are given a file to which their tasks write.
TOLD = ("handlers", "errbacks")


def write(folder: Path, library: str) -> Path:
    """The project in a folder: `flows.py`, importing `celery` or `opsq`."""
    folder.mkdir(parents=True, exist_ok=True)
    queues = "from opsq import Broadcast, Exchange, Queue, binding\n"
    if library == "celery":
        queues = "from kombu import Exchange, Queue, binding\nfrom kombu.common import Broadcast\n"
    (folder / "flows.py").write_text(queues + f"{TASKS}\n\n{ITEMS}".replace("LIBRARY", library))
    (folder / "proj.py").write_text("from flows import *\n\nOdd = ValueError\n")
    return folder
