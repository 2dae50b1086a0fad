"""`opsq completion bash|zsh|fish`: the script with which Tab completes commands, options, programs, queues, …"""

from __future__ import annotations

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.cli.shells.tree import ASKED
from opsq.exceptions import UsageError

EXAMPLES = """
eval "$(opsq completion bash)"
opsq completion zsh
opsq completion fish
"""
SHELLS = ("bash", "zsh", "fish")


@command(EXAMPLES)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--words", "kind", type=click.Choice(ASKED), hidden=True, help="What the scripts ask for.")
@pass_context
def completion(context: Context, shell: str | None, kind: str | None) -> None:
    """Print the script for a shell; its first lines say where to put it."""
    if kind is not None:
        from opsq.cli.shells.words import words

        for word in words(context, kind):
            context.out.line(word)
    elif shell is None:
        raise UsageError("which shell?", hint=f"opsq completion {'|'.join(SHELLS)}")
    else:
        context.out.line(script(shell).rstrip("\n"))


def script(shell: str) -> str:
    """The script for one of the shells."""
    from importlib import import_module

    from opsq.cli.main import cli
    from opsq.cli.shells.tree import tree

    text: str = import_module(f"opsq.cli.shells.{shell}").script(tree(cli))
    return text
