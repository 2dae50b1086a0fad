"""Flower's options wherever Flower takes them (command line, `flowerconfig.py`, `FLOWER_*`), for our monitor."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from opsq.cli.commands.monitor import WITHOUT_EFFECT
from opsq.config.options.monitor import BASIC_AUTH_VARIABLE

#: What the monitor has under the same name.
_SAME = ("address", "port", "url_prefix", "certfile", "keyfile", "max_tasks", "enable_events")
#: What decides who may come in and is not here: the monitor refuses to start with it.
_ENTRANCE = ("auth", "auth_provider", "oauth2_key", "oauth2_secret", "oauth2_redirect_uri", "ca_certs", "unix_socket")
_NOT_HERE = ("format_task", "task_runtime_metric_buckets", "conf")
_KNOWN = frozenset((*_SAME, *_ENTRANCE, *_NOT_HERE, *WITHOUT_EFFECT, "basic_auth"))
_CONFIG = "flowerconfig.py"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def carried_over(words: Iterable[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str], str]:
    """Words for `opsq`, variables to set, and what is not as it was, in a sentence (or "").

    Flower listens on all addresses unless it is told one; ours does so only with a password.
    """
    given, rest = _sorted(words)
    told = {**_environment(environ), **_file(given, environ), **given}
    added: dict[str, str] = {}
    if password := told.pop("basic_auth", environ.get(BASIC_AUTH_VARIABLE)):
        added[BASIC_AUTH_VARIABLE] = password if isinstance(password, str) else ",".join(password)
    notes = []
    address = str(told.pop("address", ""))
    if added:
        told["address"] = address or "0.0.0.0"
    elif address in _LOOPBACK:
        told["address"] = address
    elif not any(name in told for name in _ENTRANCE):
        notes.append(
            f"it listens on 127.0.0.1, not on {address or 'all addresses'}: that needs a password (basic_auth)"
        )
    if left := [name for name in _NOT_HERE if name in told and name != "conf"]:
        notes.append(f"{', '.join(left)} has no effect")
    wanted = {name: value for name, value in told.items() if name in (*_SAME, *_ENTRANCE, *WITHOUT_EFFECT)}
    return [*rest, *(_option(name, value) for name, value in wanted.items())], added, "; ".join(notes)


def _option(name: str, value: Any) -> str:
    if name == "enable_events":
        return "--enable-events" if _is_true(value) else "--no-enable-events"
    return f"--{name}={value}"


def _is_true(value: Any) -> bool:
    return str(value).lower() not in ("false", "0", "no", "off")


def _sorted(words: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Flower's own options with their values (`--name=value`, or `--name` alone), and all other words."""
    given: dict[str, Any] = {}
    rest = []
    for word in words:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and name.removeprefix("no_") in _KNOWN and (equals or name not in _SAME):
            given[name.removeprefix("no_")] = value if equals else str(not name.startswith("no_"))
        else:
            rest.append(word)
    return given, rest


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    named = {name.removeprefix("FLOWER_").lower(): value for name, value in environ.items() if name[:7] == "FLOWER_"}
    return {name: value for name, value in named.items() if name in _KNOWN}


def _file(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """What Flower's own file says: assignments in Python."""
    path = Path(given.get("conf") or environ.get("FLOWER_CONF") or _CONFIG)
    if not path.is_file():
        return {}
    return {name: value for name, value in runpy.run_path(os.fspath(path)).items() if name in _KNOWN}
