"""The names of workers, `name@host`: how they are made and taken apart (Celery's public path)."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping


def gethostname() -> str:
    """This host's name."""
    return socket.gethostname()


def nodename(name: str, hostname: str) -> str:
    """`name@hostname`."""
    return f"{name}@{hostname}"


def nodesplit(name: str) -> tuple[str | None, str]:
    """Name and host of a node; a name without `@` is a host."""
    first, found, host = name.partition("@")
    return (first, host) if found else (None, name)


def default_nodename(hostname: str | None) -> str:
    """The node name as Celery makes it: `celery@<host>`, or the wish with its %h %n %d; `x` alone is a host."""
    host = gethostname()
    short, _, domain = host.partition(".")
    name, _, where = (hostname or "").rpartition("@")
    return expanded(f"{name or 'celery'}@{where or host}", {"h": host, "n": short, "d": domain})


def node_format(text: str, name: str) -> str:
    """A text, say a path, with Celery's %n %h %d %p of a node; %i and %I are for files of single children."""
    first, _, host = name.partition("@")
    known = {"n": first, "h": host, "d": host.partition(".")[2], "p": name, "i": "0", "I": ""}
    return expanded(text, known)


def expanded(text: str, values: Mapping[str, str]) -> str:
    """A text in which each %x is the value of x; %% is one %, and what is not known stays."""
    return re.sub("%(.)", lambda found: "%" if found[1] == "%" else values.get(found[1], found[0]), text)


def worker_direct(hostname: str) -> str:
    """The name of the queue of one worker alone (`worker_direct`)."""
    return f"{hostname}.dq2"
