"""URLs put together from their parts."""

from __future__ import annotations

from urllib.parse import SplitResult


def joined(parts: SplitResult) -> str:
    """The URL that consists of these parts.

    Of one without a host, a socket's, the standard library drops the slashes unless somebody has taught it the scheme.
    """
    found = parts.geturl()
    return found if "://" in found else found.replace(":", "://", 1)
