"""Settings of the engine that Celery has no word for; everywhere where Celery's may stand."""

from __future__ import annotations

from opsq.config.option import WORKS, Option

# fmt: off
ENGINE_OPTIONS: tuple[Option, ...] = (
    Option("queue_limits", dict, {}, "", WORKS,
           "Limits of queues: {\"mail\": {\"rate_limit\": \"100/s\", \"max_concurrency\": 4}}"),
    Option("security_shared_key", object, None, "", WORKS,
           "A key that all programs of the project share, or several of which the first signs: from then on task "
           "messages, results and remote commands are signed (serializer \"signed\") and others refused, unless "
           "task_serializer, result_serializer or accept_content say otherwise"),
    Option("task_default_rate_limit_scope", str, "worker", "", WORKS,
           "Where the rates of tasks count: \"worker\" (each worker has them for itself) or \"cluster\""),
    Option("task_max_deliveries", int, 5, "", WORKS,
           "A message that was started and lost with its process so often goes to the dead letters; 0 = never"),
    Option("task_log_max_bytes", int, 32_000_000, "", WORKS,
           "What the lines that tasks log and print may take in the broker, where they are kept for a day and read by "
           "`opsq logs --task`: the latest, 64 kB of a task at most; 0 = none are kept"),
    Option("worker_discard_invalid_messages", bool, False, "", WORKS,
           "As Celery: a message of an unknown task, or that cannot be read, is thrown away with a line in the log; "
           "not set: it goes to the dead letters"),
    Option("worker_queue_order", object, None, "", WORKS,
           "Which queue a worker takes from first, within a priority: fair (in turn), strict (as they are listed), or "
           "weights such as {'mail': 3, 'slow': 1}; None = as queue_order_strategy of the transport options says, else "
           "fair"),
)
# fmt: on
