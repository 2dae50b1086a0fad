"""What is told for bug reports: software, platform and settings, without secrets; of this process, or of a worker."""

from __future__ import annotations

import platform
from typing import Any

from opsq._version import __version__


def report(app: Any) -> str:
    """The text, in Celery's form."""
    from importlib.metadata import version  # it loads the whole of email

    settings = app.conf.table()
    lines = [
        "",
        f"software -> opsq:{__version__} py:{platform.python_version()} redis:{version('redis')}",
        f"platform -> system:{platform.system()} arch:{platform.machine()}",
        f"            kernel version:{platform.release()} imp:{platform.python_implementation()}",
        f"loader   -> {app.main or '(no name)'}",
        f"settings -> transport:redis results:{settings.get('result_backend') or 'disabled'}",
        "",
        app.conf.humanize(),
        "",
    ]
    return "\n".join(lines)
