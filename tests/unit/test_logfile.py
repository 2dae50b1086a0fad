"""Reading a log with its rotated files: the last lines, and on through rotations."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from opsq.runtime.logfile import Reader, files_of


def in_files(folder: Path, content: bytes, cuts: list[int]) -> Path:
    """A log whose content is cut into files as a rotation would."""
    log = folder / "web.log"
    for old in folder.glob("web.log*"):
        old.unlink()
    places = sorted({min(cut, len(content)) for cut in cuts})
    parts = [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]
    for number, part in enumerate(parts[:-1], 1):
        (folder / f"web.log.{number:06d}").write_bytes(part)
    log.write_bytes(parts[-1])
    return log


@given(
    lines=st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    partial=st.sampled_from([b"", b"half"]),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    count=st.integers(0, 35),
)
def test_the_last_lines_are_found_whatever_the_cuts(
    lines: list[bytes], partial: bytes, cuts: list[int], count: int
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = in_files(Path(folder), b"".join(line + b"\n" for line in lines) + partial, cuts)
        reader = Reader(log)
        assert reader.last_lines(count) == (lines[-count:] if count else [])
        assert reader.partial == partial
        assert reader.more() == []
        with log.open("ab") as file:
            file.write(b"!\nnext\n")
        assert reader.more() == [partial + b"!", b"next"]
        reader.close()


def test_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "web.log")
    assert reader.last_lines(10) == []
    assert reader.more() == []
    (tmp_path / "web.log").write_bytes(b"first\n")
    assert reader.more() == [b"first"]
    reader.close()


def test_only_numbered_files_belong_to_a_log(tmp_path: Path) -> None:
    for name in ("web.log", "web.log.000002", "web.log.000010", "web.log.gz", "web2.log.000001"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in files_of(tmp_path / "web.log")] == ["web.log.000002", "web.log.000010", "web.log"]


class Following(RuleBasedStateMachine):
    """A writer, a rotation and a reader in any order: the reader gets every line once."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.log = Path(self.folder.name) / "web.log"
        self.log.touch()
        self.reader = Reader(self.log)
        self.written, self.read, self.number = b"", list[bytes](), 0

    @rule(data=st.binary(max_size=5))
    def write(self, data: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(data)
        self.written += data

    @rule()
    def rotate(self) -> None:
        self.number += 1
        self.log.rename(f"{self.log}.{self.number:06d}")
        self.log.touch()

    @rule()
    def look(self) -> None:
        self.read += self.reader.more()
        assert self.read == self.written.split(b"\n")[:-1]

    def teardown(self) -> None:
        self.look()
        self.reader.close()
        self.folder.cleanup()


TestFollowing = Following.TestCase
