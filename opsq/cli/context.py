"""What a command works with: the flags that all share; on demand the app, the broker, the state directory, the output.

The parts are imported when they are first asked for: commands that need no app must not pay for one.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsq.exceptions import UsageError
from opsq.project import find_django

if TYPE_CHECKING:
    from opsq.app.base import App
    from opsq.broker.broker import Broker
    from opsq.cli.output import Output
    from opsq.runtime.statedir import StateDir


class Context:
    """The flags of this command line, and what they lead to.

    `app`: one that exists already; `home`: the project's folder, where that is known whatever the current one is.
    """

    def __init__(self, app: App | None = None, home: Path | None = None) -> None:
        self.flags: dict[str, Any] = {}
        self._given, self._home = app, home

    def take(self, name: str, value: Any) -> None:
        """A flag that all commands share. Those that name places also hold for processes that are started."""
        if name in self.flags and self.flags[name] == value:
            return
        self.flags[name] = value
        if name == "workdir":
            _go_to(value)
        elif name == "state_dir":
            os.environ["OPSQ_STATE_DIR"] = os.path.abspath(value)
            os.environ.pop("OPSQ_KEYS_DIR", None)  # a supervisor's word for its programs: this one names a directory
        elif name == "config":
            if value.endswith((".toml", ".yaml", ".yml")):
                os.environ["OPSQ_CONFIG"] = os.path.abspath(value)
            else:
                os.environ["CELERY_CONFIG_MODULE"] = value

    @property
    def app_spec(self) -> str | None:
        """What `-A` says."""
        return self.flags.get("app")

    @property
    def quiet(self) -> bool:
        """Whether only data and errors are wanted."""
        return bool(self.flags.get("quiet"))

    @cached_property
    def loaded_app(self) -> App:
        """The app that is meant, as it is; opsq's own small one when none is named."""
        from opsq.app.discovery import find_app

        return self._given or find_app(self.app_spec)

    @cached_property
    def app(self) -> App:
        """The app that is meant, with the flags in its settings."""
        from opsq import signals

        app = self.loaded_app
        for flag, setting in (("broker", "broker_url"), ("result_backend", "result_backend")):
            if flag in self.flags:
                app.conf.put_flag(setting, self.flags[flag], f"--{flag.replace('_', '-')}")
        options = dict(self.flags)
        if app.user_options:
            from opsq.cli.user_options import PRELOAD, with_defaults

            options = with_defaults(app, PRELOAD, options)
        signals.user_preload_options.send(None, app=app, options=options)
        return app

    @property
    def broker(self) -> Broker:
        """The broker of the app."""
        return self.app.broker

    def queue_names(self, only: str | None = None) -> list[str]:
        """This queue alone, else all that were ever used and those of the app."""
        from opsq.broker.depths import known

        return [only] if only else known(self.broker, self.app.queues())

    @cached_property
    def broker_address(self) -> tuple[str, str, dict[str, Any]]:
        """The broker's URL, the prefix of its keys, and what is said of priorities (transport options).

        Where no app is named, none is loaded to find them.
        """
        if self._given is not None or self._names_an_app():
            return self.broker.url, self.broker.key_prefix, self.broker.priorities.to_options()
        return self.configured_address()

    @property
    def names_a_broker(self) -> bool:
        """Whether a flag or the environment says which broker is meant."""
        return "broker" in self.flags or bool({"OPSQ_BROKER_URL", "CELERY_BROKER_URL"} & {*os.environ})

    def configured_address(self) -> tuple[str, str, dict[str, Any]]:
        """What flags, environment and the project's file say of the broker, else the private one; loads no app."""
        from opsq.app.home import private_redis, project_settings
        from opsq.config.broker import resolve_broker
        from opsq.config.settings import Settings
        from opsq.datastore.keys import prefix_of
        from opsq.datastore.priorities import Priorities

        settings = Settings(lambda: project_settings(None))
        if "broker" in self.flags:
            settings.put_flag("broker_url", self.flags["broker"], "--broker")
        url = resolve_broker(settings, private_redis).url
        assert url is not None
        told = settings["broker_transport_options"]
        return url, prefix_of(told), Priorities.of(told).to_options()

    def _names_an_app(self) -> bool:
        """Whether anything here may name an app."""
        from opsq.config import toml_file

        if self.app_spec or {"OPSQ_APP", "CELERY_CONFIG_MODULE"} & {*os.environ} or find_django(Path.cwd()):
            return True
        path = toml_file.find(os.getcwd())
        return path is not None and toml_file.load(path).app is not None

    @cached_property
    def state_dir(self) -> StateDir:
        """The state directory of this project."""
        from opsq.runtime.statedir import find

        return find(self.flags.get("state_dir"), start=self._home)

    @cached_property
    def out(self) -> Output:
        """Where data and talk go."""
        from opsq.cli.output import Output

        flags = self.flags
        return Output(
            json=bool(flags.get("json")),
            plain=bool(flags.get("plain")),
            color=not flags.get("no_color"),
            quiet=self.quiet,
        )


def _go_to(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(f"cannot work in {folder}", why=(error.strerror or str(error)).lower()) from None


pass_context = click.make_pass_decorator(Context, ensure=True)
