"""Flower from PyPI, in the environment of the newest Celery: started, asked, and its buttons pressed."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import Running, Spawner


@dataclass(frozen=True)
class Flower:
    """A running Flower."""

    running: Running
    port: int

    def ask(self, path: str) -> Any:
        """What it answers, as data; {} while it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
                return json.loads(answer.read())
        except (OSError, urllib.error.HTTPError):
            return {}

    def press(self, path: str, **form: Any) -> str:
        """Press a button: the message that it answers. Fails with what Flower says otherwise."""
        url, data = f"http://127.0.0.1:{self.port}/api/{path}", urllib.parse.urlencode(form).encode()
        try:
            with urllib.request.urlopen(url, data, timeout=20) as answer:
                message: str = json.loads(answer.read())["message"]
                return message
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from error

    def knows(self, node: str) -> bool:
        """Whether it has heard of a worker, now that it has asked again."""
        return node in self.ask("/api/workers?refresh=true")


def start(spawn: Spawner, python: Path, folder: Path, environment: Mapping[str, str], port: int) -> Flower:
    """A Flower of the Celery project in a folder."""
    argv = [python, "-m", "celery", "-A", "proj", "flower", f"--port={port}", "--address=127.0.0.1"]
    env = {**environment, "FLOWER_UNAUTHENTICATED_API": "true"}
    return Flower(spawn(argv, name="flower", env=env, cwd=folder), port)
