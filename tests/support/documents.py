"""The documentation as data: its fenced blocks, its command lines, its links, its tables, the tests that it names."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`((?:tests/[\w/]+/)?(?:test_[\w*]+|\w+)\.py|test_[\w*]+)`")
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)")


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [text for name, text in _FENCE.findall(document.read_text()) if name == language]


def files(document: Path) -> dict[str, str]:
    """The Python blocks that begin with their file's name in a comment."""
    found = {}
    for text in blocks(document, "python"):
        name = re.match(r"# (\w+\.py)\b", text)
        if name:
            found[name[1]] = text
    return found


def commands(document: Path) -> list[list[str]]:
    """The words after `opsq` of every command line in a shell block."""
    found = []
    for block in (*blocks(document, "sh"), *blocks(document, "console"), *blocks(document, "bash")):
        for line in block.splitlines():
            found += words_after_opsq(line)
    return found


def words_after_opsq(line: str) -> list[list[str]]:
    """The words after each `opsq` in one line of shell."""
    found, words = [], []
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;<>")
    lexer.commenters, lexer.whitespace_split = "#", True
    for word in [*lexer, ";"]:
        if set(word) <= set("&|;<>"):
            while words and re.match(r"\w+=", words[0]):  # OPSQ_X=... in front
                words = words[1:]
            if words and Path(words[0]).name == "opsq":
                found.append(words[1:])
            words = []
        else:
            words.append(word)
    return found


def links(document: Path) -> list[str]:
    """The links to other files."""
    return _LINK.findall(document.read_text())


def tables(document: Path) -> list[list[list[str]]]:
    """Each table: its rows, the heads first, without the line between them."""
    found: list[list[list[str]]] = []
    inside = False
    for line in document.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append([])
        inside = True
        if not re.fullmatch(r"[|:-]+", line):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def named_tests(text: str) -> list[str]:
    """The tests and files of tests that a text names; `*` stands for the rest of a name."""
    return sorted(set(_TEST.findall(text)))


@cache
def _tests() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "tests").rglob("*.py")}


def is_test(name: str) -> bool:
    """Whether there is a test function, or a file, of this name."""
    if name.endswith(".py"):
        return any(path == name or path.endswith(f"/{name}") for path in _tests())
    pattern = re.compile(rf"^(?:async )?def {re.escape(name).replace(re.escape('*'), '[a-z0-9_]*')}\(", re.M)
    return any(pattern.search(text) for text in _tests().values())
