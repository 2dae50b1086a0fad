"""What is told for bug reports: software, platform and settings, without secrets; of this process, or of a worker."""

from __future__ import annotations

import platform
from typing import Any

from opsq._version import __version__
from opsq.app.masking import masked


def report(app: Any) -> str:
    """The text, in Celery's form."""
    from importlib.metadata import version  # it loads the whole of email

    conf = app.conf
    settings = {name: masked(name, conf[name]) for name in conf.changed() if not name.startswith("__")}
    lines = [
        "",
        f"software -> opsq:{__version__} py:{platform.python_version()} redis:{version('redis')}",
        f"platform -> system:{platform.system()} arch:{platform.machine()}",
        f"            kernel version:{platform.release()} imp:{platform.python_implementation()}",
        f"loader   -> {app.main or '(no name)'}",
        f"settings -> transport:redis results:{settings.get('result_backend') or 'disabled'}",
        "",
        *(f"{name}: {value!r}" for name, value in settings.items()),
        "",
    ]
    return "\n".join(lines)
