"""Lines that say celery in files which are no Python: what they would say with opsq. Nothing is changed there.

Requirements and project files name packages; unit files, Procfiles, Dockerfiles, compose files, crontabs and scripts
hold commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

#: What is wanted of Celery with these brackets, opsq has under the same name.
EXTRAS = frozenset({"brotli", "django", "eventlet", "gevent", "msgpack", "redis", "solar", "yaml", "zstd"})

#: Packages that are not needed, or not of use, with opsq.
PACKAGES = {
    "amqp": "not needed: remove it",
    "billiard": "not needed: remove it",
    "kombu": "not needed: remove it (kombu's Queue and Exchange are accepted)",
    "vine": "not needed: remove it",
    "celery-redbeat": "not needed: the schedule is in Redis (opsq schedule)",
    "redbeat": "not needed: the schedule is in Redis (opsq schedule)",
    "flower": "`opsq monitor` does its work; Flower may stay",
    "celery-types": "not needed: opsq has types of its own",
    "django-celery-beat": "write opsq[django]: opsq.contrib.django in INSTALLED_APPS takes its tables over",
    "django-celery-results": "write opsq[django]: opsq.contrib.django in INSTALLED_APPS takes its tables over",
    "pytest-celery": "use opsq.contrib.pytest",
}

_WORDS = "amqp|beat|call|control|events|flower|graph|inspect|list|migrate|multi|purge|report|result|shell|status|worker"
_QUOTED = re.compile(rf"""(["'])(?P<path>[\w./~{{}}$-]*/)?celery\1(?P<rest>\s*,\s*["'](?:-\w|--\w|{_WORDS}))""")
_PLAIN = re.compile(rf"""(?<![\w.\[-])(?P<path>[\w./~{{}}$%()-]*/)?celery(?P<rest>\s+(?:-\w|--\w|(?:{_WORDS})\b))""")
#: `status` is another command here: which workers answer, `inspect ping` tells.
_STATUS = re.compile(r"(\bopsq(?:\s+-\S+(?:\s+[^\s-]\S*)?)*?\s+)status\b")
_QUOTED_STATUS = re.compile(r"""((["'])opsq\2(?:\s*,\s*["'][^"']*["'])*?\s*,\s*)(["'])status\3""")
_MODULE = re.compile(r"(?P<head>python[\d.]*(?:\s+-\w+)*?\s+-m\s+|[\"']-m[\"']\s*,\s*[\"'])celery\b")
_INSTALLED = re.compile(r"(\bpip3?\s+install\b.*?\s[\"']?)celery(\[[^\]]*\])?([=<>~!]=?[\w.*]+)?(?=[\"'\s]|$)")
_SAID = re.compile(
    r"""^(?P<head>\s*(?:-\s*)?["']?)(?P<name>[A-Za-z][\w.-]*)"""
    r"""(?P<rest>\s*(?:\[[^\]]*\])?\s*(?:[=<>!~;@,"'#].*)?)$"""
)
_KEY = re.compile(r"""^(?P<head>\s*)(?P<name>[A-Za-z][\w.-]*)\s*=\s*(?P<rest>["'{].*)$""")
#: Requirements that stand in one line: `dependencies = ["celery>=5", "flask"]`.
_LISTED = re.compile(r"^(?!\s*keywords\b).*\w[\"']?\s*[=:]\s*\[")
_ITEM = re.compile(
    r"""(?P<quote>["'])(?P<name>[A-Za-z][\w.-]*)(?P<rest>\s*(?:\[[^\]]*\])?\s*(?:[=<>!~;@](?:(?!(?P=quote)).)*)?)(?P=quote)"""
)
_MULTI = re.compile(
    r"""\bopsq(?:\s+-\S+(?:\s+[^\s-]\S*)?)*?\s+multi\b|(["'])opsq\1(?:\s*,\s*["'][^"']*["'])*?\s*,\s*["']multi\b"""
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line (from 1) that says celery, and the line to write instead; or, with None, why another is needed."""

    number: int
    text: str
    instead: str | None
    why: str = ""


def lines_of(path: PurePath, text: str) -> Iterator[Line]:
    """The lines of a file that would be others."""
    packages, commands = _names_packages(path), _holds_commands(path)
    for number, line in enumerate(text.splitlines(), 1):
        found = None
        if not line.lstrip().startswith(("#", "//", ";")):
            found = (packages and _package(number, line, path)) or (commands and _command(number, line)) or None
        if found is not None:
            yield found


def is_of_interest(path: PurePath) -> bool:
    """Whether such a file may name packages or hold commands."""
    return _names_packages(path) or _holds_commands(path)


def _names_packages(path: PurePath) -> bool:
    name = path.name.lower()
    if name in ("pyproject.toml", "setup.cfg", "setup.py", "pipfile", "environment.yml", "environment.yaml"):
        return True
    listed = path.suffix in (".txt", ".in", ".pip") and ("requirements" in path.as_posix() or "constraints" in name)
    return listed or (path.parent.name == "requirements" and path.suffix == ".txt")


def _holds_commands(path: PurePath) -> bool:
    name = path.name.lower()
    named = ("dockerfile", "containerfile", "procfile", "compose", "docker-compose", "crontab", "makefile", "justfile")
    ends = (".service", ".conf", ".ini", ".sh", ".yml", ".yaml", ".cron", ".supervisor", ".toml", ".cfg", ".bash")
    return name.startswith(named) or path.suffix.lower() in ends or path.parent.name.startswith("cron")


def _package(number: int, line: str, path: PurePath) -> Line | None:
    form = _KEY.match(line) if path.name.lower() in ("pyproject.toml", "pipfile") else None
    if form is None and path.name.lower() in ("pyproject.toml", "setup.py") and _LISTED.match(line):
        return _list(number, line)
    form = form or _SAID.match(line)
    if form is None:
        return None
    name = form["name"].lower().replace("_", "-")
    if name == "celery":
        keyed = form.re is _KEY
        instead = f'{form["head"]}opsq = "*"' if keyed else f"{form['head']}opsq{_without_version(form['rest'])}"
        return Line(number, line.strip(), instead.strip())
    return Line(number, line.strip(), None, PACKAGES[name]) if name in PACKAGES else None


def _list(number: int, line: str) -> Line | None:
    """Of a line with several packages: the line to write; when only others are named, why not."""

    def instead(item: re.Match[str]) -> str:
        is_celery = item["name"].lower() == "celery"
        return f"{item['quote']}opsq{_without_version(item['rest'])}{item['quote']}" if is_celery else item[0]

    changed = _ITEM.sub(instead, line)
    if changed != line:
        return Line(number, line.strip(), changed.strip())
    named = [item["name"].lower().replace("_", "-") for item in _ITEM.finditer(line)]
    whys = [f"{name}: {PACKAGES[name]}" for name in named if name in PACKAGES]
    return Line(number, line.strip(), None, "; ".join(whys)) if whys else None


def _without_version(rest: str) -> str:
    """The brackets that opsq knows too, and what follows the version: a marker, the end of the quotes, a comment."""
    brackets = re.match(r"\s*\[([^\]]*)\]", rest)
    kept = [word.strip() for word in brackets[1].split(",") if word.strip() in EXTRAS] if brackets else []
    tail = rest[brackets.end() :] if brackets else rest
    after = re.search(r"""\s*;.*|["'].*|\s+#.*""", tail)
    return (f"[{','.join(kept)}]" if kept else "") + (after[0] if after else "")


def _command(number: int, line: str) -> Line | None:
    changed = _MODULE.sub(lambda found: f"{found['head']}opsq", line)
    changed = _QUOTED.sub(lambda found: f"{found[1]}{found['path'] or ''}opsq{found[1]}{found['rest']}", changed)
    changed = _PLAIN.sub(lambda found: f"{found['path'] or ''}opsq{found['rest']}", changed)
    changed = _INSTALLED.sub(lambda found: found[1] + "opsq" + _without_version(found[2] or ""), changed)
    if changed == line:
        return None
    changed = _STATUS.sub(r"\1inspect ping", changed)
    changed = _QUOTED_STATUS.sub(r"\1\3inspect\3, \3ping\3", changed)
    if _MULTI.search(changed):
        return Line(number, line.strip(), None, "`opsq -A APP up` starts workers and keeps them running")
    return Line(number, line.strip(), changed.strip())
