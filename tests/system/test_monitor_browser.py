"""The monitor's pages in a real browser: wide and narrow, light and dark, live, and deaf to hostile names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis
from playwright.sync_api import Browser, Page, expect
from support import browser as browsers
from support import event_source, monitored
from support.monitored import ACCOUNT, Monitored
from support.processes import Spawner

from opsq.datastore import keys

WaitFor = Callable[..., Any]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LONG = "a_task_with_a_very_long_name_" * 8


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.running() as found:
        yield found


@pytest.fixture
def scene(spawn: Spawner, redis_url: str, redis_client: redis.Redis, wait_for: WaitFor) -> Monitored:
    """A monitor with a password that has something to show, much of it hostile or too long."""
    page = monitored.start(spawn, redis_url, account=ACCOUNT)
    now = time.time()
    calls = [event_source.call("proj.add", at=now - 60 - n) for n in range(60)]
    calls.append(event_source.call(EVIL, "task-failed", task_id="evil", args=f"('{EVIL}',)", queue=EVIL, at=now - 30))
    calls.append(event_source.call(LONG, "task-retried", task_id="long", args="(" + "'x', " * 300 + ")", at=now - 20))
    calls.append(event_source.call("proj.root", task_id="root", at=now - 10))
    calls.append(event_source.call("proj.next", "none", task_id="next", root_id="root", parent_id="root", at=now - 5))
    event_source.publish(redis_client, [each for call in calls for each in call])
    beat = {"freq": 60.0, "active": 1, "processed": 7, "loadavg": [0.1, 0.2, 0.3], "sw_ident": "py-celery"}
    event_source.publish_one(redis_client, event_source.event("worker-heartbeat", **beat))
    redis_client.sadd(keys.QUEUES, "celery", EVIL, LONG)
    redis_client.hset(keys.dead("celery"), "letter", f'{{"task": "{LONG}", "reason": "{EVIL}", "time": {now}}}')
    redis_client.zadd(keys.dead_index("celery"), {"letter": now})
    redis_client.sadd(keys.HOSTS, EVIL)
    redis_client.set(keys.host_lease(EVIL), "machine/instance", ex=60)
    wait_for(lambda: redis_client.hlen(keys.HISTORY) == len(calls), what="the history has all")
    return page


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_pages_are_readable_wide_and_narrow(scene: Monitored, browser: Browser, width: int, dark: bool) -> None:
    node = quote(event_source.NODE)
    paths = ("/", "/tasks", "/task/evil", "/task/long", "/task/next", f"/worker/{node}", "/schedule", "/hosts", "/dead")
    with browsers.page(browser, width=width, dark=dark, account=ACCOUNT) as (page, seen):
        for path in paths:
            answer = page.goto(scene.url.rstrip("/") + path)
            assert answer is not None
            assert answer.status == 200, path
            assert overflow(page) <= 0, path
            expect(page.locator("#main h1")).to_have_count(1)
            unnamed = "button:empty, input:not([type=hidden]):not([id]), svg:not([aria-label]):not([aria-hidden])"
            expect(page.locator(unnamed)).to_have_count(0)
        expect(page.locator(".status.live")).to_have_count(1)
        background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        light = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) > 3 * 128
        assert light is not dark
    assert seen.trouble == []
    assert seen.hosts == {urlsplit(scene.url).netloc}


def test_a_page_follows_what_happens(scene: Monitored, browser: Browser, redis_client: redis.Redis) -> None:
    with browsers.page(browser, account=ACCOUNT) as (page, seen):
        page.goto(scene.url + "tasks")
        expect(page.locator("#connection")).to_have_text("live")
        page.locator("#q").fill("not lost")
        event_source.publish(redis_client, event_source.call("proj.fresh", task_id="fresh"))
        expect(page.locator("#tasks")).to_contain_text("proj.fresh", timeout=10_000)
        assert page.locator("#q").input_value() == "not lost"
        page.goto(scene.url + "task/next")
        expect(page.locator("#facts")).to_contain_text("STARTED")
        ended = event_source.event("task-succeeded", uuid="next", result="'all done'", runtime=0.2)
        event_source.publish(redis_client, [ended])
        expect(page.locator("#facts")).to_contain_text("SUCCESS", timeout=10_000)
        expect(page.locator("#outcome")).to_contain_text("all done")
    assert seen.trouble == []


def test_a_search_finds_and_pages_turn(scene: Monitored, browser: Browser) -> None:
    with browsers.page(browser, account=ACCOUNT) as (page, seen):
        page.goto(scene.url + "tasks")
        expect(page.locator("#tasks tbody tr")).to_have_count(50)
        page.get_by_role("link", name="Older").click()
        expect(page.locator("#tasks tbody tr")).to_have_count(14)
        page.locator("#q").fill("img src")
        page.get_by_role("button", name="Search").click()
        expect(page.locator("#tasks tbody tr")).to_have_count(1)
        page.get_by_role("link", name="Failure").click()
        expect(page.locator("#tasks .state")).to_have_text(["FAILURE"])
        page.locator("#tasks a").first.click()
        expect(page.locator("h1")).to_have_text(EVIL)
    assert seen.trouble == []


def test_buttons_act_also_without_scripts(scene: Monitored, browser: Browser, redis_client: redis.Redis) -> None:
    with browsers.page(browser, account=ACCOUNT, script=False) as (page, _seen):
        page.goto(scene.url)
        page.locator("#queues tr", has_text="celery").get_by_role("button", name="Pause").click()
        expect(page.locator("main")).to_contain_text("Paused:")
        assert redis_client.exists(keys.paused("celery"))
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("main")).to_contain_text("Resumed.")
        assert not redis_client.exists(keys.paused("celery"))
        page.goto(scene.url + "dead")
        page.locator("summary", has_text="Drop").click()
        page.get_by_role("button", name="Yes, drop").click()
        expect(page.locator("main")).to_contain_text("None.")
        assert redis_client.hlen(keys.dead("celery")) == 0
