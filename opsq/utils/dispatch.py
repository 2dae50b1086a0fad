"""Signals of a program's own: Celery's path for the class."""

from opsq.signals import Signal as Signal

__all__ = ["Signal"]
