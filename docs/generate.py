"""Writes pages from the tables in the code: docs/settings.md, and in docs/reference opsq.toml, commands, keys, names.

`python docs/generate.py`

A test compares what is stored with what this would write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
_NOTE = "<!-- Written by docs/generate.py from the tables in the code; do not edit. -->"


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    return {
        "settings.md": _settings(),
        "reference/opsq-toml.md": _toml(),
        "reference/commands.md": _commands(),
        "reference/keys.md": _keys(),
        "reference/names.md": _names(),
    }


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = list(heads)
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in rows),
    ]


def _page(title: str, *parts: Any) -> str:
    lines = [f"# {title}", "", _NOTE, ""]
    for part in parts:
        lines += [*([part] if isinstance(part, str) else part), ""]
    return "\n".join(lines).rstrip() + "\n"


def _value(value: Any) -> str:
    return f"`{value!r}`"


_ABOUT_SETTINGS = """
Celery's settings under their new and their old names, and those of opsq (without an old name). Old and new names may
be mixed; two names that give one setting different values in one place are an error that names both. A name that is no
setting is kept and ignored, with a warning if it looks mistyped; in `opsq.toml` it is an error.

A value is looked for in this order: the command line; the environment; what the program sets (`app.conf`, `App(...)`);
its configuration (`config_from_object`: a module, an object, a mapping, `NAME.yaml`; with `namespace="CELERY"` names
such as `CELERY_TASK_SERIALIZER`, as Django projects have them); `opsq.toml`, or the same in YAML as `opsq.yaml`; the
default. In the environment each is called `CELERY_` or `OPSQ_` and its new name in upper case
(`CELERY_WORKER_CONCURRENCY=4`); lists are written with commas or as JSON, mappings as JSON. `opsq config` shows what is
set here, and by whom.

*Works*: yes; or that it has no effect, and why; or that it is refused (a worker does not start with it), and what to
do. A worker names once, at level info, what is set without effect.
"""


def _settings() -> str:
    from opsq.config.names import BY_NAME

    groups: dict[str, list[Any]] = {}
    for option in sorted(BY_NAME.values(), key=lambda option: option.name):
        groups.setdefault(option.name.partition("_")[0], []).append(option)
    parts: list[Any] = [_ABOUT_SETTINGS.strip()]
    for group in sorted(groups):
        rows = [
            (
                f"`{option.name}`",
                f"`{option.old}`" if option.old else "",
                _value(option.default),
                "yes" if option.standing == "works" else f"{option.standing}: {option.why}",
                option.help,
            )
            for option in groups[group]
        ]
        parts += [f"## {group}", _table(("setting", "old name", "default", "works", "meaning"), rows)]
    return _page("Settings", *parts)


def _toml() -> str:
    from opsq.config.options.hosts import AGENT_OPTIONS, HOSTS_OPTIONS
    from opsq.config.options.monitor import MONITOR_OPTIONS
    from opsq.config.options.programs import PROGRAM_OPTIONS, REDIS_OPTIONS
    from opsq.config.toml_file import SERVICES

    def rows(options: Iterable[Any]) -> list[str]:
        return _table(
            ("key", "default", "meaning"),
            ((f"`{option.name}`", _value(option.default), option.help) for option in options),
        )

    return _page(
        "opsq.toml",
        "The file lies in the project's folder (or `[tool.opsq]` in its `pyproject.toml`; `OPSQ_CONFIG` names another "
        "one). Flags win over the environment, the environment over the file. An unknown key is an error.",
        "## Top level",
        _table(
            ("key", "meaning"),
            (
                ("`app`", "the app, as `-A` takes it"),
                (
                    "`services`",
                    f"which of opsq's own programs `up` starts: {', '.join(f'`{name}`' for name in SERVICES)}",
                ),
                ("any [setting](../settings.md)", "`broker_url`, `task_acks_late`, ..."),
            ),
        ),
        "## [worker] and [beat]",
        "The long options of `opsq worker` and `opsq beat` without their dashes: `concurrency = 4`, "
        '`queues = ["celery", "mail"]`.',
        "## [redis]",
        rows(REDIS_OPTIONS),
        "## [monitor]",
        rows(MONITOR_OPTIONS),
        "## [agent]",
        rows(AGENT_OPTIONS),
        "## [hosts]",
        rows(HOSTS_OPTIONS),
        "## [programs.NAME]",
        "A program of your own; a name of opsq's (`worker`, ...) changes that one.",
        rows(PROGRAM_OPTIONS),
    )


def _commands() -> str:
    import click

    from opsq.cli.context import Context
    from opsq.cli.main import SECTIONS, cli

    os.environ["COLUMNS"] = "100"
    top = click.Context(cli, info_name="opsq", obj=Context())
    parts: list[Any] = [
        "Options may stand before or after the command. Every command takes `--json`; exit codes: 0 done, 1 the work "
        "failed, 2 usage, 3 cannot reach, 4 refused, 130 interrupted.",
    ]
    for heading, section in SECTIONS.items():
        parts.append(f"## {heading}")
        for name in section:
            command = cli.get_command(top, name)
            assert command is not None
            parts += _help(command, f"opsq {name}", top)
    return _page("Commands", *parts)


def _help(command: Any, path: str, parent: Any) -> list[str]:
    import click

    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent)
    text = re.sub(r"\n\nOptions of all commands.*", "", command.get_help(context), flags=re.DOTALL).rstrip()
    parts = [f"### {path}", f"```text\n{text}\n```"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                parts += _help(inner, f"{path} {name}", context)
    return parts


def _keys() -> str:
    from opsq.datastore.keys import TABLE

    return _page(
        "Keys in Redis",
        "Every key that opsq reads or writes, after the global key prefix if one is set.",
        _table(("key", "holds", "bound"), ((f"`{fact.pattern}`", fact.holds, fact.bound) for fact in TABLE)),
    )


def _names() -> str:
    from opsq.app.absent import ABSENT
    from opsq.cli.codemod import names

    def code(key: str) -> str:
        return f"`{key.replace(':', '.')}`"

    return _page(
        "Celery's names",
        "What a program imports from `celery.X` is in `opsq.X`. These are elsewhere, and `opsq migrate-code` says so:",
        _table(["Celery", "opsq"], [[code(old), code(new)] for old, new in sorted(names.ELSEWHERE.items())]),
        "And these are not there:",
        _table(["name", "why, or what to use"], [[code(key), why] for key, why in sorted(names.REASONS.items())]),
        "Attributes of Celery's app that opsq's has not; asked for, the error says it too:",
        _table(["app", "why, or what to use"], [[f"`app.{name}`", why] for name, why in sorted(ABSENT.items())]),
    )


def main() -> None:
    """Write the pages."""
    (FOLDER / "reference").mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
