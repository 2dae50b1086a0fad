"""`opsq config`: what is set, to what, and by whom."""

from __future__ import annotations

from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.output import Column
from opsq.exceptions import UsageError, did_you_mean

EXAMPLES = """
opsq -A proj config
opsq config --all
opsq -A proj config broker_url task_acks_late
opsq -A proj config --json
"""

COLUMNS = (
    Column("name", "SETTING"),
    Column("value", "VALUE", cut="end"),
    Column("source", "FROM", cut="start"),
    Column("standing", "EFFECT", extra=True),
    Column("why", "BECAUSE", extra=True),
)


@command(EXAMPLES)
@click.argument("names", nargs=-1, metavar="[SETTING]...")
@click.option("--all", "everything", is_flag=True, help="Also settings that have their default.")
@pass_context
def config(context: Context, names: tuple[str, ...], everything: bool) -> None:
    """Show the settings that are not the default (or those that are named), their values, and who set them.

    Passwords are hidden.
    """
    from opsq.config.names import BY_NAME, canonical

    conf = context.app.conf
    found = _found_by_itself(context.app)
    wanted = list(dict.fromkeys(canonical(name, conf.namespace) or _unknown(name) for name in names))
    if not wanted:
        changed = {name for name in conf.changed() if name in BY_NAME}
        wanted = sorted({*BY_NAME} if everything else {*changed, *found})
    rows = [_row(name, *found.get(name, (conf[name], conf.source_of(name)))) for name in wanted]
    shown = rows if context.out.json else [{**row, "value": _text(row["value"])} for row in rows]
    context.out.table("settings", COLUMNS, shown, empty="every setting has its default")
    for row in rows if names else ():
        if row["why"]:
            context.out.say(f"{row['name']}: {row['standing']}: {row['why']}")


def _unknown(name: str) -> str:
    from opsq.config.names import BY_NAME, BY_OLD_NAME

    raise UsageError(f"there is no setting {name!r}", hint=did_you_mean(name, [*BY_NAME, *BY_OLD_NAME]))


def _row(name: str, value: Any, source: str) -> dict[str, Any]:
    from opsq.app.masking import masked
    from opsq.config.names import BY_NAME

    option = BY_NAME[name]
    told = {"standing": option.standing, "why": option.why or None}
    return {"name": name, "value": masked(name, value), "source": source, **told}


def _found_by_itself(app: Any) -> dict[str, tuple[Any, str]]:
    """The broker that nobody configured, if a private one answers."""
    from opsq.app.home import private_redis
    from opsq.config.broker import BROKER_SETTINGS, PRIVATE

    if any(app.conf[name] is not None for name in BROKER_SETTINGS):
        return {}
    url = private_redis(app.home)
    return {"broker_url": (url, PRIVATE)} if url is not None else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
