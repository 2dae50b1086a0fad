"""`opsq agent`: this host's agent in the foreground. It loads no app."""

from __future__ import annotations

from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.foreground import change_process, log_level, pidfile, process_options, refuse_to_detach
from opsq.cli.frame import Command
from opsq.cli.params import names

EXAMPLES = """
opsq agent -l info
opsq agent --name web01 --tag web --tag eu
opsq agent --broker rediss://redis.example:6379/0
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.option("--name", metavar="NAME", help="By which name this host goes; default: its host name.")
@click.option(
    "--tag",
    "--tags",
    "tags",
    multiple=True,
    callback=names,
    metavar="TAG",
    help="A group it is in (@TAG); several times.",
)
@click.option(
    "--slots", type=click.IntRange(1, 1000), default=8, metavar="N", show_default=True, help="Commands at a time."
)
@click.option("--lease", type=click.FloatRange(1.5, 600), default=15.0, metavar="S", help="Gone after S seconds; 15.")
@click.option("--stop-wait", type=click.FloatRange(0), default=20.0, metavar="S", help="Let commands end for S; 20.")
@process_options
@pass_context
def agent(context: Context, /, **given: Any) -> None:
    """Take signed orders for this host, run them, and answer.

    It serves the broker of this folder and those that were joined. SIGTERM or Ctrl-C stop it when what runs has ended,
    a second one at once; SIGHUP looks for brokers that were joined since.
    """
    refuse_to_detach("agent", given["detach"])
    change_process(given)
    from opsq.hosts.agent import Agent, Wishes
    from opsq.hosts.facts import host_name
    from opsq.hosts.keyring import KeyRing
    from opsq.runtime import logs

    logs.set_up(log_level(given), as_json=given["log_format"] == "json", logfile=given["logfile"])
    wishes = Wishes(
        name=host_name(given["name"]),
        broker=own_broker(context),
        tags=given["tags"],
        slots=given["slots"],
        lease_s=given["lease"],
        stop_wait_s=given["stop_wait"],
    )
    with pidfile(given["pidfile"]):
        Agent(KeyRing(), wishes).run()


def own_broker(context: Context) -> str | None:
    """The broker that flags, environment, `opsq.toml` or a private Redis name here; the app's code is not asked."""
    from opsq.app.home import private_redis, project_settings
    from opsq.config.broker import configured_broker
    from opsq.config.settings import Settings

    settings = Settings(lambda: project_settings(None))
    if "broker" in context.flags:
        settings.put_flag("broker_url", context.flags["broker"], "--broker")
    return configured_broker(settings).url or private_redis()
