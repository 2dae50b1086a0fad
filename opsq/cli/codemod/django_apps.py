"""What a Python file says of django-celery-beat and django-celery-results, whose place `opsq.contrib.django` can take.

Nothing is changed: a project may keep these packages. What to write without them is told.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

APPS = ("django_celery_beat", "django_celery_results")
OWN = "opsq.contrib.django"

#: What is imported from their modules, and is under the same name in ours.
SAME = {
    "django_celery_beat.models": frozenset(
        (*("ClockedSchedule", "CrontabSchedule", "IntervalSchedule", "PeriodicTask", "PeriodicTasks"), "SolarSchedule")
    ),
    "django_celery_beat.admin": frozenset({"PeriodicTaskAdmin"}),
    "django_celery_results.models": frozenset({"ChordCounter", "GroupResult", "TaskResult"}),
    "django_celery_results.admin": frozenset({"GroupResultAdmin", "TaskResultAdmin"}),
}
#: The migration that makes, or takes over, the tables of each.
MIGRATIONS = {"django_celery_beat": "0001_schedules", "django_celery_results": "0002_results"}

_REASONS = {
    "django_celery_beat.schedulers": "the setting beat_scheduler, or -S django, selects opsq's; it has no such class",
    "django_celery_results.backends": "the setting result_backend selects opsq's; it has no such class",
}


def told(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Each import and text that names one of the packages or its models, and what to write in its place."""
    in_migrations = {
        id(node.elts[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and all(isinstance(e, ast.Constant) for e in node.elts)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and _app(node.module or ""):
            yield from ((node, why) for why in _from(node))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _app(alias.name):
                    yield node, _module(alias)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (app := _app(node.value)):
            yield from ((node, why) for why in _text(node.value, app, id(node) in in_migrations))


def _app(path: str) -> str:
    app = path.partition(".")[0]
    return app if app in APPS else ""


def _instead(app: str, text: str) -> str:
    return f"with {OWN} in place of {app} write: {text}"


def _from(node: ast.ImportFrom) -> Iterator[str]:
    assert node.module is not None
    app, _, rest = node.module.partition(".")
    there = [alias for alias in node.names if alias.name in SAME.get(node.module, ()) or f"{app}.{alias.name}" in SAME]
    if there:
        names = ", ".join(ast.unparse(alias) for alias in there)
        yield _instead(app, f"from {'.'.join((OWN, *([rest] if rest else [])))} import {names}")
    for alias in node.names:
        if alias not in there:
            yield f"{alias.name}: {_reason(node.module, app)}"


def _module(alias: ast.alias) -> str:
    app, _, rest = alias.name.partition(".")
    if rest and alias.name not in SAME:
        return f"{alias.name}: {_reason(alias.name, app)}"
    name = f" as {alias.asname}" if alias.asname else ""
    return _instead(app, f"import {OWN}{'.' if rest else ''}{rest}{name}")


def _reason(module: str, app: str) -> str:
    return _REASONS.get(module, f"{OWN} has no such name; with {app} in INSTALLED_APPS, and so with Celery, it stays")


def _text(text: str, app: str, in_migrations: bool) -> Iterator[str]:
    """A text that is an app, or a model of it."""
    model = text.partition(".")[2]
    if text == app and in_migrations:
        yield _instead(app, f"('opsq', {MIGRATIONS[app]!r}) among the dependencies of a migration")
    elif text == app:
        yield f"{text!r} is a text: in INSTALLED_APPS write {OWN!r}; as the app of a model, 'opsq'"
    elif model.lower() in {name.lower() for name in SAME[f"{app}.models"]}:
        yield _instead(app, repr(f"opsq.{model}"))
