"""Checks of `manage.py check`: what in the settings will hurt in production."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from opsq.config import standing
from opsq.config.names import canonical, meant
from opsq.contrib.django.project import project_app
from opsq.datastore.line import questions
from opsq.datastore.trouble import ResponseError
from opsq.exceptions import ImproperlyConfigured, OpsqError

TAG = "opsq"

#: How long the broker may take to answer (seconds); one that takes longer is not checked.
PATIENCE_S = 1.0


def eager_in_production(**_told: Any) -> list[CheckMessage]:
    """Calls that run where they are made are for tests."""
    app = _app()
    if app is None or settings.DEBUG or not app.conf.task_always_eager:
        return []
    return [
        Warning(
            "tasks run in the process that calls them (task_always_eager), and DEBUG is off",
            hint="Leave CELERY_TASK_ALWAYS_EAGER out of the settings of production: requests wait for their tasks.",
            id="opsq.W001",
        )
    ]


def results_for_ever(**_told: Any) -> list[CheckMessage]:
    """Results that never expire fill the place where they are kept."""
    app = _app()
    if app is None or app.conf.result_expires or not _keeps_results(app):
        return []
    return [
        Warning(
            "results never expire (result_expires)",
            hint="Set CELERY_RESULT_EXPIRES to seconds or a timedelta: what is stored only grows.",
            id="opsq.W002",
        )
    ]


def evicting_broker(**_told: Any) -> list[CheckMessage]:
    """A full server must refuse, not throw messages away. A server that does not answer at once is not asked again."""
    app = _app()
    if app is None or (policy := _policy(app)) in (None, "noeviction"):
        return []
    return [
        Warning(
            f"the broker evicts keys when its memory is full (maxmemory-policy {policy})",
            hint="Queues disappear without a word: set maxmemory-policy noeviction in redis.conf.",
            id="opsq.W003",
        )
    ]


def settings_that_cannot_be_used(**_told: Any) -> list[CheckMessage]:
    """What a worker would refuse to start with."""
    if (app := _known_app()) is None:
        return []
    try:
        standing.check(app.conf)
        app.find_broker()
        _made = app.backend
    except ImproperlyConfigured as error:
        return [Error(str(error), hint=error.hint or None, id="opsq.E001")]
    except OpsqError:  # there may be a broker where it runs
        pass
    return []


def mistyped_names(**_told: Any) -> list[CheckMessage]:
    """Names with our prefix that are no setting, but nearly one: they would have no effect, without a word."""
    app = _app()
    prefix = f"{(app.conf.namespace or '').rstrip('_')}_" if app is not None else "_"
    if prefix == "_":
        return []
    unknown = [name for name in dir(settings) if name.startswith(prefix) and not canonical(name, app.conf.namespace)]
    near = {name: known for name in unknown if (known := meant(name.removeprefix(prefix).lower()))}
    return [
        Warning(f"{name} is no setting", hint=f"Did you mean {prefix}{known.upper()}?", id="opsq.W004")
        for name, known in near.items()
    ]


ALL: tuple[Callable[..., list[CheckMessage]], ...] = (
    settings_that_cannot_be_used,
    eager_in_production,
    results_for_ever,
    evicting_broker,
    mistyped_names,
)


def _app() -> Any:
    """The project's app; None where its settings cannot be read, which is told once."""
    if (app := _known_app()) is not None:
        try:
            app.conf.load()
        except OpsqError:
            return None
    return app


def _known_app() -> Any:
    """The project's app; None where it cannot be loaded: its own users are told why."""
    try:
        return project_app()
    except OpsqError:
        return None


def _keeps_results(app: Any) -> bool:
    try:
        return app.find_results().url is not None
    except OpsqError:
        return False


def _policy(app: Any) -> str | None:
    """What the broker does when it is full; None when that cannot be known now."""
    try:
        with questions(app.find_broker().url, PATIENCE_S) as ask:
            [text] = ask([("INFO", "memory")])
    except (OpsqError, ResponseError):
        return None
    lines = text.decode(errors="replace").splitlines()
    return next((line.partition(":")[2] for line in lines if line.startswith("maxmemory_policy:")), None)
