"""How the results of a job are shown: equal ones once, under the folded names of their hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from opsq.cli.output import Output, harmless
from opsq.hosts.fold import Folded, fold_results
from opsq.hosts.hostset import HostSet, counting_order
from opsq.hosts.job import FINAL, WORDS, Job
from opsq.hosts.journal import text_of
from opsq.utils.time import humanize_duration

_COLORS = {"succeeded": "green", "timeout": "yellow", "cancelled": "yellow"}


def result_rows(job: Job, data: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    """Each host as data; what is absent is None."""
    for name in sorted(job.results, key=counting_order):
        result = job.results[name]
        yield {
            "name": name,
            "state": result.state,
            "exit": result.exit,
            "signal": result.signal,
            "reason": result.reason or None,
            "stdout": text_of(result.out, data),
            "stderr": text_of(result.err, data),
            "begin": result.begin,
            "duration": result.duration,
            "clock": result.clock,
        }


def show_results(out: Output, job: Job, data: Mapping[str, bytes]) -> None:
    """Each group with its output on stdout, the counts on stderr."""
    for group in fold_results(job.results.values()):
        out.line(_heading(group, out.rich))
        _show(out, text_of(group.out, data), group.out is not None)
        error = text_of(group.err, data)
        if error or (error is None and group.err is not None):
            out.line("stderr:")
            _show(out, error, True)
    out.say(_counts(job))


def _heading(group: Folded, color: bool) -> str:
    """`web[1-3] (3): exit 0, 0.1s`."""
    names = str(group.hosts) + (f" ({len(group.hosts)})" if len(group.hosts) > 1 else "")
    how = WORDS.get(group.state, group.state)
    if group.state in ("succeeded", "failed"):
        how = f"exit {group.exit}" if group.signal is None else f"ended by signal {group.signal}"
    reason = harmless(group.reason) if group.reason not in ("", "timeout", "cancelled") else ""
    words = [how, *([reason] if reason else []), *_duration(group)]
    text = f"{names}: {', '.join(words)}"
    return click.style(text, fg=_COLORS.get(group.state, "red"), bold=True) if color else text


def _duration(group: Folded) -> list[str]:
    if group.shortest is None or group.longest is None:
        return []
    shortest, longest = humanize_duration(group.shortest), humanize_duration(group.longest)
    return [shortest if shortest == longest else f"{shortest} to {longest}"]


def _show(out: Output, text: str | None, was_written: bool) -> None:
    if text is None:
        if was_written:
            out.line("[the output is not kept any more]")
        return
    for line in text.splitlines():
        out.line(harmless(line.expandtabs()) if out.terminal else line)


def _counts(job: Job) -> str:
    """`5 hosts: 3 succeeded, 2 did not answer (web3, web5)`."""
    total = len(job.results)
    parts = []
    for state in FINAL:
        names = job.names(state)
        if names:
            named = "" if state == "succeeded" else f" ({HostSet(names)})"
            parts.append(f"{len(names)} {WORDS.get(state, state)}{named}")
    return f"{total} host{'s' if total != 1 else ''}: {', '.join(parts)}; job {job.id}"
