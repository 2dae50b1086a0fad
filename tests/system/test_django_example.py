"""The example project of Django as its page says, in a browser: an order is packed, a schedule made, and it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from support import browser as browsers
from support import django_example, redis_server
from support.django_example import Example
from support.processes import Spawner
from support.supervised import Supervised

#: A worker that has to fork, a beat that has to tick: on a busy machine.
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The project under `opsq up`."""
    folder = tmp_path_factory.mktemp("django-example")
    spawner = Spawner(folder)
    with redis_server.running() as server:
        example = Example(django_example.copied(folder / "example"), spawner, server.url())
        own = {**example.environment, "OPSQ_STATE_DIR": str(example.folder / ".opsq")}
        supervised = Supervised(example.folder, spawner, _never, own)
        try:
            example.manage("migrate", "-v", "0")
            example.manage("createsuperuser", "--noinput", **SUPERUSER)
            supervised.opsq("up", "worker", "beat")
            yield example
            supervised.opsq("down")
        finally:
            supervised.end()
            spawner.end_all()


@pytest.fixture(scope="module")
def site(example: Example) -> str:
    """The address of its pages."""
    return example.serve()


def _never(*_words: Any) -> None:
    raise AssertionError("nothing is waited for")


SUPERUSER = {
    "DJANGO_SUPERUSER_USERNAME": "ada",
    "DJANGO_SUPERUSER_EMAIL": "ada@example.org",
    "DJANGO_SUPERUSER_PASSWORD": "of a test",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.running() as found:
        yield found


def test_the_page_shows_each_state_of_an_order_without_a_reload_and_the_admin_its_result(
    site: str, browser: Browser
) -> None:
    with browsers.page(browser) as (page, seen):
        page.goto(site)
        page.evaluate("window.since = 'the first loading'")
        page.get_by_label("Item").fill("quinces <b>")
        page.get_by_role("button", name="Order").click()
        row = page.locator("tbody tr").first
        expect(row).to_contain_text("PACKING")
        expect(row).to_contain_text(re.compile(r"\d of 3"))
        expect(row).to_contain_text("SUCCESS", timeout=PATIENCE_MS)
        expect(row).to_contain_text("3 of quinces <b> are packed")
        assert page.evaluate("window.since") == "the first loading"
        page.reload()
        expect(page.locator("tbody tr").first).to_contain_text("3 of quinces <b> are packed")
        assert not seen.trouble
        log_in(page, site)
        page.get_by_role("link", name="Task results").click()
        page.locator("#searchbar").fill("quinces <b>")
        page.get_by_role("button", name="Search").click()
        row = page.locator("#result_list tbody tr")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("shop.tasks.pack")
        expect(row).to_contain_text("SUCCESS")
        row.get_by_role("link").click()
        expect(page.get_by_text("3 of quinces <b> are packed")).to_be_visible()


def test_a_schedule_that_is_made_in_the_admin_runs_every_five_seconds(
    site: str, browser: Browser, wait_for: Callable[..., Any]
) -> None:
    with browsers.page(browser) as (page, _seen):
        log_in(page, site)
        page.get_by_role("link", name="Periodic tasks").click()
        page.get_by_role("link", name="Add periodic task").click()
        page.get_by_label("Name").fill("count the packed")
        page.locator("#id_task").fill("shop.tasks.count_packed")
        with page.expect_popup() as popup:
            page.locator("#add_id_interval").click()
        popup.value.locator("#id_every").fill("5")
        popup.value.locator("#id_period").select_option("seconds")
        popup.value.get_by_role("button", name="Save").click()
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("was added successfully")).to_be_visible()
        row = page.locator("#result_list tbody tr").filter(has_text="count the packed")

        def runs() -> int:
            page.reload()
            return int(row.locator(".field-runs").inner_text())

        wait_for(lambda: runs() >= 2, timeout=PATIENCE_MS / 1000, what="it runs")
        expect(row.locator(".field-next_run")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))


def test_an_order_that_is_packed_before_its_view_has_ended_keeps_its_task(example: Example) -> None:
    kept = example.do("""
import time
from shop.models import Order
from shop.tasks import pack
order = Order.objects.create(item="soon", count=2)
result = pack.delay(order.pk)
until = time.monotonic() + 30
while result.state != "PACKING" and not result.ready() and time.monotonic() < until:
    time.sleep(0.02)
order.task_id = result.id
order.save(update_fields=["task_id"])
result.get(timeout=30)
order.refresh_from_db()
answer = order.task_id == result.id and order.packed_at is not None
""")
    assert kept


def log_in(page: Page, site: str) -> None:
    page.goto(f"{site}/admin/")
    page.get_by_label("Username").fill(SUPERUSER["DJANGO_SUPERUSER_USERNAME"])
    page.get_by_label("Password").fill(SUPERUSER["DJANGO_SUPERUSER_PASSWORD"])
    page.get_by_role("button", name="Log in").click()
