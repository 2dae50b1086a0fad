"""Attributes of Celery's app that opsq's has not, and what to use: said by the error when one is asked for."""

from __future__ import annotations

_PARTS = "opsq's parts are not made to be exchanged: see docs/extending.md"
_MESSAGES = "opsq has no kombu; use send_task, app.connection() or `opsq queues`"

ABSENT = {
    "Beat": "run `opsq beat`",
    "IS_WINDOWS": "from opsq.platforms import IS_WINDOWS",
    "IS_macOS": "from opsq.platforms import IS_macOS",
    "Pickler": "an app is not pickled: import it",
    "SYSTEM": "from opsq.platforms import SYSTEM",
    "WorkController": "run `opsq worker`, or app.worker_main([...])",
    "Worker": "run `opsq worker`, or app.worker_main([...])",
    "amqp": "queues are in app.conf.task_queues, routes in app.conf.task_routes",
    "amqp_cls": _PARTS,
    "annotations": "use the setting task_annotations",
    "backend_cls": "use the setting result_backend",
    "bugreport": "`opsq doctor` and `opsq report` say more",
    "builtin_fixups": "Django is found by itself",
    "config_from_cmdline": "use the flags of `opsq`",
    "control_cls": _PARTS,
    "create_task_cls": "app.Task is the class",
    "default_connection": "use app.connection()",
    "default_producer": _MESSAGES,
    "either": "app.conf has the setting",
    "events_cls": _PARTS,
    "loader_cls": _PARTS,
    "log": "connect to the signals setup_logging or after_setup_logger",
    "log_cls": _PARTS,
    "oid": "it is the reply queue of Celery's results, which opsq does not need",
    "prepare_config": "settings are read when they are first needed",
    "producer_or_acquire": _MESSAGES,
    "producer_pool": _MESSAGES,
    "registry_cls": _PARTS,
    "select_queues": "use worker -Q",
    "steps": "the worker is not made of steps: see docs/extending.md",
    "subclass_with_self": "subclass opsq.Task and set its app",
    "thread_oid": "it is the reply queue of Celery's results, which opsq does not need",
    "type_checker": "arguments are checked by the function's own signature; typing=False leaves it out",
    "uses_utc_timezone": "app.timezone is the zone",
}
