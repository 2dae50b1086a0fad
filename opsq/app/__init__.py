"""App floor room; its modules are imported by name. Here is what programs import from Celery's `celery.app`."""

from opsq._state import app_or_default as app_or_default

__all__ = ["app_or_default"]
