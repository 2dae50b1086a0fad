"""The files of a project: which are read, how bytes become text and text becomes bytes again, how one is written."""

from __future__ import annotations

import difflib
import io
import os
import shutil
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from opsq.cli.codemod import elsewhere
from opsq.cli.codemod.elsewhere import Line
from opsq.cli.codemod.rewrite import Left, rewrite

#: Folders that are not the project's own work.
SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "env", "build", "dist", "htmlcov"})
#: What some editors put before the text.
_MARK = "\ufeff"
#: Larger files are no work of people (bytes).
LARGEST = 5_000_000


@dataclass(slots=True)
class File:
    """What is to be said of one file; `new` is None unless its imports change. `trouble`: why it cannot be read."""

    path: Path
    old: str = ""
    new: str | None = None
    encoding: str = "utf-8"
    imports: int = 0
    left: list[Left] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    trouble: str = ""

    @property
    def says_anything(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.new is not None or self.left or self.lines or self.trouble)

    def diff(self) -> str:
        """The change as `patch` reads it."""
        if self.new is None:
            return ""
        name = self.path.as_posix().lstrip("/")
        lines = difflib.unified_diff(_lines(self.old), _lines(self.new), f"a/{name}", f"b/{name}")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self) -> None:
        """Put the new text in place of the old one, in one step; mode, owner, encoding and ends of lines stay."""
        assert self.new is not None
        target = self.path.resolve()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.new.encode(self.encoding))
            shutil.copystat(target, name)
            os.utime(name)
            with suppress(PermissionError, AttributeError):
                os.chown(name, target.stat().st_uid, target.stat().st_gid)
            os.replace(name, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise


def _lines(text: str) -> list[str]:
    """Lines as `patch` counts them: only a line feed ends one."""
    *whole, rest = text.split("\n")
    return [*(f"{line}\n" for line in whole), *([rest] if rest else [])]


def files(path: Path) -> Iterator[File]:
    """All files of a folder, or one file, that say celery; in the order of their names."""
    if not path.is_dir():
        found = _look(path)
        if found.says_anything:
            yield found
        return
    for folder, names, here in os.walk(path):
        names[:] = sorted(name for name in names if not _is_skipped(Path(folder, name)))
        for name in sorted(here):
            each = Path(folder, name)
            if (each.suffix in (".py", ".pyi") or elsewhere.is_of_interest(each)) and each.is_file():
                found = _look(each)
                if found.says_anything:
                    yield found


def _is_skipped(folder: Path) -> bool:
    return folder.name in SKIPPED or folder.name.startswith(".") or (folder / "pyvenv.cfg").exists()


def _look(path: Path) -> File:
    file = File(path)
    try:
        if path.stat().st_size > LARGEST:
            return file
        raw = path.read_bytes()
        if b"celery" not in raw.lower() and not any(word in raw for word in (b"kombu", b"billiard")):
            return file
        if path.suffix in (".py", ".pyi"):
            file.encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0].removesuffix("-sig")
        file.old = raw.decode(file.encoding)
    except (OSError, SyntaxError, UnicodeDecodeError, LookupError) as error:
        file.trouble = str(error)
        return file
    if path.suffix in (".py", ".pyi"):
        _read_python(file)
    if elsewhere.is_of_interest(path):
        file.lines = list(elsewhere.lines_of(path, file.old))
    return file


def _read_python(file: File) -> None:
    mark = _MARK if file.old.startswith(_MARK) else ""
    try:
        found = rewrite(file.old.removeprefix(mark))
    except (SyntaxError, ValueError, RecursionError) as error:
        if "celery" in file.old:
            where = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
            version = ".".join(map(str, sys.version_info[:2]))
            said = error.msg if isinstance(error, SyntaxError) else error
            file.trouble = f"Python {version}, which runs this, cannot read it: {where}{said}"
        return
    file.imports, file.left = found.changes, found.left
    file.new = mark + found.text if found.changes else None
