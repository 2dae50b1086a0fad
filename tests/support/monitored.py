"""A monitor in a process of its own, and how a test asks it."""

from __future__ import annotations

import base64
import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .processes import Running, Spawner

ACCOUNT = "anna:secret"
APP = """
from opsq import Celery

app = Celery("shop")


@app.task
def add(x, y):
    return x + y
"""


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass
class Monitored:
    """One monitor; `cookie` and `token` are those of a page that was loaded with a password."""

    url: str
    _process: Running | None = None
    account: str = ""
    cookie: str = ""
    _opener: Any = field(default_factory=lambda: urllib.request.build_opener(_NoRedirect))

    @property
    def process(self) -> Running:
        """Its process, if the test has started it."""
        assert self._process is not None
        return self._process

    def trust(self, certificate: Path) -> None:
        """Take this certificate for a good one."""
        context = ssl.create_default_context(cafile=str(certificate))
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))

    def ask(
        self, path: str, form: Mapping[str, str] | None = None, account: str | None = None, **headers: str
    ) -> Answer:
        """GET a path below the monitor's address, or POST a form to it."""
        data = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(self.url.rstrip("/") + path, data)
        who = self.account if account is None else account
        if who:
            request.add_header("Authorization", "Basic " + base64.b64encode(who.encode()).decode())
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with self._opener.open(request, timeout=10) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def act(self, action: str, form: Mapping[str, str], **headers: str) -> Answer:
        """Press a button, as a browser would."""
        page = self.ask("/")
        cookie = page.headers.get("Set-Cookie", "").partition(";")[0]
        found = re.search(r'name="token" value="(\w+)"', page.text)
        origin = urllib.parse.urlsplit(self.url)
        sent = {"Cookie": cookie, "Origin": f"{origin.scheme}://{origin.netloc}", **headers}
        return self.ask(f"/do/{action}", {"token": found[1] if found else "", **form}, **sent)


def start(
    spawn: Spawner, broker_url: str, *options: str, name: str = "", account: str = "", **environment: str
) -> Monitored:
    """A monitor that is ready; on a free port unless the options name one."""
    (spawn.folder / "shop.py").write_text(APP)
    argv = [sys.executable, "-m", "opsq", "-A", "shop", "monitor", "-l", "info", *options]
    env = {"OPSQ_BROKER_URL": broker_url, "PYTHONPATH": str(spawn.folder), **environment}
    if account:
        env["OPSQ_MONITOR_BASIC_AUTH"] = account
    process = spawn(argv, name=name, env=env)
    until = time.monotonic() + 30
    while not (found := re.search(r"monitor ready: (\S+)", process.output())):
        if not process.alive() or time.monotonic() > until:
            pytest.fail(process.report())
        time.sleep(0.005)
    return Monitored(found[1], process, account)
