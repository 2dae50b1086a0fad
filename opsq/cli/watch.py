"""What a command shows, shown again and again until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from opsq.cli.context import Context
from opsq.exceptions import SupervisorError

#: Between two times (seconds).
PAUSE_S = 1.0


def watched(context: Context, show: Callable[[], Any], pause_s: float = PAUSE_S) -> NoReturn:
    """Show it again and again; in a terminal always at the same place."""
    while True:
        if context.out.terminal and not context.out.json:
            print("\x1b[H\x1b[2J\x1b[3J", end="")
        try:
            show()
        except SupervisorError as error:  # it may come back
            context.out.line(str(error))
        sys.stdout.flush()
        time.sleep(pause_s)
