"""`opsq doctor`: what is wrong here, why it matters, and the command that mends it."""

from __future__ import annotations

from typing import Any

from opsq.cli.context import Context, pass_context
from opsq.cli.errors import REFUSED, UNREACHABLE
from opsq.cli.frame import command
from opsq.exceptions import BrokerError, OpsqError, RefusedError

EXAMPLES = """
opsq doctor
opsq -A proj doctor
opsq doctor --json
"""


@command(EXAMPLES)
@pass_context
def doctor(context: Context) -> None:
    """Look at the broker, the queues, the schedule and this machine, and say what is wrong and what mends it.

    Exit code 0: all is well; 1: something was found; 3: the broker cannot be reached; 4: it refuses.
    """
    from opsq.app.discovery import named_app
    from opsq.cli.doctor import CHECKS, NEEDS_BROKER, Look

    look = Look(context.app, context.state_dir, named_app(context.app_spec) is not None)
    rows = [_row(check, look) for check in CHECKS]
    unreachable = _unreachable(look)
    if unreachable is None:
        rows = [_row(check, look) for check in NEEDS_BROKER] + rows
    _report(context, rows, unreachable)
    if isinstance(unreachable, RefusedError):
        raise SystemExit(REFUSED)
    raise SystemExit(UNREACHABLE if unreachable else int(any(row["findings"] for row in rows)))


def _row(check: Any, look: Any) -> dict[str, Any]:
    """A check and what it found; what forbids it to look is a finding too."""
    try:
        found = [{"what": each.what, "why": each.why, "mend": each.mend} for each in check.find(look)]
    except OpsqError as error:
        found = [{"what": f"cannot look: {error.what}", "why": error.why or "", "mend": error.hint or ""}]
    return {"check": check.name, "looks_at": check.looks_at, "findings": found}


def _unreachable(look: Any) -> BrokerError | RefusedError | None:
    try:
        look.info  # noqa: B018 (read once, kept)
    except (BrokerError, RefusedError) as error:
        return error
    return None


def _bad(context: Context, name: str, what: str, why: str, mend: str) -> None:
    """A finding, for people."""
    context.out.sentence(f"{name}: {what}", "BAD   ")
    if why:
        context.out.sentence(why, "      why:    ")
    context.out.steps(mend, "      mend:   ", "      then:   ")


def _report(context: Context, rows: list[dict[str, Any]], unreachable: BrokerError | RefusedError | None) -> None:
    out = context.out
    trouble = {"what": unreachable.what, "why": unreachable.why, "hint": unreachable.hint} if unreachable else None
    if out.json:
        healthy = not (trouble or any(row["findings"] for row in rows))
        out.document({"healthy": healthy, "broker": trouble, "checks": rows})
        return
    if unreachable is not None:
        _bad(context, "broker", str(unreachable), "", unreachable.hint or "")
    for row in rows:
        for finding in row["findings"]:
            _bad(context, row["check"], finding["what"], finding["why"], finding["mend"])
    for row in rows:
        if not row["findings"]:
            out.line(f"ok    {row['check']}: {row['looks_at']}")
