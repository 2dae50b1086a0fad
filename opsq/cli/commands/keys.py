"""`opsq keys`: the keys of this machine's user, and whose orders this host carries out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.cli.output import Column
from opsq.cli.params import confirm_options, confirmed, limit_option, limited
from opsq.exceptions import UsageError

if TYPE_CHECKING:
    from opsq.hosts.keyring import KeyRing
    from opsq.protocol.signing import PublicKey

COLUMNS = (
    Column("role", "ROLE"),
    Column("name", "NAME", cut="end"),
    Column("fingerprint", "FINGERPRINT"),
    Column("path", "FILE", cut="start", extra=True),
)
EXAMPLES = """
opsq keys
opsq keys fingerprint
opsq keys trust alice.pub --name alice
opsq keys revoke alice
"""


@group(EXAMPLES, invoke_without_command=True)
@limit_option
@click.pass_context
@pass_context
def keys(context: Context, ctx: click.Context, limit: int) -> None:
    """The keys of this machine's user: its own as operator and as host, those it trusts with orders, those revoked."""
    if ctx.invoked_subcommand is not None:
        return
    rows = _rows(_ring())
    context.out.table("keys", COLUMNS, limited(rows, limit), total=len(rows))


def _ring() -> KeyRing:
    from opsq.hosts.keyring import KeyRing

    ring = KeyRing()
    ring.ensure()
    return ring


def _rows(ring: KeyRing) -> list[dict[str, Any]]:
    from opsq.hosts import policy
    from opsq.hosts.keyring import HOST, OPERATOR

    rows = []
    for role in (OPERATOR, HOST):
        path = ring.root / f"{role}.pub"
        words = path.read_text().split(None, 2)
        rows.append(_row(role, words[2].strip() if len(words) > 2 else "", ring.public(role), path))
    own = ring.public(OPERATOR).id
    revoked = {key.id: (key, comment) for key, comment in policy.revoked(ring)}
    for trusted in policy.trusted(ring):
        if trusted.key.id != own and trusted.key.id not in revoked:
            rows.append(_row("trusted", trusted.name, trusted.key, ring.allowed_signers))
    rows += [_row("revoked", comment, key, ring.revoked_keys) for key, comment in revoked.values()]
    return rows


def _row(role: str, name: str, key: PublicKey, path: Path) -> dict[str, Any]:
    return {"role": role, "name": name, "fingerprint": key.fingerprint, "path": str(path)}


@keys.command(examples="opsq keys fingerprint", short_help="The fingerprints of operator and host.")
@pass_context
def fingerprint(context: Context) -> None:
    """The fingerprints of this user's operator key and of this host's key, to be compared by eye or by voice."""
    from opsq.hosts.keyring import HOST, OPERATOR

    ring = _ring()
    found = {role: ring.public(role).fingerprint for role in (OPERATOR, HOST)}
    context.out.document(found) if context.out.json else context.out.facts(found.items())


TRUST_EXAMPLES = """
opsq keys trust alice.pub --name alice
opsq keys trust - --name alice < alice.pub
"""


@keys.command(examples=TRUST_EXAMPLES, short_help="Carry out orders of one more operator.")
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("--name", metavar="NAME", help="By which name; default: the key's comment.")
@pass_context
def trust(context: Context, path: str, name: str | None) -> None:
    """Carry out orders of the operator whose public key is in FILE (- is standard input); it holds at once."""
    from opsq.hosts import policy
    from opsq.protocol.signing import KeyFormatError, PublicKey

    try:
        with click.open_file(path) as file:
            line = next((line for line in file if line.strip()), "")
        key = PublicKey.parse(line)
    except (KeyFormatError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot trust {path}", why=str(error), hint="it must be a .pub file of ed25519") from None
    comment = "".join(line.split()[2:3])
    principal = name or comment or key.fingerprint
    if not principal.isprintable() or len(principal.split()) != 1 or set('"#,*?!') & set(principal):
        raise UsageError(f"{principal!r} is no name for an operator", hint="--name NAME, one word")
    policy.trust(_ring(), principal, key)
    if context.out.json:
        context.out.document({"trusted": {"name": principal, "fingerprint": key.fingerprint}})
    context.out.say(f"this host carries out orders of {principal} ({key.fingerprint})")


REVOKE_EXAMPLES = """
opsq keys revoke alice
opsq keys revoke SHA256:Zm9vYmFy --yes
"""


@keys.command(examples=REVOKE_EXAMPLES, short_help="Carry out no orders of an operator any more.")
@click.argument("which", metavar="NAME|FINGERPRINT|FILE")
@confirm_options
@pass_context
def revoke(context: Context, which: str, yes: bool, dry_run: bool) -> None:
    """Carry out no orders any more that this key has signed, whatever else is said; it holds at once, on this host."""
    from opsq.hosts import policy

    ring = _ring()
    name, key = _find(ring, which)
    if dry_run:
        context.out.say(f"would revoke {name} ({key.fingerprint})")
    elif confirmed(f"revoke {name} ({key.fingerprint})?", yes):
        policy.revoke(ring, key, name)
        context.out.say(f"revoked: {name} ({key.fingerprint})")
    if context.out.json:
        context.out.document({"revoked": {"name": name, "fingerprint": key.fingerprint}})


def _find(ring: KeyRing, which: str) -> tuple[str, PublicKey]:
    """The operator that is meant. Raises UsageError."""
    from opsq.hosts import policy
    from opsq.protocol.signing import KeyFormatError, PublicKey

    if Path(which).is_file():
        try:
            words = Path(which).read_text().split("\n", 1)[0]
            return "".join(words.split()[2:3]) or which, PublicKey.parse(words)
        except (KeyFormatError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot revoke {which}", why=str(error)) from None
    found = {each.key.id: each for each in policy.trusted(ring) if which in (each.name, each.key.fingerprint)}
    if not found:
        raise UsageError(f"nobody is trusted under {which}", hint="opsq keys lists them")
    if len(found) > 1:
        raise UsageError(f"several keys go by {which}", hint="say which by the fingerprint: opsq keys")
    one = next(iter(found.values()))
    return ("".join(one.name.split()) if " " not in one.name else "operator"), one.key
