"""Points in time as the admin shows them: in the project's zone, to the second."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html_join


def text(moment: datetime) -> str:
    """A time for people. One without a zone is shown as it is stored."""
    local = moment if timezone.is_naive(moment) else timezone.localtime(moment)
    return f"{local:%Y-%m-%d %H:%M:%S}"


def html(moment: datetime | None) -> Any:
    """The same for a table, which breaks it between date and time alone; "-" for none."""
    if moment is None:
        return "-"
    words = ((word,) for word in text(moment).split())
    return format_html_join(" ", '<span style="white-space: nowrap">{}</span>', words)
