"""Where a worker stands: what the parts of its lease thread have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opsq.datastore.priorities import Priorities
from opsq.protocol.routing import Binding


@dataclass(frozen=True, slots=True)
class Post:
    """The broker, the worker's name (`<node>:<8 hex>`), its queues, its lease (seconds), the folder of mapped files.

    `bindings`: how its queues are bound.
    """

    url: str
    worker_id: str
    queues: list[str]
    lease_s: float
    key_prefix: str
    priorities: Priorities
    folder: Path
    bindings: Mapping[str, Sequence[Binding]] = field(default_factory=dict)
