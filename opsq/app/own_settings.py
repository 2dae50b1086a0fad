"""The settings of an app: those of `opsq.config`, and how they are shown to people, without secrets."""

from __future__ import annotations

from typing import Any

from opsq.app.masking import masked
from opsq.config.settings import Settings


class AppSettings(Settings):
    """`app.conf`."""

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """The values that are not the defaults (or all) by name; `censored`: without secrets."""
        found = {name: self[name] for name in (self if with_defaults else self.changed()) if not name.startswith("__")}
        return {name: masked(name, value) for name, value in found.items()} if censored else found

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """The same as text, a line each."""
        return "\n".join(f"{name}: {value!r}" for name, value in self.table(with_defaults, censored).items())
