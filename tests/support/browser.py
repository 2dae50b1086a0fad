"""A headless Chromium that says what goes wrong in its pages, and with whom they speak."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str:
    """OPSQ_TEST_CHROMIUM, or one on PATH; without one the test is skipped, but not in CI."""
    found = os.environ.get("OPSQ_TEST_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("these tests need Chromium")
    return found


@dataclass
class Seen:
    """What happened in a page: messages of its console, errors, and the hosts that it asked."""

    trouble: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@contextmanager
def running() -> Iterator[Browser]:
    """One browser for several tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def page(
    browser: Browser, *, width: int = 1280, dark: bool = False, account: str = "", script: bool = True
) -> Iterator[tuple[Page, Seen]]:
    """A page of its own, with nothing remembered."""
    options: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "java_script_enabled": script}
    if account:
        user, _, password = account.partition(":")
        options["http_credentials"] = {"username": user, "password": password}
    context = browser.new_context(color_scheme="dark" if dark else "light", **options)
    made, seen = context.new_page(), Seen()
    made.on("console", lambda message: seen.trouble.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: seen.trouble.append(str(error)))
    made.on("dialog", lambda dialog: (seen.trouble.append("a dialog opened"), dialog.dismiss()))
    made.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
    try:
        yield made, seen
    finally:
        context.close()
