"""The scheduler of periodic tasks."""

from opsq.beat.entry import BeatLazyFunc as BeatLazyFunc

__all__ = ("BeatLazyFunc",)
