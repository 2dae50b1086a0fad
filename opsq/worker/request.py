"""Requests of tasks, under Celery's path."""

from opsq.execution.request import Request as Request

__all__ = ["Request"]
