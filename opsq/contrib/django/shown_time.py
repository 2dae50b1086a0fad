"""Points in time as the admin shows them: in the project's zone, to the second, on one line."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html


def text(moment: datetime) -> str:
    """A time for people. One without a zone is shown as it is stored."""
    local = moment if timezone.is_naive(moment) else timezone.localtime(moment)
    return f"{local:%Y-%m-%d %H:%M:%S}"


def html(moment: datetime | None) -> Any:
    """The same for a table; "-" for none."""
    return "-" if moment is None else format_html('<span style="white-space: nowrap">{}</span>', text(moment))
