"""Workflows of a client and workers of opsq: what follows what, with which values, and what becomes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support import lab as labs
from support.lab import Lab

from opsq import chain, chord, chunks, group, signature, xmap, xstarmap
from opsq.exceptions import ChordError
from opsq.result import GroupResult, ResultSet

TASKS = """
from opsq import chord, group, signature
from opsq.exceptions import Ignore


@app.task
def total(values):
    return sum(values)


@app.task
def echo(value=None):
    return value


@app.task
def fail(*_values):
    raise ValueError("no")


@app.task
def note_id(task_id):
    mark("errback", task_id)


@app.task
def note_error(request, error, traceback):
    mark("inline", f"{request.id} {error!r} {bool(traceback)} {request.task} {request.args} {request.kwargs}")


@app.task
def note(value):
    mark("noted", value)


@app.task(bind=True)
def tell(self, *_values):
    request = self.request
    return {
        "chain": [each["task"] for each in request.chain or ()],
        "callbacks": [each["task"] for each in request.callbacks or ()],
        "errbacks": [each["task"] for each in request.errbacks or ()],
        "chord": request.chord and request.chord["task"],
        "group": request.group,
        "index": request.group_index,
        "nesting": request.replaced_task_nesting,
        "stamps": request.stamps,
        "root": request.root_id,
        "parent": request.parent_id,
    }


@app.task(bind=True)
def become(self, task, *args):
    raise self.replace(signature(task, args=args, app=app))


@app.task(bind=True)
def become_group(self, count):
    return self.replace(group(add.s(number, 1) for number in range(count)))


@app.task(bind=True)
def more(self, count):
    for number in range(count):
        self.add_to_chord(add.si(number, 100))
    return 0


@app.task
def ignore():
    raise Ignore


@app.task(bind=True)
def starts(self):
    add.delay(1, 1)
    group(add.s(1, 2), add.s(1, 3)).delay()
    return "started"


@app.task(time_limit=0.3)
def hard():
    while True:
        time.sleep(0.1)


@app.task
def die():
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, TASKS) as lab:
        lab.worker("-c", "2", "-n", "one@here", name="worker")
        yield lab


def sig(lab: Lab, task: str, *args: Any, **options: Any) -> Any:
    """A call of a task of the project, as one writes it by its name."""
    return signature(f"proj.{task}", args=args, app=lab.app, **options)


def si(lab: Lab, task: str, *args: Any) -> Any:
    return sig(lab, task, *args, immutable=True)


# -- chains and callbacks -------------------------------------------------------------------------------------------


def test_each_step_of_a_chain_gets_the_value_of_the_one_before(lab: Lab) -> None:
    result = chain(sig(lab, "add", 1, 2), sig(lab, "add", 3), si(lab, "add", 9, 9), sig(lab, "add", 1)).delay()
    assert result.get(timeout=10) == 19
    assert [result.parent.get(), result.parent.parent.get(), result.parent.parent.parent.get()] == [18, 6, 3]
    assert result.parent.children == [result]
    assert (sig(lab, "add", 1) | sig(lab, "add", 2) | sig(lab, "add", 3)).delay(10).get(timeout=10) == 16


def test_callbacks_get_the_value_and_are_children(lab: Lab) -> None:
    first = sig(lab, "add", 1, 2)
    first.link(sig(lab, "add", 10))
    first.link(si(lab, "note", "immutable"))
    first.link(group(sig(lab, "add", 20), sig(lab, "add", 30)))
    result = first.delay()
    assert result.get(timeout=10) == 3
    lab.wait_mark("noted", "immutable")
    lab.wait_for(lambda: all(child.ready() for child in result.children), "the callbacks end")
    assert sorted(value for child in result.children for value in child.get() if value) == [13, 23, 33]
    assert lab.send("add", 1, 1, link=[dict(sig(lab, "note"))])
    lab.wait_mark("noted", "2")


def test_a_task_reads_what_follows_it(lab: Lab) -> None:
    told = sig(lab, "tell")
    told.link(sig(lab, "echo"))
    told.link_error(sig(lab, "note_id"))
    result = chain(told, sig(lab, "echo"), sig(lab, "echo")).delay()
    found = result.get(timeout=10)
    assert (found["chain"], found["callbacks"], found["errbacks"]) == (
        ["proj.echo"] * 2,
        ["proj.echo"],
        ["proj.note_id"],
    )
    header = chord([sig(lab, "tell"), sig(lab, "tell")], sig(lab, "echo")).delay()
    parts = header.get(timeout=10)
    assert [(part["chord"], part["index"]) for part in parts] == [("proj.echo", 0), ("proj.echo", 1)]


def test_what_a_task_starts_is_its_child(lab: Lab) -> None:
    result = sig(lab, "starts").delay()
    assert result.get(timeout=10) == "started"
    one, two = result.children
    assert one.get(timeout=10) == 2
    assert isinstance(two, GroupResult)
    assert two.get(timeout=10) == [3, 4]
    assert result.get_leaf() == 4
    assert len(result.graph.adjacent) == 5
    assert [value for _, value in result.collect()][:1] == ["started"]


# -- groups ---------------------------------------------------------------------------------------------------------


def test_a_group_gives_its_values_in_order(lab: Lab) -> None:
    result = group(sig(lab, "add", number, number) for number in range(50)).delay()
    assert result.get(timeout=10) == [2 * number for number in range(50)]
    assert (result.ready(), result.successful(), result.failed(), result.completed_count()) == (True, True, False, 50)
    assert sorted(result.iterate()) == sorted(result.join())
    nested = group(sig(lab, "add", 1, 1), group(sig(lab, "add", 2, 2), sig(lab, "add", 3, 3))).delay()
    assert nested.get(timeout=10) == [2, 4, 6]
    assert group(sig(lab, "add", 1), sig(lab, "add", 2)).delay(10).get(timeout=10) == [11, 12]
    assert group().apply_async().get() == []


def test_a_group_can_be_saved_and_found_again(lab: Lab) -> None:
    result = group(sig(lab, "add", 1, 1), sig(lab, "add", 2, 2)).delay()
    result.save()
    again = GroupResult.restore(result.id, app=lab.app)
    assert again == result
    assert again.get(timeout=10) == [2, 4]
    again.delete()
    assert GroupResult.restore(result.id, app=lab.app) is None
    again.forget()
    assert not lab.app.AsyncResult(result[0].id).exists()


def test_the_error_of_a_group_is_raised_and_the_rest_is_there(lab: Lab) -> None:
    result = group(sig(lab, "add", 1, 1), sig(lab, "fail")).delay()
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=10)
    values = result.join(propagate=False)
    assert values[0] == 2
    assert isinstance(values[1], ValueError)
    assert result.failed()
    seen: list[Any] = []
    assert ResultSet(result.results[:1], app=lab.app).get(callback=lambda _id, value: seen.append(value)) is None
    assert seen == [2]


def test_maps_and_chunks(lab: Lab) -> None:
    assert xmap(sig(lab, "total"), [[1, 2], [3, 4]]).delay().get(timeout=10) == [3, 7]
    assert xstarmap(sig(lab, "add"), zip(range(4), range(4), strict=True)).delay().get(timeout=10) == [0, 2, 4, 6]
    parts = chunks(sig(lab, "add"), list(zip(range(5), range(5), strict=True)), 2)
    assert parts().get(timeout=10) == [[0, 2], [4, 6], [8]]
    assert (parts.group() | sig(lab, "echo")).delay().get(timeout=10) == [[0, 2], [4, 6], [8]]


# -- chords ---------------------------------------------------------------------------------------------------------


def test_the_body_of_a_chord_gets_all_values_in_order(lab: Lab) -> None:
    header = [sig(lab, "add", number, number) for number in range(10)]
    assert chord(header)(sig(lab, "echo")).get(timeout=10) == [2 * number for number in range(10)]
    assert (group(header) | sig(lab, "total")).delay().get(timeout=10) == 90
    assert chord([])(sig(lab, "echo")).get(timeout=10) == []
    assert (
        chain(sig(lab, "add", 1, 1), group(sig(lab, "add", 1), sig(lab, "add", 2)), sig(lab, "total"))
        .delay()
        .get(timeout=10)
        == 7
    )


def test_chords_in_chains_and_chains_in_chords(lab: Lab) -> None:
    flow = chain(
        sig(lab, "add", 1, 1),
        group(sig(lab, "add", 1), chain(sig(lab, "add", 2), sig(lab, "add", 3))),
        sig(lab, "total"),
        group(sig(lab, "add", 0), sig(lab, "add", 1)),
        sig(lab, "total"),
        sig(lab, "add", 1000),
    )
    assert flow.delay().get(timeout=10) == 1021
    inner = chord([sig(lab, "add", 1, 1), sig(lab, "add", 2, 2)], sig(lab, "total"))
    assert chord([sig(lab, "add", 5, 5), inner], sig(lab, "echo")).delay().get(timeout=10) == [10, 6]
    deep = group(sig(lab, "add", 1, 1), group(sig(lab, "add", 2, 2), chain(sig(lab, "add", 3, 3), sig(lab, "add", 1))))
    assert (deep | sig(lab, "total")).delay().get(timeout=10) == 13
    ends_in_group = chain(sig(lab, "add", 1, 1), group(sig(lab, "add", 1), sig(lab, "add", 2)))
    assert chord([ends_in_group, sig(lab, "add", 0, 0)], sig(lab, "echo")).delay().get(timeout=10) == [[3, 4], 0]
    to_group = chord([sig(lab, "add", 1, 1), sig(lab, "add", 2, 2)], group(sig(lab, "total"), sig(lab, "echo")))
    assert to_group.delay().get(timeout=10) == [6, [2, 4]]


def test_a_failed_part_fails_the_body_with_the_reason(lab: Lab) -> None:
    body = sig(lab, "total")
    body.link_error(sig(lab, "note_id"))
    body.link_error(sig(lab, "note_error"))
    result = chord([sig(lab, "add", 1, 1), sig(lab, "fail")], body).delay()
    error = lab.result(result.id, "FAILURE")["result"]
    assert error["exc_type"] == "ChordError"
    assert error["exc_message"][0].startswith(f"Dependency {result.parent[1].id} raised ValueError")
    with pytest.raises(ChordError):
        result.get(timeout=10, follow_parents=False)
    lab.wait_mark("errback", result.id)
    told = next(mark.text for mark in lab.written("inline") if mark.text.startswith(f"{result.id} ChordError"))
    assert told.endswith("False proj.total [] {}")


def test_who_waits_for_a_chord_gets_the_error_of_the_part_that_failed(lab: Lab) -> None:
    def failing() -> Any:
        return chord([sig(lab, "add", 1, 1), sig(lab, "fail")], sig(lab, "total")).delay()

    for _attempt in range(3):
        with pytest.raises(ValueError, match="no"):
            failing().get(timeout=20)
        with pytest.raises(ValueError, match="no"):
            asyncio.run(failing().aget(timeout=20))


def test_a_body_that_is_a_group_fails_with_the_error_of_the_part(lab: Lab) -> None:
    result = chord([sig(lab, "add", 1, 1), sig(lab, "fail")], group(sig(lab, "total"), sig(lab, "echo"))).delay()
    for part in result:
        assert lab.result(part.id, "FAILURE")["result"]["exc_type"] == "ValueError"
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=20)


def test_an_error_ends_a_chain_and_chords_around_it(lab: Lab) -> None:
    result = chain(sig(lab, "fail"), sig(lab, "add", 1), sig(lab, "add", 1)).delay()
    assert lab.result(result.id, "FAILURE")["result"]["exc_type"] == "ValueError"
    assert lab.state(result.parent.id) == "FAILURE"
    outer = chord([sig(lab, "add", 1, 1), chain(sig(lab, "fail"), sig(lab, "add", 1))], sig(lab, "total")).delay()
    assert lab.result(outer.id, "FAILURE")["result"]["exc_type"] == "ChordError"
    inner = chord([sig(lab, "fail"), sig(lab, "add", 1, 1)], sig(lab, "total"))
    outer = chord([inner, sig(lab, "add", 1, 1)], sig(lab, "total")).delay()
    assert lab.result(outer.id, "FAILURE")["result"]["exc_type"] == "ChordError"
    after = chain(group(sig(lab, "fail"), sig(lab, "add", 1, 1)), sig(lab, "total"), sig(lab, "add", 1)).delay()
    assert lab.result(after.id, "FAILURE")["result"]["exc_type"] == "ChordError"


@pytest.mark.parametrize("dead", ["hard", "die", "ignore", "unknown_task"])
def test_a_part_that_cannot_end_well_fails_the_chord(lab: Lab, dead: str) -> None:
    result = chord([sig(lab, "add", 1, 1), sig(lab, dead)], sig(lab, "total")).delay()
    error = lab.result(result.id, "FAILURE", timeout=20)["result"]
    assert error["exc_type"] == "ChordError", error


def test_an_expired_part_fails_the_chord(lab: Lab) -> None:
    late = sig(lab, "add", 1, 1).set(expires=-1)
    result = chord([sig(lab, "add", 1, 1), late], sig(lab, "total")).delay()
    assert "expired" in lab.result(result.id, "FAILURE")["result"]["exc_message"][0]


def test_a_revoked_part_fails_the_chord_and_a_group_is_revoked_as_a_whole(lab: Lab) -> None:
    later = sig(lab, "add", 1, 1).set(countdown=1)
    result = chord([sig(lab, "add", 1, 1), later], sig(lab, "total")).delay()
    result.parent[1].revoke()
    assert "revoked" in lab.result(result.id, "FAILURE")["result"]["exc_message"][0]
    both = group(later.clone(), later.clone()).delay()
    both.revoke()
    assert [lab.result(each.id, "REVOKED")["status"] for each in both] == ["REVOKED"] * 2


def test_errbacks_of_both_kinds_are_told(lab: Lab) -> None:
    for dead, error in (("fail", "ValueError"), ("hard", "TimeLimitExceeded"), ("die", "WorkerLostError")):
        result = sig(lab, dead).on_error(sig(lab, "note_id")).on_error(sig(lab, "note_error")).delay()
        lab.wait_mark("errback", result.id)
        lab.wait_for(lambda: [m for m in lab.written("inline") if m.text.startswith(f"{result.id} {error}")], error)  # noqa: B023


# -- replacing, stamping --------------------------------------------------------------------------------------------


def test_a_task_may_be_replaced(lab: Lab) -> None:
    assert sig(lab, "become", "proj.add", 2, 3).delay().get(timeout=10) == 5
    assert chain(sig(lab, "become", "proj.add", 2, 3), sig(lab, "add", 10)).delay().get(timeout=10) == 15
    assert sig(lab, "become", "proj.tell").delay().get(timeout=10)["nesting"] == 1
    in_chord = chord([sig(lab, "become", "proj.add", 1, 1), sig(lab, "add", 2, 2)], sig(lab, "total"))
    assert in_chord.delay().get(timeout=10) == 6
    assert chain(sig(lab, "become_group", 3), sig(lab, "total")).delay().get(timeout=10) == 6


def test_a_part_may_add_parts(lab: Lab) -> None:
    assert chord([sig(lab, "more", 3), sig(lab, "add", 1, 1)], sig(lab, "total")).delay().get(timeout=10) == 305


def test_stamps_travel_with_every_step(lab: Lab) -> None:
    flow = chain(sig(lab, "tell"), sig(lab, "tell"))
    flow.stamp(customer="acme")
    result = flow.delay()
    assert result.get(timeout=10)["stamps"] == {"customer": "acme"}
    assert result.parent.get()["stamps"] == {"customer": "acme"}


def test_ten_thousand_parts(lab: Lab) -> None:
    header = group(sig(lab, "add", number, 0) for number in range(10_000))
    assert (header | sig(lab, "total")).delay().get(timeout=60) == sum(range(10_000))
