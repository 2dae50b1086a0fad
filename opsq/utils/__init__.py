"""What programs import from Celery's `celery.utils`."""

from functools import cached_property as cached_property

from opsq.utils.ids import new_task_id as uuid

#: Celery's older name for it.
gen_unique_id = uuid

__all__ = ["cached_property", "gen_unique_id", "uuid"]
