"""Sets of hosts as text: what is folded is what is parsed, and the algebra is that of sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.exceptions import UsageError
from opsq.hosts.hostset import HostSet, fold, is_name
from opsq.hosts.targets import Scene, groups_of, resolve

NAMES = st.from_regex(r"[a-c]?[0129]{0,3}[.-]?[a-b]?[0189]{0,3}[z]?", fullmatch=True).filter(is_name)
SETS = st.sets(NAMES, max_size=60)


@given(SETS)
def test_a_folded_set_means_the_same_hosts(names: set[str]) -> None:
    assert HostSet.parse(fold(names)) == names


@given(SETS, SETS)
def test_the_algebra_is_that_of_sets(left: set[str], right: set[str]) -> None:
    a, b = HostSet(left), HostSet(right)
    assert (set(a | b), set(a & b), set(a - b)) == (left | right, left & right, left - right)
    assert all(isinstance(found, HostSet) for found in (a | b, a & b, a - b))


@given(SETS, SETS, SETS)
def test_an_expression_is_read_from_left_to_right(first: set[str], more: set[str], less: set[str]) -> None:
    words = [*([fold(first)] if first else []), *([fold(more)] if more else []), *(f"!{name}" for name in less)]
    scene = Scene(known=first | more | less, present=first, groups={}, tags={})
    meant = ((first | more) if first or more else first) - less
    if not words or not meant:
        return
    assert resolve(",".join(words), scene) == meant


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("web[01-03]", ["web01", "web02", "web03"]),
        ("web[8-10]", ["web8", "web9", "web10"]),
        ("web[08-10,2]", ["web2", "web08", "web09", "web10"]),
        ("r[1-2]n[1-2].dc", ["r1n1.dc", "r1n2.dc", "r2n1.dc", "r2n2.dc"]),
        ("a, b c", ["a", "b", "c"]),
    ],
)
def test_ranges_are_products_with_their_zeros(text: str, names: list[str]) -> None:
    assert list(HostSet.parse(text)) == names


def test_many_names_become_short_text() -> None:
    names = [f"web{number:02d}" for number in range(1, 41) if number != 7]
    assert fold([*names, "db", "r1n1", "r1n2", "r2n1", "r2n2"]) == "db,r[1-2]n[1-2],web[01-06,08-40]"


@pytest.mark.parametrize(
    "text", ["web[", "web]", "web[a-b]", "web[5-1]", "web[]", "w[[1]]", "../x", "a b$", "-x", "web[1-99999999999]"]
)
def test_what_is_no_set_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError):
        HostSet.parse(text)


# -- expressions -------------------------------------------------------------------------------------------------------

SCENE = Scene(
    known=["web1", "web2", "web10", "db1", "old"],
    present=["web1", "web2", "web10", "db1"],
    groups={"front": "web*,!web10", "site": "@front,db1", "circle": "@circle"},
    tags={"web1": ["eu"], "db1": ["eu"], "web2": []},
)


@pytest.mark.parametrize(
    ("expression", "hosts"),
    [
        ("web*", "web[1-2,10]"),
        ("web?", "web[1-2]"),
        ("*,!db1", "old,web[1-2,10]"),
        ("!db1", "web[1-2,10]"),
        ("@all", "db1,old,web[1-2,10]"),
        ("@eu", "db1,web1"),
        ("web*,&@eu", "web1"),
        ("@site", "db1,web[1-2]"),
        ("!@front", "db1,web10"),
        ("web1,new[1-2]", "new[1-2],web1"),
    ],
)
def test_an_expression_chooses_hosts(expression: str, hosts: str) -> None:
    assert str(resolve(expression, SCENE)) == hosts


@pytest.mark.parametrize("expression", ["@nobody", "@circle", "nothing*", "!", "web1,!web1", "we/b", ""])
def test_an_expression_that_means_nothing_is_refused(expression: str) -> None:
    with pytest.raises(UsageError):
        resolve(expression, SCENE)


def test_a_group_that_was_mistyped_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("@fron", SCENE)
    assert caught.value.hint == "did you mean @front?"


def test_groups_are_texts_or_lists() -> None:
    assert groups_of({"a": "x", "b": ["y[1-2]", "z"]}) == {"a": "x", "b": "y[1-2],z"}
