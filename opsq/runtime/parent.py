"""A process that ends with its parent, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: Tells a process that is started by exec that it is a worker's template: descriptor of the link, pid of the parent.
TEMPLATE_LINK = "OPSQ_TEMPLATE_LINK"
#: prctl(2): the signal a process gets when its parent's forking thread ends.
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel SIGKILL this process when its parent ends (`parent`: its pid); exits at once if it has already.

    The signal follows the thread that forked, so only a main thread may fork such children.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
