"""What a program's settings ask for that opsq does not do: refused with the way that there is, or without effect."""

from __future__ import annotations

from opsq.config.names import BY_NAME
from opsq.config.option import INERT
from opsq.config.settings import Settings
from opsq.exceptions import ImproperlyConfigured


def check(settings: Settings) -> None:
    """Raises ImproperlyConfigured for the first setting that asks for what opsq does not do, with what to do."""
    changed = settings.changed()
    for name in sorted(changed.keys() & BY_NAME.keys()):
        option = BY_NAME[name]
        if option.refuses(changed[name]):
            raise ImproperlyConfigured(
                f"cannot work with {name} = {changed[name]!r}",
                why=f"opsq does not have it ({settings.source_of(name)})",
                hint=option.why,
            )


def without_effect(settings: Settings) -> list[str]:
    """The settings that are given and change nothing here."""
    changed = settings.changed()
    return [
        name
        for name, option in sorted(BY_NAME.items())
        if option.standing == INERT and name in changed and changed[name] != option.default
    ]
