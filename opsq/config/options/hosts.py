"""What `[agent]` and `[hosts]` in `opsq.toml` may say; the flags of `opsq agent` have the same names."""

from __future__ import annotations

from opsq.config.option import WORKS, Option

# fmt: off
AGENT_OPTIONS: tuple[Option, ...] = (
    Option("name", str, None, "", WORKS, "By which name this host goes; default: its host name"),
    Option("tags", list, [], "", WORKS, "The groups it is in: @TAG chooses it"),
    Option("slots", int, 8, "", WORKS, "How many commands run at a time; others wait"),
    Option("lease", float, 15.0, "", WORKS, "It counts as gone so long after its last sign of life, s"),
    Option("stop_wait", float, 20.0, "", WORKS, "How long running commands may go on when it stops, s"),
    Option("loglevel", str, "info", "", WORKS, "Log this and worse"),
)
HOSTS_OPTIONS: tuple[Option, ...] = (
    Option("groups", dict, {}, "", WORKS,
           "Groups of hosts by name: { front = \"web[01-40]\", site = [\"@front\", \"db1\"] }"),
)
# fmt: on
