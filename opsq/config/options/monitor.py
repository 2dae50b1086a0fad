"""What `[monitor]` in `opsq.toml` may say; the flags of `opsq monitor` have the same names."""

from __future__ import annotations

from opsq.config.option import WORKS, Option

#: Where a password is looked for that must not stand in a command line.
BASIC_AUTH_VARIABLE = "OPSQ_MONITOR_BASIC_AUTH"

# fmt: off
MONITOR_OPTIONS: tuple[Option, ...] = (
    Option("address", str, "127.0.0.1", "", WORKS, "The address it listens on; any but loopback demands a password"),
    Option("port", int, 5555, "", WORKS, "The port; unless it is named here, the next free one is taken"),
    Option("basic_auth", list, [], "", WORKS, "Who may come in: \"user:password\", or a list of them"),
    Option("read_only", bool, False, "", WORKS, "No buttons that act, also with a password"),
    Option("url_prefix", str, "", "", WORKS, "The path under which a reverse proxy shows it, as \"opsq\""),
    Option("certfile", str, None, "", WORKS, "Certificate (PEM) to serve HTTPS"),
    Option("keyfile", str, None, "", WORKS, "The certificate's key (PEM)"),
    Option("history", int, 10_000, "", WORKS, "Tasks kept in the history, and as many again that failed"),
    Option("history_age", str, "7d", "", WORKS, "How long they are kept: 90, 5m, 12h, 7d"),
    Option("enable_events", bool, True, "", WORKS, "Have Celery's workers send events, as Flower does"),
)
# fmt: on
