"""Results in Django's own places, asked for by an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async


async def beside(call: Callable[..., Any], *args: Any) -> Any:
    """Have it done in Django's thread for such code, whose connections end with the request."""
    return await sync_to_async(call, thread_sensitive=True)(*args)
