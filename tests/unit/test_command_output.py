"""A table in a pipe, on a narrow and on a wide terminal, and as JSON."""

from __future__ import annotations

import json

import pytest

from opsq.cli.output import Column, Output, cell, fit, harmless, shortened, text_width

COLUMNS = (
    Column("name", "NAME", cut="start"),
    Column("count", "COUNT", "number"),
    Column("note", "NOTE", cut="end"),
    Column("host", "HOST", extra=True),
)
ROWS = [
    {"name": "a", "count": 1, "note": "short", "host": "web1", "hidden": [1, 2]},
    {"name": "b" * 30, "count": 12345, "note": None, "host": None},
]


def test_in_a_pipe_columns_are_aligned_and_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table("things", COLUMNS, ROWS)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "NAME                            COUNT  NOTE   HOST",
        "a                                   1  short  web1",
        f"{'b' * 30}  12345  -      -",
    ]
    assert err == ""


def test_as_json_rows_keep_all_their_data(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).table("things", COLUMNS, ROWS, also={"more": True})
    assert json.loads(capsys.readouterr().out) == {"things": ROWS, "more": True}


def test_an_empty_table_is_an_empty_list_in_json_and_a_sentence_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).table("things", COLUMNS, [], empty="no things")
    Output().table("things", COLUMNS, [], empty="no things")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"things": []}
    assert err == "no things\n"


def test_how_many_there_are_is_said_beside_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table("things", COLUMNS, ROWS, total=7)
    Output(quiet=True).table("things", COLUMNS, ROWS, total=7)
    assert capsys.readouterr().err == "2 of 7; --limit 0 shows all\n"


def test_where_room_is_short_texts_are_cut_a_little_then_extra_columns_go() -> None:
    widths = [30, 5, 40, 10]
    assert fit(COLUMNS, widths, 200) == [0, 1, 2, 3]
    assert widths == [30, 5, 40, 10]
    assert fit(COLUMNS, widths, 80) == [0, 1, 2, 3]
    assert sum(widths) + 6 == 80
    assert fit(COLUMNS, widths, 60) == [0, 1, 2]
    assert widths[1] == 5
    assert fit(COLUMNS, widths, 40) == [0, 1, 2]
    assert sum(widths[:3]) + 4 == 40


def test_columns_that_say_nothing_are_not_shown() -> None:
    assert fit(COLUMNS, [30, 5, 40, 10], 200, silent=[3]) == [0, 1, 2]


def test_counts_of_what_is_rare_are_shown_where_there_are_some(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Output, "terminal", True)
    monkeypatch.setenv("NO_COLOR", "1")
    columns = (Column("name", "QUEUE", cut="start"), Column("limited", "LIMITED", "number", rare=True))
    monkeypatch.setenv("COLUMNS", "20")
    for count, headings in ((0, ["QUEUE"]), (7, ["QUEUE", "LIMITED"])):
        Output().table("queues", columns, [{"name": "a.queue.with.a.long.name", "limited": count}])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == headings
        assert max(map(len, lines)) <= 20


def test_words_are_kept_whole_in_a_terminal_and_left_alone_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "opsq dead show 12345678, then opsq dead requeue 12345678-1234-1234-1234-123456789abc"
    Output().steps(text, "next: ", "then: ")
    in_a_pipe = capsys.readouterr().out.splitlines()
    assert in_a_pipe == ["next: opsq dead show 12345678", f"then: {text.partition(', then ')[2]}"]
    monkeypatch.setattr(Output, "terminal", True)
    Output().steps(text, "next: ", "then: ")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [in_a_pipe[0], "then: opsq dead requeue", "      12345678-1234-1234-1234-123456789abc"]
    Output().sentence("one two three", "        a long label that fills the line  ")
    assert " ".join(capsys.readouterr().out.split()).endswith("one two three")


def test_a_text_is_cut_at_the_end_that_says_less() -> None:
    assert shortened("proj.tasks.send_mail", 12, "start") == "…s.send_mail"
    assert shortened("a long explanation", 8, "end") == "a long …"
    assert shortened("as it is", 3, None) == "as it is"


def test_wide_characters_take_two_columns() -> None:
    assert text_width("日本") == 4
    assert text_width(shortened("日本語テキスト", 7, "end")) <= 7


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[31mb\n") == "a\\x1b[31mb\\n"
    assert cell("\x1b]0;title\x07", COLUMNS[0]) == "\\x1b]0;title\\x07"
    assert harmless("größer 日本") == "größer 日本"


def test_values_are_written_by_their_kind() -> None:
    assert cell(None, COLUMNS[0]) == "-"
    assert cell(3725.0, Column("x", "X", "seconds")) == "1h 2m"
    assert cell(True, Column("paused", "PAUSED", "yes")) == "PAUSED"
    assert cell(False, Column("paused", "PAUSED", "yes")) == ""
    assert cell(["a", "b"], COLUMNS[0]) == "a, b"
