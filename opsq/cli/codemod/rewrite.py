"""Imports of Celery and kombu in one source text become imports of opsq; everything else stays as it was written.

Found by syntax tree, changed in the text itself: comments, layout and ends of lines are kept. What cannot be moved
stays and is told, with its reason.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from opsq.cli.codemod import django_apps, loggers, names
from opsq.cli.codemod.places import Edit, Places, applied

_FROM = re.compile(r"from(?:\s|\\\r?\n)+")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
#: A path in a text: with two dots, a colon, or the name of a class.
_PATH = re.compile(r"(?:celery|kombu)(?:\.\w+){2,}|(?:celery|kombu)(?:\.\w+)*:\w+|(?:celery|kombu)(?:\.\w+)*\.[A-Z]\w*")

_MULTIPROCESSING = "Python's multiprocessing has it, also in tasks: their processes are no daemons"


@dataclass(frozen=True, slots=True)
class Left:
    """Something that was not touched: its line (from 1), what stands there, and why or what to write."""

    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A source text in its new form, how many imports were changed, and what was left."""

    text: str
    changes: int
    left: list[Left]


def rewrite(source: str) -> Rewritten:
    """The text with its imports changed. Raises SyntaxError, ValueError for what this Python cannot read."""
    if not any(package in source for package in (*names.PACKAGES, "billiard")):
        return Rewritten(source, 0, [])
    with warnings.catch_warnings(action="ignore"):
        tree = ast.parse(source)
    change = _Change(Places(source), tree)
    change.make()
    text = applied(source, change.edits)
    with warnings.catch_warnings(action="ignore"):
        ast.parse(text)  # never hand out what cannot be read
    return Rewritten(text, change.count, sorted(change.left, key=lambda each: each.line))


def _ours(module: str | None) -> bool:
    return _first(module) in names.PACKAGES


def _first(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _billiard(module: str, alias: ast.alias) -> str:
    """What to write for a name of the library under Celery's processes."""
    home = names.home_of("celery.exceptions", alias.name) if module == "billiard.exceptions" else None
    return f"write: {_statement(home.module, [(alias, ast.unparse(alias))])}" if home else _MULTIPROCESSING


class _Change:
    """The changes of one text."""

    def __init__(self, places: Places, tree: ast.Module) -> None:
        self.places, self.tree = places, tree
        self.edits: list[Edit] = []
        self.left: list[Left] = []
        self.count = 0

    def make(self) -> None:
        """Find and note all of them."""
        bound: dict[str, list[tuple[ast.Import, ast.alias]]] = {package: [] for package in names.PACKAGES}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and not node.level and _ours(node.module):
                self._from(node)
            elif isinstance(node, ast.ImportFrom) and not node.level and _first(node.module) == "billiard":
                for alias in node.names:
                    self._leave(node, _billiard(node.module or "", alias))
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if _first(alias.name) == "billiard":
                        self._leave(node, f"{alias.name}: {_MULTIPROCESSING}")
                    if _ours(alias.name):
                        package = _first(alias.name)
                        self._as(alias) if alias.asname else bound[package].append((node, alias))
        for package, imports in bound.items():
            if imports:
                self._package(package, imports)
        self._strings()
        for told, why in django_apps.told(self.tree):
            self._leave(told, why)

    def _leave(self, node: ast.stmt | ast.expr | ast.alias, why: str) -> None:
        self.left.append(Left(node.lineno, self.places.line_text(node.lineno).strip(), why))

    # -- from ... import -------------------------------------------------------------------------------------------

    def _from(self, node: ast.ImportFrom) -> None:
        assert node.module is not None
        groups: dict[str, list[tuple[ast.alias, str]]] = {}
        for alias in node.names:
            home = names.home_of(node.module, alias.name)
            if home is None:
                self._leave(alias, f"{alias.name}: {names.reason(node.module, alias.name)}")
            module, name = home or (node.module, alias.name)
            groups.setdefault(module, []).append((alias, _alias_text(name, alias)))
        if set(groups) == {node.module}:
            return
        self.count += 1
        stays = max(groups, key=lambda module: len(groups[module]))
        start = self.places.start(node)
        found = _FROM.match(self.places.source, start)
        if found is None or not self.places.source.startswith(node.module, found.end()):
            self._write_anew(node, groups)
            return
        others = {module: group for module, group in groups.items() if module != stays}
        if "(" not in self.places.text(node) and others:
            self._write_anew(node, groups)
            return
        before = "".join(_statement(module, group) + self._separator(start) for module, group in others.items())
        if before:
            self.edits.append(Edit(start, start, before))
        self.edits.append(Edit(found.end(), found.end() + len(node.module), stays))
        for alias, text in groups[stays]:
            if text != self.places.text(alias):
                self.edits.append(Edit(self.places.start(alias), self.places.end(alias), text))
        for group in others.values():
            for alias, _text in group:
                self._take_out(alias)

    def _write_anew(self, node: ast.ImportFrom, groups: dict[str, list[tuple[ast.alias, str]]]) -> None:
        """A statement without parentheses, and so without comments in it, as several."""
        start = self.places.start(node)
        text = self._separator(start).join(_statement(module, group) for module, group in groups.items())
        self.edits.append(Edit(start, self.places.end(node), text))

    def _separator(self, start: int) -> str:
        """What stands between two statements here."""
        indent = self.places.before(start)
        return "; " if indent.strip() else self.places.newline + indent

    def _take_out(self, alias: ast.alias) -> None:
        """A name that goes elsewhere leaves the parentheses; a comment behind it stays."""
        source, start, end = self.places.source, self.places.start(alias), self.places.end(alias)
        if comma := _COMMA.match(source, end):
            end = comma.end()
        before, after = self.places.before(start), re.match(r"[ \t]*(\r\n|\r|\n)", source[end:])
        if not before.strip() and after is not None:
            start, end = start - len(before), end + after.end()
        self.edits.append(Edit(start, end, ""))

    # -- import ----------------------------------------------------------------------------------------------------

    def _as(self, alias: ast.alias) -> None:
        """`import celery.x as y`."""
        if not names.module_is_there(alias.name):
            self._leave(alias, f"{alias.name}: {names.reason(alias.name)}")
            return
        self.count += 1
        start = self.places.start(alias)
        self.edits.append(Edit(start, start + len(alias.name), names.own_path(alias.name)))

    def _package(self, package: str, imports: list[tuple[ast.Import, ast.alias]]) -> None:
        """`import celery`, `import celery.x`: what uses the name changes too."""
        uses = [(node, chain) for node, chain in _chains(self.tree) if chain[0] == package]
        if package == "kombu":
            self._kombu(imports, uses)
            return
        movable = []
        for _node, alias in imports:
            if names.module_is_there(alias.name):
                movable.append(alias)
            else:
                self._leave(alias, f"{alias.name}: {names.reason(alias.name)}")
        if not movable:
            return
        for node, chain in uses:
            why = _unmovable(chain)
            if why:
                self._leave(node, f"{'.'.join(chain)}: {why}")
        plain = self._renamed(package)
        self.edits += plain or []
        for alias in movable:
            own = names.own_path(alias.name)
            text = own if plain is not None else " ".join([*([f"{own},"] if own != "opsq" else []), "opsq as celery"])
            self.edits.append(Edit(self.places.start(alias), self.places.end(alias), text))
            self.count += 1

    def _renamed(self, package: str) -> list[Edit] | None:
        """The changes that make each use of a package's name one of opsq's; None when the name means more than it."""
        edits = []
        for node in ast.walk(self.tree):
            if _binds(node, package) or _binds(node, "opsq"):
                return None
            if isinstance(node, ast.Name) and node.id == package:
                start = self.places.start(node)
                if self.places.source[start : start + len(package)] != package:  # in an f-string of Python 3.11
                    return None
                edits.append(Edit(start, start + len(package), "opsq"))
        return edits

    def _kombu(self, imports: list[tuple[ast.Import, ast.alias]], uses: list[tuple[ast.expr, list[str]]]) -> None:
        """All that is used of it has a place in opsq, or none of it is moved."""
        homes = [(node, chain, _kombu_home(chain)) for node, chain in uses]
        lost = [".".join(chain) for _node, chain, home in homes if home is None]
        if lost or not homes or self._renamed("kombu") is None:
            whole = f"kombu: {names.reason('kombu')}" if not lost else f"{lost[0]}: {_kombu_reason(lost[0])}"
            for _node, alias in imports:
                self._leave(alias, whole)
            return
        modules = list(dict.fromkeys(home.module for _node, _chain, home in homes if home is not None))
        for node, _chain, home in homes:
            assert home is not None
            self.edits.append(Edit(self.places.start(node), self.places.end(node), f"{home.module}.{home.name}"))
        for _node, alias in imports:
            self.edits.append(Edit(self.places.start(alias), self.places.end(alias), ", ".join(modules)))
            self.count += 1

    # -- texts -----------------------------------------------------------------------------------------------------

    def _strings(self) -> None:
        """Paths that are written as texts, for `patch`, `import_module` and settings: told, not touched."""
        logged = loggers.named(self.tree)
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in logged:
                continue
            if _PATH.fullmatch(node.value):
                self._path(node, node.value)

    def _path(self, node: ast.Constant, path: str) -> None:
        chain = path.replace(":", ".").split(".")
        why = _unmovable(chain) if chain[0] == "celery" else _kombu_reason(path.replace(":", "."))
        self._leave(node, f"{path!r} is a text: {why}" if why else f"{path!r} is a text: write {'opsq' + path[6:]!r}")


def _alias_text(name: str, alias: ast.alias) -> str:
    if name == alias.name:
        return name + (f" as {alias.asname}" if alias.asname else "")
    return f"{name} as {alias.asname or alias.name}"


def _statement(module: str, group: list[tuple[ast.alias, str]]) -> str:
    return f"from {module} import {', '.join(text for _alias, text in group)}"


def _chains(tree: ast.AST) -> Iterator[tuple[ast.expr, list[str]]]:
    """Each name with the attributes that are asked for behind it: `a.b.c`, the longest form of it only."""
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            chain: list[str] = []
            part: ast.expr = node
            while isinstance(part, ast.Attribute):
                chain.append(part.attr)
                part = part.value
                inner.add(id(part))
            if isinstance(part, ast.Name):
                yield node, [part.id, *reversed(chain)]


def _unmovable(chain: list[str]) -> str:
    """Why an attribute of Celery cannot be reached through opsq; nothing when it can."""
    module = chain[0]
    for name in chain[1:]:
        if names.module_is_there(f"{module}.{name}"):
            module = f"{module}.{name}"
            continue
        home = names.home_of(module, name)
        if home is None:
            return names.reason(module, name)
        return "" if home == (names.own_path(module), name) else f"from {home.module} import {home.name}"
    return ""


def _kombu_home(chain: list[str]) -> names.Home | None:
    return names.home_of(".".join(chain[:-1]), chain[-1]) if len(chain) > 1 else None


def _kombu_reason(path: str) -> str:
    module, _, name = path.rpartition(".")
    return names.reason(module or "kombu", name)


def _binds(node: ast.AST, name: str) -> bool:
    """Whether this gives a name a meaning, otherwise than by importing the package of that name."""
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.arg):
        return node.arg == name
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
        return node.name == name
    if isinstance(node, ast.MatchAs | ast.MatchStar):
        return node.name == name
    if isinstance(node, ast.MatchMapping):
        return node.rest == name
    if isinstance(node, ast.Global | ast.Nonlocal):
        return name in node.names
    if isinstance(node, ast.ImportFrom):
        return any((alias.asname or alias.name) == name for alias in node.names)
    if isinstance(node, ast.Import):
        return any(alias.asname == name for alias in node.names)
    return False
