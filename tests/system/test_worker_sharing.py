"""Two children share what comes: nobody waits behind a long task, and sharing costs no turns of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lab as labs
from support.lab import Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with labs.opened(tmp_path_factory, "") as lab:
        lab.worker("-c", "2", name="worker")
        lab.run("add", 1, 1)
        yield lab


def turns(lab: Lab) -> int:
    """How many scripts were called so far. Looks for what is due are among them."""
    found = lab.redis.info("commandstats")
    return int(found.get("cmdstat_evalsha", {}).get("calls", 0))


def looks(lab: Lab) -> int:
    """Each time two scripts look for what is due; the one that looks among the delayed asks for the next of them."""
    found = lab.redis.info("commandstats")
    return int(found.get("cmdstat_zrange", {}).get("calls", 0)) * 2


def test_while_one_child_runs_a_long_task_the_other_takes_the_next(lab: Lab) -> None:
    for round_ in range(3):
        lab.run("add", round_, 1)  # whoever ran this still holds the waiting lock
        long = lab.send("nap", f"long-{round_}", 0.5)
        begun = lab.wait_mark("begin", f"long-{round_}")
        next_ = lab.send("nap", f"next-{round_}")
        lab.value(next_)
        other = lab.wait_mark("end", f"next-{round_}")
        assert other.pid != begun.pid
        assert not lab.written("end", f"long-{round_}"), "it did not wait for the long one"
        assert other.time - begun.time < 0.45
        lab.value(long)


def test_what_comes_together_with_a_long_task_does_not_wait_for_it(lab: Lab) -> None:
    """A batch: the long one first. What is behind it is given back, and the other child runs it."""
    for round_ in range(3):
        lab.push("celery", *[("add", n, 1) for n in range(3000)])  # children that run short tasks take many at once
        lab.wait_for(lab.is_quiet, "they are done")
        lab.push("celery", ("nap", f"first-{round_}", 0.5), *[("nap", f"behind-{round_}-{n}") for n in range(6)])
        for n in range(6):
            lab.wait_mark("end", f"behind-{round_}-{n}")
        assert not lab.written("end", f"first-{round_}")
        lab.wait_mark("end", f"first-{round_}")


def test_a_round_trip_costs_one_turn_with_two_children_too(lab: Lab) -> None:
    """The child that runs short tasks goes on waiting: its settling turn is armed, nobody else is woken."""
    lab.run("add", 0, 0)
    before, looked, count = turns(lab), looks(lab), 200
    for number in range(count):
        assert lab.run("add", number, 1) == number + 1
    spent = turns(lab) - before - (looks(lab) - looked)
    # A task takes a turn that leases it and one that settles it, and that one is armed for the next.
    assert spent <= 2 * count * 1.1, f"{spent} turns for {count} tasks"


def test_two_children_drain_a_full_queue_together(lab: Lab) -> None:
    lab.push("celery", *[("nap", f"drain-{n}", 0.01) for n in range(60)])
    pids = {lab.wait_mark("end", f"drain-{n}", 20).pid for n in range(60)}
    assert len(pids) == 2
    assert max(len(lab.written("begin", f"drain-{n}")) for n in range(60)) == 1


def test_after_a_long_task_short_ones_are_taken_many_at_once_again(lab: Lab) -> None:
    """The batch of the long one was broken off; that says nothing about the batches after it."""
    for round_ in range(3):
        lab.push("celery", *[("add", n, 1) for n in range(3000)])
        lab.wait_for(lab.is_quiet, "they are done", 30)
        for task_id in [lab.send("nap", f"slow-{round_}-{n}", 0.1) for n in range(2)]:
            lab.value(task_id)
        before = turns(lab)
        lab.push("celery", *[("add", n, 1) for n in range(3000)])
        lab.wait_for(lab.is_quiet, "they are done", 30)
        assert turns(lab) - before < 500


def test_who_is_woken_in_vain_looks_but_takes_no_turn(lab: Lab) -> None:
    """Somebody else is always faster: then a look at the lists is all that a waiter asks of Redis."""

    def calls(command: str) -> int:
        return int(lab.redis.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

    lab.wait_for(lab.is_quiet, "nothing is left")
    before, looked = turns(lab), looks(lab)
    for _ in range(40):
        seen = calls("exists")
        with lab.redis.pipeline() as pipe:
            pipe.lpush("celery", b"taken").rpop("celery").execute()
        lab.wait_for(lambda seen=seen: calls("exists") > seen, "it has looked")
    assert turns(lab) - before - (looks(lab) - looked) < 10
    assert lab.run("add", 1, 2) == 3
