"""What a workflow sends is what Celery sends for it, and signatures come out of JSON as they went in."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import captures

from opsq import App, chain, chord, group, signature
from opsq.broker.gathering import gather
from opsq.canvas import Signature, chunks, xmap, xstarmap
from opsq.exceptions import ImproperlyConfigured

app = App("proj", broker="redis://nowhere.invalid", backend="redis://nowhere.invalid", set_as_current=False)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def s(task: str, *args: Any) -> Signature:
    return Signature(f"proj.{task}", args, app=app)


def si(task: str, *args: Any) -> Signature:
    return Signature(f"proj.{task}", args, immutable=True, app=app)


def linked() -> Any:
    call = s("add", 2, 3)
    for callback in (s("add", 10), si("add", 1, 1)):
        call.link(callback)
    return call.on_error(s("on_err")).on_error(s("on_err3"))


WORKFLOWS: dict[str, Callable[[], Any]] = {
    "canvas-chain": lambda: chain(s("add", 1, 2), s("add", 3), si("add", 9, 9)).apply_async(),
    "canvas-chain-link-error": lambda: chain(s("add", 1, 2), s("add", 3)).apply_async(link_error=s("on_err")),
    "canvas-chain-with-group": lambda: chain(s("add", 1, 1), group(s("add", 2), s("add", 3)), s("tsum")).apply_async(),
    "canvas-group": lambda: group(s("add", n, n) for n in (1, 2, 3)).apply_async(),
    "canvas-chord": lambda: chord([s("add", 1, 1), s("add", 2, 2)])(s("tsum")),
    "canvas-chord-nested-group": lambda: chord([s("add", 1, 1), chord([s("add", 2, 2), s("add", 3, 3)], s("tsum"))])(
        s("echo")
    ),
    "canvas-map": lambda: xmap(s("tsum"), [[1, 2], [3, 4]]).apply_async(),
    "canvas-starmap": lambda: xstarmap(s("add"), [(1, 2), (3, 4)]).apply_async(),
    "canvas-chunks": lambda: chunks(s("add"), list(zip(range(4), range(4), strict=True)), 2).apply_async(),
    "task-link-immutable": lambda: linked().apply_async(),
}


def meaning(messages: list[str]) -> list[Any]:
    """Task, ids and body of messages in the order in which they were sent; ids by when they were first seen."""
    found = []
    for message in map(json.loads, messages):
        names = ("task", "id", "group", "group_index", "root_id", "parent_id", "retries", "ignore_result", "stamps")
        headers = {name: message["headers"].get(name) for name in names}
        # Of a task that is not known to the app a message does not say it; the captured ones were.
        headers["ignore_result"] = bool(headers["ignore_result"])
        found.append([headers, json.loads(base64.b64decode(message["body"]))])
    known: dict[str, str] = {}
    text = UUID.sub(lambda match: known.setdefault(match[0], f"id-{len(known)}"), json.dumps(_plain(found)))
    result: list[Any] = json.loads(text)
    return result


def _plain(value: Any) -> Any:
    """Without what says nothing, and without the address of Celery's `rpc` results."""
    if isinstance(value, dict):
        told = {name: _plain(each) for name, each in value.items()}
        return {name: each for name, each in told.items() if name != "reply_to" and each is not None}
    return [_plain(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", sorted(WORKFLOWS))
def test_a_workflow_is_sent_as_celery_sends_it(case: str) -> None:
    recorded = [text for name, (_, text) in captures.messages().items() if re.fullmatch(rf"{case}(-\d+)?", name)]
    with gather(records=True) as held:
        WORKFLOWS[case]()
    sent = [message.raw.decode() for message in held.messages]
    assert meaning(sorted(sent, key=_place)) == meaning(sorted(recorded, key=_place))


def _place(message: str) -> str:
    """Messages of one workflow in an order that does not depend on their ids."""
    told = json.loads(message)
    return str((told["headers"]["group_index"], base64.b64decode(told["body"])[:24]))


def test_how_many_parts_there_are_is_told_with_them() -> None:
    with gather(records=True) as held:
        chord([s("add", 1, 1), chain(s("add", 1), group(s("add", 2), s("add", 3)))], s("tsum")).apply_async()
    assert held.records is not None
    told = {key.rpartition(".")[2]: data for key, _, data in held.records}
    assert told.pop("s") == b"3"
    [saved] = told.values()
    assert [len(nodes or ()) for _, nodes in json.loads(saved)["result"][1]] == [0, 2]


# -- signatures as data ---------------------------------------------------------------------------------------------

calls = st.builds(
    lambda task, args, immutable: Signature(f"proj.{task}", args, immutable=immutable, app=app),
    st.sampled_from(["add", "tsum", "echo"]),
    st.lists(st.integers() | st.text(max_size=5), max_size=3),
    st.booleans(),
)
workflows = st.recursive(
    calls,
    lambda parts: st.one_of(
        st.lists(parts, min_size=2, max_size=3).map(lambda found: chain(*found)),
        st.lists(parts, min_size=2, max_size=3).map(lambda found: group(found)),
        st.tuples(st.lists(parts, min_size=1, max_size=3), calls).map(lambda found: chord(found[0], found[1])),
    ),
    max_leaves=8,
)


def sent(workflow: Any) -> list[Any]:
    with gather(records=True) as held:
        workflow.apply_async()
    return meaning([message.raw.decode() for message in held.messages])


@given(workflows)
def test_a_workflow_means_the_same_after_json(workflow: Any) -> None:
    again = signature(json.loads(json.dumps(workflow)), app=app)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(workflow))
    assert sent(again) == sent(workflow)


@given(workflows)
def test_sending_changes_nothing_in_a_workflow(workflow: Any) -> None:
    before = json.dumps(workflow)
    first = sent(workflow)
    assert json.dumps(workflow) == before
    assert sent(workflow.clone()) == first


@given(st.lists(calls, min_size=2, max_size=4))
def test_the_operator_is_the_function(steps: list[Any]) -> None:
    joined = steps[0]
    for step in steps[1:]:
        joined = joined | step
    assert json.loads(json.dumps(joined)) == json.loads(json.dumps(chain(*steps)))


@given(workflows)
def test_a_frozen_workflow_keeps_its_ids(workflow: Any) -> None:
    result = workflow.freeze()
    with gather(records=True) as held:
        again = workflow.apply_async()
    ids = {json.loads(message.raw)["headers"]["id"] for message in held.messages}
    known = set(UUID.findall(json.dumps([result.as_tuple(), json.loads(json.dumps(workflow))])))
    assert ids <= known
    assert again.id == result.id or {each.id for each in again} == {each.id for each in result}


def test_what_celery_4_has_wrapped_around_a_chord_is_not_for_its_parts() -> None:
    flow = chord([s("add", 1, 1), s("add", 2, 2)], s("tsum"))
    data = json.loads(json.dumps(flow))
    data["kwargs"]["kwargs"] = {"kwargs": {"kwargs": {}}}
    assert sent(signature(data, app=app)) == sent(flow)


# -- what one writes ------------------------------------------------------------------------------------------------


def test_arguments_go_before_its_own_unless_it_is_immutable() -> None:
    call = s("add", 2)
    assert call.clone((1,))["args"] == (1, 2)
    assert si("add", 2).clone((1,))["args"] == (2,)
    assert call.clone(kwargs={"z": 1}, countdown=3) == {**call, "kwargs": {"z": 1}, "options": {"countdown": 3}}
    assert call == s("add", 2)


def test_options_can_be_set_and_parts_replaced() -> None:
    call = s("add", 1).set(queue="mail", priority=3)
    assert call.set(immutable=True) is call
    other = call.replace(args=(5,), kwargs={"x": 1}, options={})
    assert (other.args, other.kwargs, other.options, call.args) == ((5,), {"x": 1}, {}, (1,))
    assert (call.immutable, call.task, call.options) == (True, "proj.add", {"queue": "mail", "priority": 3})


def test_links_are_kept_once_and_flattened() -> None:
    first, second, third = s("add", 1), s("add", 2), s("add", 3)
    second.link(third)
    assert first.link(second) is second
    first.link(second)
    assert first.options["link"] == [second]
    assert first.flatten_links() == [first, second, third]
    assert first.on_error(third) is first


def test_groups_refuse_links_and_chords_pass_them_on() -> None:
    with pytest.raises(TypeError, match="use a chord"):
        group(s("add", 1)).apply_async(link=s("add", 1))
    body = s("tsum")
    whole = chord([s("add", 1)], body)
    whole.link(s("echo"))
    assert whole.body.options["link"] == [s("echo")]
    assert [each.immutable for each in group(s("add", 1), s("add", 2)).tasks] == [False, False]


def test_what_is_written_is_what_is_shown() -> None:
    assert repr(s("add", 1, 2)) == "proj.add(1, 2)"
    assert repr(s("add", 1) | s("add", 2)) == "proj.add(1) | add(2)"
    assert repr(group(s("add", 1), s("add", 2))) == "group([proj.add(1), add(2)])"
    assert repr(chord([s("add", 1)], s("tsum"))) == "%proj.tsum([add(1)])"
    assert repr(s("tsum").clone(kwargs={"a": 1})) == "proj.tsum(a=1)"


def test_a_chain_of_one_is_that_task_and_empty_groups_vanish() -> None:
    assert [step.task for step in (s("add", 1) | group() | s("add", 2)).tasks] == ["proj.add", "proj.add"]
    assert isinstance(group(s("add", 1), s("add", 2)) | s("tsum"), chord)
    assert isinstance(chain(group(s("add", 1), s("add", 2)), s("tsum")), chord)
    assert isinstance(chain([s("add", 1)] * 3), chain)
    assert len(chain(s("add", 1), chain(s("add", 2), s("add", 3))).tasks) == 3


def test_a_chord_without_a_place_for_results_says_what_to_add() -> None:
    bare = App("bare", broker="redis://nowhere.invalid", set_as_current=False)
    header = [Signature("proj.add", (1, 1), app=bare), Signature("proj.add", (2, 2), app=bare)]
    with pytest.raises(ImproperlyConfigured, match="cannot send a chord") as caught:
        chord(header)(Signature("proj.tsum", app=bare))
    assert 'backend="redis://' in caught.value.hint


def test_a_skewed_group_begins_one_after_the_other() -> None:
    skewed = group(s("add", n) for n in range(3)).skew(start=1, step=2)
    assert [task.options["countdown"] for task in skewed.tasks] == [1, 3, 5]


def test_long_chains_cost_no_more_than_their_length() -> None:
    steps = [s("add", 1) for _ in range(2000)]
    assert len(chain(*steps).tasks) == len(list(itertools.chain(steps)))
