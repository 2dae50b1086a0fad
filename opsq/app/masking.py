"""Settings as they may be shown: without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opsq.datastore.url import masked as masked_url

_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|API_?KEY|SIGNATURE|security_key|shared_key", re.IGNORECASE)
_HIDDEN = "********"


def masked(name: str, value: Any) -> Any:
    """The value without secrets: by the name it has, in URLs, and in mappings."""
    if value and _SECRET.search(name):
        return _HIDDEN
    if isinstance(value, Mapping):
        return {key: masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked("", inner) for inner in value]
    if isinstance(value, str) and "://" in value:
        return ";".join(masked_url(part) for part in value.split(";"))
    return value
