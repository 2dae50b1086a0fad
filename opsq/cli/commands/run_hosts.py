"""What `opsq run host-batch` does: choose hosts, send the signed order, follow the answers, tell what came of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from opsq.cli.commands.host_results import result_rows, show_results
from opsq.cli.context import Context
from opsq.cli.live import Progress
from opsq.config import toml_file
from opsq.datastore.connection import client, errors
from opsq.exceptions import HostsError, RefusedError, UsageError, did_you_mean
from opsq.hosts import inventory, journal, targets
from opsq.hosts.dispatch import Dispatch, life_s
from opsq.hosts.hostset import HostSet
from opsq.hosts.inventory import Known, KnownHosts
from opsq.hosts.job import HostResult, Job
from opsq.hosts.keyring import KeyRing, whoami
from opsq.hosts.order import LONGEST_TIMEOUT_S, OUTPUT_BYTES, OUTPUT_BYTES_ALL, Order, new_job_id, new_nonce

#: A single word with any of these is a line for the shell.
_SHELL = set(" \t\n\"'\\$`|&;<>()*?[]{}~#!=")
_CANCEL_PATIENCE_S = 3.0
_INTERRUPTED = 130


def run_on_hosts(context: Context, words: Sequence[str], expression: str | None, timeout_s: float) -> None:
    """Do it, print what came of it, and exit with what it came to."""
    order = _order(words, timeout_s)
    url = context.broker_address[0]
    ring = KeyRing()
    ring.ensure()
    signer = ring.operator()
    with errors(url):
        redis = client(url)
        memory = KnownHosts(ring, url)
        known = inventory.survey(redis, memory, with_facts="@" in (expression or ""))
        hosts, others = _chosen(expression, known)
        dispatch = Dispatch(url, signer, {name: host.key for name, host in known.items() if host.key is not None})
        try:
            job = dispatch.prepare(_for_now(order, len(hosts)), hosts, others)
            _name_the_absent(context, others)
            code = _carry_out(context, dispatch, job)
            data = journal.outputs(redis, job.id, job.results.values())
            journal.summarise(redis, job)
        finally:
            dispatch.close()
    memory.learn(_seen(known, job))
    _tell(context, job, data, dispatch.forged)
    sys.stdout.flush()
    sys.exit(code if code is not None else job.exit_code())


def _order(words: Sequence[str], timeout_s: float) -> Order:
    """What is to be run. Raises UsageError."""
    if not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        raise UsageError("--timeout must be more than 0 and at most 7 days")
    if words[0] == "":
        raise UsageError("the command is empty", hint="opsq run host-batch uptime")
    is_line = len(words) == 1 and bool(_SHELL & set(words[0]))
    return Order(
        "run",
        new_job_id(),
        0,
        "",
        whoami(),
        0.0,
        0.0,
        new_nonce(),
        argv=None if is_line else tuple(words),
        shell=words[0] if is_line else None,
        timeout_s=timeout_s,
    )


def _for_now(order: Order, hosts: int) -> Order:
    """The order with its life beginning now, and as much output from each host as all of them together may keep."""
    now = time.time()
    kept = min(OUTPUT_BYTES, OUTPUT_BYTES_ALL // max(hosts, 1))
    return replace(order, iat=now, exp=now + life_s(order.timeout_s), output=kept)


def _chosen(expression: str | None, known: Mapping[str, Known]) -> tuple[HostSet, list[HostResult]]:
    """The hosts that get the order, and those that were meant and cannot have it. Raises HostsError, UsageError."""
    present = [name for name, host in known.items() if host.state == "present" and host.key is not None]
    if expression is None:
        meant = HostSet(name for name, host in known.items() if host.state != "stopped")
    else:
        tags = {name: host.tags for name, host in known.items()}
        scene = targets.Scene(known, present, _groups(), tags)
        meant = targets.resolve(expression, scene)
    chosen = meant & present
    others = [_absent(name, known.get(name)) for name in meant - chosen]
    if chosen:
        return chosen, others
    changed = [result.name for result in others if result.state == "refused"]
    if changed:
        raise RefusedError(f"the key of {HostSet(changed)} has changed", hint=f"opsq hosts forget {changed[0]}")
    if not present:
        raise HostsError("no agent runs here", why="nobody would run it", hint="start the one of this host: opsq up")
    raise _nobody_there(expression or "", meant, known)


def _absent(name: str, host: Known | None) -> HostResult:
    """What became of a host that cannot have the order."""
    if host is None:
        return HostResult(name, "unknown")
    if host.state in ("changed", "present"):
        reason = "its key is not the one that is known here (opsq hosts forget lets it in anew)"
        return HostResult(name, "refused", reason)
    return HostResult(name, "silent", "its agent was stopped" if host.state == "stopped" else "it has gone")


def _name_the_absent(context: Context, others: Sequence[HostResult]) -> None:
    """Say at once who was meant and is not there."""
    for state, words in (("silent", "no sign of life of"), ("unknown", "not known here:"), ("refused", "not trusted:")):
        names = HostSet(result.name for result in others if result.state == state)
        if names:
            context.out.say(f"{words} {names}")


def _nobody_there(expression: str, meant: HostSet, known: Mapping[str, Known]) -> UsageError | HostsError:
    strangers = [name for name in meant if name not in known]
    if len(strangers) == len(meant):
        hint = did_you_mean(strangers[0], known, "opsq hosts lists them")
        return UsageError(f"no host is called {HostSet(strangers)}", hint=hint)
    return HostsError(f"none of {expression} is there", why=f"no agent runs on {meant}", hint="opsq hosts")


def _groups() -> Mapping[str, str]:
    """The groups that the project's file names."""
    path = toml_file.find(os.getcwd())
    return targets.groups_of(toml_file.load(path).hosts.get("groups", {})) if path is not None else {}


def _carry_out(context: Context, dispatch: Dispatch, job: Job) -> int | None:
    """Send the orders and wait for the answers; the exit code, if it was interrupted."""
    progress = Progress(wanted=not context.quiet)

    def show(changed: Job) -> None:
        progress.show(_progress(changed))

    try:
        dispatch.send(job)
        progress.show(_progress(job), at_once=True)
        dispatch.follow(job, show)
    except KeyboardInterrupt:
        progress.clear()
        open_hosts = HostSet(job.names("waiting", "running"))
        context.out.say(f"cancelled on {open_hosts}; waiting for what they say (Ctrl-C again: do not wait)")
        try:
            dispatch.cancel(job, _CANCEL_PATIENCE_S, show)
        except KeyboardInterrupt:
            pass
        job.settle(job.names("waiting", "running"), "silent", "it was told to cancel, and has not answered")
        return _INTERRUPTED
    finally:
        progress.clear()
    return None


def _progress(job: Job) -> str:
    waiting, running = job.names("waiting"), job.names("running")
    total = len(job.results)
    text = f"{total - len(waiting) - len(running)} of {total} done"
    if running:
        text += f", {len(running)} running"
    if waiting:
        text += f", {len(waiting)} not begun"
    rest = [*running, *waiting]
    return f"{text}: {HostSet(rest)}" if 0 < len(rest) <= 20 else text


def _seen(known: Mapping[str, Known], job: Job) -> list[Known]:
    """The hosts of this run as they are remembered: each was seen, by its own clock, when its command ended."""
    ends = {name: result.end or result.begin or 0.0 for name, result in job.results.items()}
    return [
        Known(host.name, host.state, host.key, max(host.seen or 0.0, ends.get(host.name, 0.0)) or None)
        for host in known.values()
    ]


def _tell(context: Context, job: Job, data: Mapping[str, bytes], forged: int) -> None:
    if context.out.json:
        rows: dict[str, Any] = {row.pop("name"): row for row in result_rows(job, data)}
        context.out.document({"job": job.id, "hosts": rows, "summary": job.summary()})
    else:
        show_results(context.out, job, data)
    if forged:
        context.out.say(f"{forged} answers were not sealed by the host that they name, and were left out")
