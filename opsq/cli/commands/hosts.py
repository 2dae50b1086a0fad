"""`opsq hosts`: the hosts of this broker; `invite` others, `forget` one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.cli.output import Column
from opsq.cli.params import limit_option, limited
from opsq.exceptions import OpsqError, UsageError

COLUMNS = (
    Column("name", "HOST", cut="start"),
    Column("state", "STATE"),
    Column("seen_ago", "SEEN", "seconds"),
    Column("reason", "WHY", cut="end", extra=True),
    Column("load", "LOAD", "number", extra=True),
    Column("free", "FREE", "number", extra=True),
    Column("version", "VERSION", extra=True),
    Column("tags", "TAGS", cut="end", extra=True),
    Column("clock_shown", "CLOCK", extra=True),
)
#: A refusal is shown for so long (seconds).
_REFUSAL_SHOWN_S = 600.0
#: A clock that is off by less is not worth a column (seconds).
_CLOCK_SHOWN_S = 1.0

EXAMPLES = """
opsq hosts
opsq hosts --json
opsq hosts invite
opsq hosts forget web07
"""


@group(EXAMPLES, invoke_without_command=True)
@limit_option
@click.pass_context
@pass_context
def hosts(context: Context, ctx: click.Context, limit: int) -> None:
    """The hosts that have joined: present, stopped, silent (gone without a word), refusing, or with a changed key.

    LOAD is that of the last minute, FREE how many more commands a host may run at once.
    """
    if ctx.invoked_subcommand is not None:
        return
    from opsq.datastore.connection import client, errors
    from opsq.hosts.hostset import counting_order
    from opsq.hosts.inventory import KnownHosts, survey
    from opsq.hosts.keyring import KeyRing

    url = context.broker_address[0]
    ring = KeyRing()
    ring.ensure()
    memory = KnownHosts(ring, url)
    with errors(url):
        known = survey(client(url), memory)
    memory.learn(known.values())
    rows = [_row(known[name]) for name in sorted(known, key=counting_order)]
    shown = limited(rows, limit)
    if not context.out.json:
        for row in shown:
            _add_words(row)
    context.out.table(
        "hosts", COLUMNS, shown, total=len(rows), empty="no host has joined; opsq up (or opsq agent) brings this one"
    )


def _row(host: Any) -> dict[str, Any]:
    """A host as data; what is absent is None."""
    facts: Mapping[str, Any] = host.facts
    refusing = facts.get("refusing")
    state, reason = host.state, None
    if state == "present" and isinstance(refusing, dict) and time.time() - refusing["at"] < _REFUSAL_SHOWN_S:
        state, reason = "refusing", str(refusing["reason"])
    if state == "changed":
        reason = "it is not sealed by the key that is known for it: opsq hosts forget lets the new one in"
    told = {name: facts.get(name) for name in ("version", "load", "slots", "free", "clock", "since", "system", "cpus")}
    return {
        "name": host.name,
        "state": state,
        "seen": host.seen,
        "reason": reason,
        "tags": list(host.tags),
        "key": host.key.fingerprint if host.key is not None else None,
        **told,
    }


def _add_words(row: dict[str, Any]) -> None:
    """What people read instead of numbers."""
    row["seen_ago"] = max(0.0, time.time() - row["seen"]) if row["seen"] else None
    clock = row["clock"]
    row["clock_shown"] = f"{clock:+.0f}s" if clock is not None and abs(clock) >= _CLOCK_SHOWN_S else None
    if row["state"] not in ("present", "refusing"):
        row["load"] = row["free"] = None


INVITE_EXAMPLES = """
opsq hosts invite
opsq hosts invite --broker rediss://redis.example:6379/0
opsq hosts invite --file token
"""


@hosts.command(examples=INVITE_EXAMPLES, short_help="Print the line that brings another machine in.")
@click.option("--file", "path", metavar="FILE", type=click.Path(), help="Write the token there, with the password.")
@pass_context
def invite(context: Context, path: str | None) -> None:
    """Print one line to be typed on another machine: it will trust your key and serve this broker.

    The line holds no private key and no password: the other side asks for the broker's password if there is one. With
    --file the token goes into a private file, password included, for `opsq join --file`. --broker URL names the
    broker's address as the other machine sees it.
    """
    from opsq.config.broker import check_broker_url
    from opsq.hosts import joined
    from opsq.hosts.keyring import OPERATOR, KeyRing, whoami, write_private

    url = context.flags.get("broker") or context.broker_address[0]
    check_broker_url(url)
    ring = KeyRing()
    ring.ensure()
    token = joined.invite(ring.public(OPERATOR), whoami(), url, with_secret=path is not None)
    if path is not None:
        write_private(Path(path), token.text() + "\n")
        context.out.say(f"bring {path} there by a safe way (it holds the broker's password), and type:")
    else:
        context.out.say("type this on the other machine, then start its agent (opsq agent, or opsq up):")
    line = f"opsq join --file {path}" if path is not None else f"opsq join {token.text()}"
    if context.out.json:
        context.out.document({"line": line, "operator": token.operator.fingerprint})
    else:
        context.out.line(line)


@hosts.command(examples="opsq hosts forget web07", short_help="Know a host no more.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def forget(context: Context, names: tuple[str, ...]) -> None:
    """Forget hosts and their keys: a silent one is not waited for any more, a new key of its name is believed.

    A host whose agent lives comes back by itself, under the key that it has then.
    """
    from opsq.datastore import keys
    from opsq.datastore.connection import client, errors
    from opsq.hosts.hostset import HostSet
    from opsq.hosts.inventory import KnownHosts
    from opsq.hosts.keyring import KeyRing

    url = context.broker_address[0]
    ring = KeyRing()
    ring.ensure()
    memory = KnownHosts(ring, url)
    chosen = HostSet.parse(",".join(names))
    forgotten = []
    with errors(url):
        redis = client(url)
        for name in chosen:
            was_known = memory.forget(name)
            alive = bool(redis.exists(keys.host_lease(name)))
            in_redis = 0 if alive else redis.delete(keys.host_facts(name)) + redis.srem(keys.HOSTS, name)
            if was_known or in_redis:
                forgotten.append(name)
    if not forgotten:
        raise UsageError(f"no host is called {chosen}", hint="opsq hosts lists them")
    if context.out.json:
        context.out.document({"forgotten": forgotten})
    context.out.say(f"forgotten: {HostSet(forgotten)}")


def private_file(path: str) -> str:
    """What a file says that only its owner may read. Raises OpsqError."""
    file = Path(path)
    try:
        if file.stat().st_mode & 0o077:
            raise OpsqError(f"cannot use {path}", why="others may read it", hint=f"chmod 600 {path}")
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OpsqError(f"cannot read {path}", why=why.lower()) from None
