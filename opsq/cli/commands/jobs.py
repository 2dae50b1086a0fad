"""`opsq jobs`: what was run on hosts, by whom, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.cli.output import Column, local_time
from opsq.cli.params import limit_option
from opsq.exceptions import UsageError

if TYPE_CHECKING:
    from opsq.hosts.journal import Past
    from opsq.protocol.signing import PublicKey

COLUMNS = (
    Column("job", "JOB"),
    Column("time", "TIME", "time"),
    Column("by", "BY", cut="end", extra=True),
    Column("command", "COMMAND", cut="end"),
    Column("hosts", "HOSTS", cut="end", extra=True),
    Column("came_of_it", "CAME OF IT", cut="end"),
)
EXAMPLES = """
opsq jobs
opsq jobs --limit 10 --json
opsq jobs show 3f9c0a17be52
opsq jobs show 3f9c0a17be52 --export audit
"""


@group(EXAMPLES, invoke_without_command=True)
@limit_option
@click.pass_context
@pass_context
def jobs(context: Context, ctx: click.Context, limit: int) -> None:
    """What was run on hosts in the last seven days, the latest first."""
    if ctx.invoked_subcommand is not None:
        return
    from opsq.datastore.connection import client, errors
    from opsq.hosts import journal

    url = context.broker_address[0]
    with errors(url):
        found, total = journal.newest(client(url), limit)
    rows = [_row(past) for past in found]
    if not context.out.json:
        for row in rows:
            row["came_of_it"] = _words(row["summary"])
    context.out.table("jobs", COLUMNS, rows, total=total, empty="nothing was run on hosts yet: opsq run host-batch CMD")


def _row(past: Past) -> dict[str, Any]:
    from opsq.hosts.hostset import HostSet

    order = past.orders[0] if past.orders else None
    targets = ",".join(each.targets for each in past.orders)
    return {
        "job": past.id,
        "time": past.time,
        "by": order.by if order else None,
        "command": order.command if order else None,
        "hosts": str(HostSet.parse(targets)) if targets else None,
        "summary": past.summary,
    }


def _words(summary: Mapping[str, Any] | None) -> str:
    from opsq.hosts.job import FINAL, WORDS

    if summary is None:
        return "not told: it runs, or its caller has gone"
    return ", ".join(f"{summary[state]} {WORDS.get(state, state)}" for state in FINAL if summary.get(state))


SHOW_EXAMPLES = """
opsq jobs show 3f9c0a17be52
opsq jobs show 3f9c --json
opsq jobs show 3f9c0a17be52 --export audit
"""


@jobs.command(examples=SHOW_EXAMPLES, short_help="What came of one, host by host.")
@click.argument("job_id", metavar="JOB")
@click.option(
    "--export",
    "folder",
    metavar="DIR",
    type=click.Path(),
    help="Write its orders and signatures there.",
)
@pass_context
def show(context: Context, job_id: str, folder: str | None) -> None:
    """What came of a job on each host, with outputs as long as they are kept (a day); JOB may be shortened.

    Only what hosts have sealed with the keys that are known for them is shown.
    """
    from opsq.cli.commands.host_results import result_rows, show_results
    from opsq.datastore.connection import client, errors
    from opsq.hosts import journal
    from opsq.hosts.inventory import KnownHosts
    from opsq.hosts.keyring import KeyRing

    url = context.broker_address[0]
    ring = KeyRing()
    ring.ensure()
    known = KnownHosts(ring, url).entries
    with errors(url):
        redis = client(url)
        job, when = _find(journal.ids(redis), job_id)
        past = journal.one(redis, job, when, lambda host: known[host][0] if host in known else None)
        assert past.job is not None
        data = journal.outputs(redis, job, past.job.results.values())
    row = _row(past)
    if folder is not None:
        _export(context, past, Path(folder))
    elif context.out.json:
        hosts = {each.pop("name"): each for each in result_rows(past.job, data)}
        context.out.document({**row, "results": hosts, "summary": past.summary or past.job.summary()})
    else:
        facts = [("job", job), ("time", local_time(when)), *((name, row[name]) for name in ("by", "command", "hosts"))]
        context.out.facts(facts)
        context.out.line("")
        show_results(context.out, past.job, data)


def _find(known: list[tuple[str, float]], wanted: str) -> tuple[str, float]:
    """The job that is meant. Raises UsageError."""
    found = [entry for entry in known if entry[0].startswith(wanted)]
    if not found:
        raise UsageError(f"no job is called {wanted}", hint="opsq jobs lists them")
    if len(found) > 1 and not any(job == wanted for job, _when in found):
        raise UsageError(f"several jobs begin with {wanted}", hint="write more of it: opsq jobs")
    return next((entry for entry in found if entry[0] == wanted), found[0])


def _export(context: Context, past: Past, folder: Path) -> None:
    """Write each order as `order-N.json` with `order-N.json.sig`, so that ssh-keygen can check it without opsq."""
    from opsq.hosts.keyring import OPERATOR, KeyRing
    from opsq.hosts.policy import trusted
    from opsq.protocol.signing import ORDER, Sealed, armored

    ring = KeyRing()
    keys: dict[bytes, PublicKey] = {each.key.id: each.key for each in trusted(ring)}
    keys.setdefault(ring.public(OPERATOR).id, ring.public(OPERATOR))
    folder.mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(past.sealed):
        parts = Sealed.split(value)
        key = keys.get(parts.key_id) if parts is not None else None
        if parts is None or key is None:
            context.out.say(f"part {number}: the key that signed it is not known here")
            continue
        path = folder / f"order-{number}.json"
        path.write_bytes(parts.body)
        path.with_suffix(".json.sig").write_text(armored(parts, key, ORDER))
        context.out.line(str(path))
    context.out.say(
        "check one: ssh-keygen -Y verify -n opsq-order -f allowed_signers -I NAME -s order-0.json.sig < order-0.json"
    )
