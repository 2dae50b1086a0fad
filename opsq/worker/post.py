"""Where a worker stands: what the parts of its lease thread have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opsq.datastore.keys import Priorities


@dataclass(frozen=True, slots=True)
class Post:
    """The broker, the worker's name (`<node>:<8 hex>`), its queues, its lease (seconds), the folder of mapped files."""

    url: str
    worker_id: str
    queues: list[str]
    lease_s: float
    key_prefix: str
    priorities: Priorities
    folder: Path
