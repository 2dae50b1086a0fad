"""`opsq join`: let an operator give orders to this machine, over his broker."""

from __future__ import annotations

import sys

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.exceptions import BrokerError, UsageError

EXAMPLES = """
opsq join opsq1-3q2-7wAAxyz
opsq join --file token
"""


@command(EXAMPLES)
@click.argument("token", required=False)
@click.option("--file", "path", metavar="FILE", type=click.Path(), help="Read the token from a private file.")
@pass_context
def join(context: Context, token: str | None, path: str | None) -> None:
    """Trust the operator who made TOKEN with `opsq hosts invite`, and serve his broker from now on.

    If the broker wants a password it is asked for, or read from standard input when nobody sits there.
    """
    from opsq.cli.commands.hosts import private_file
    from opsq.datastore.connection import client, errors
    from opsq.datastore.url import masked
    from opsq.hosts import joined
    from opsq.hosts.joined import Token
    from opsq.hosts.keyring import KeyRing

    if (token is None) == (path is None):
        raise UsageError("a token is missing" if token is None else "one token is enough", hint="opsq join --help")
    read = Token.parse(token if token is not None else private_file(path or ""))
    url = read.url(_password(masked(read.broker)) if read.needs_password else None)
    try:
        with errors(url):
            client(url).ping()
    except BrokerError as error:
        raise BrokerError(
            f"cannot join: {error.what}", why=error.why, hint="is that address right for this machine?"
        ) from None
    ring = KeyRing()
    joined.join(ring, read, url)
    if context.out.json:
        told = {"operator": read.name, "fingerprint": read.operator.fingerprint, "broker": masked(url)}
        context.out.document({"joined": told})
    context.out.say(f"joined {masked(url)}: this machine carries out orders of {read.name}")
    context.out.say(f"key: {read.operator.fingerprint}")
    context.out.say("an agent that runs here serves it within seconds; else: opsq agent, or opsq up")


def _password(broker: str) -> str:
    """The broker's password: typed unseen, or a line of standard input. Raises UsageError."""
    if sys.stdin.isatty():
        found: str = click.prompt(f"password of {broker}", hide_input=True, err=True)
        return found
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise UsageError(
            f"the password of {broker} is missing",
            why="nobody is here to type it, and standard input is empty",
            hint="opsq join TOKEN < FILE, or opsq hosts invite --file on the other side",
        )
    return line
