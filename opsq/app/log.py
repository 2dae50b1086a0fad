"""The formatter of task loggers, under Celery's path: what receivers of `after_setup_task_logger` import."""

from opsq.runtime.logs import TaskFormatter as TaskFormatter

__all__ = ["TaskFormatter"]
