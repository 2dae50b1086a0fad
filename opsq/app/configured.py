"""What an app knows of its surroundings: its settings, where its broker and its results are, what time it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from opsq import _state
from opsq.app import home, security
from opsq.app.blame import broken
from opsq.app.declared import DeclaredQueues
from opsq.app.own_settings import AppSettings
from opsq.backends import polled
from opsq.backends.base import Backend
from opsq.backends.disabled import DisabledBackend
from opsq.backends.redis import RedisBackend
from opsq.broker.broker import Broker
from opsq.config import sources
from opsq.config.broker import Found, class_of_results, resolve_broker, resolve_results
from opsq.exceptions import ImproperlyConfigured, OpsqError
from opsq.signals import Signal
from opsq.utils.time import local_zone

#: Celery's parameters that name classes of its own parts, which are not made to be exchanged here.
NOT_SETTINGS = frozenset(("loader", "amqp", "events", "log", "control", "fixups", "config_source_silent"))


def _named(source: Any) -> str:
    """Where settings come from, in words."""
    if isinstance(source, str) and source.startswith("django.conf:"):
        return f"{os.environ.get('DJANGO_SETTINGS_MODULE')!r} (DJANGO_SETTINGS_MODULE)"
    return repr(source) if isinstance(source, str) else f"a {type(source).__name__}"


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ImproperlyConfigured(f"cannot use timezone = {name!r}", why="there is no such time zone") from None


class Configured:
    """The part of an app that is settings and what follows from them."""

    def __init__(self, config_source: Any, namespace: str | None, given: Mapping[str, Any]) -> None:
        """`given`: settings that the program passes; None says nothing."""
        self.home = home.home_of(home.caller_outside())
        self.on_configure = Signal(name="app.on_configure")
        self.on_after_configure = Signal(("source",), name="app.on_after_configure")
        self._config_source, self._config_silent = config_source, False
        self._declared: tuple[int, DeclaredQueues | None] = (0, None)
        #: Names of queues that are declared besides those of `task_queues`.
        self.more_queues: Callable[[], Iterable[str]] = tuple
        self.conf = AppSettings(self._load_settings, namespace, self._settings_are_loaded)
        for name, value in given.items():
            if value is not None and name not in NOT_SETTINGS:
                self.conf.put(name, value, f"{type(self).__name__}(...)")

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read settings from a module, an object, a mapping, or the name of one, when they are first needed.

        `namespace`: only names that begin with it (`CELERY_...`). `silent`: it need not exist.
        """
        self._config_source, self._config_silent = obj, silent
        self.conf.reload(self._load_settings, namespace or self.conf.namespace)
        if force:
            self.conf.load()

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """Read settings from the module that a variable of the environment names."""
        name = os.environ.get(variable_name)
        if name:
            self.config_from_object(name, silent=silent, force=force)
        elif not silent:
            raise ImproperlyConfigured(f"cannot configure the app from {variable_name}", why="the variable is not set")
        return bool(name)

    def setup_security(
        self,
        allowed_serializers: Iterable[str] | None = None,
        key: str | None = None,
        key_password: bytes | None = None,
        cert: str | None = None,
        store: str | None = None,
        digest: str = "sha256",
        serializer: str = "json",
    ) -> None:
        """Sign messages with Celery's serializer `auth`, and read no others; in all apps of this process.

        `key`, `cert`: PEM files; `store`: a folder of certificates, or a glob; `serializer`: of what is signed. What is
        not given is as the settings `security_*` say, but for the digest, as in Celery. Raises ImproperlyConfigured,
        SecurityError.
        """
        security.setup_security(self, allowed_serializers, key, key_password, cert, store, digest, serializer)

    def add_defaults(self, defaults: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add defaults of the program's own: they count less than everything that is configured."""
        self.conf.add_layer(sources.from_object(defaults() if callable(defaults) else defaults))

    def _load_settings(self) -> list[sources.Layer]:
        self.on_configure.send(self)
        layers = []
        source = self._config_source or os.environ.get("CELERY_CONFIG_MODULE")
        if source is not None:
            try:
                layers.append(sources.from_object(source, self.conf.namespace))
            except ImproperlyConfigured:
                if not self._config_silent:
                    raise
            except OpsqError:
                raise
            except (Exception, SystemExit) as error:  # a framework's settings are imported when they are looked at
                raise broken(f"cannot read the settings of {_named(source)}", error) from error
        return layers + home.project_settings(self.home)

    def _settings_are_loaded(self) -> None:
        self.on_after_configure.send(self, source=self.conf)

    def now(self) -> datetime:
        """Now, in the app's time zone."""
        return datetime.fromtimestamp(_state.broker_time(), self.timezone)

    @property
    def timezone(self) -> tzinfo:
        """The zone of naive times: `timezone`, else UTC, or the machine's zone with `enable_utc = False`."""
        zone = self.conf.timezone
        if zone:
            return _zone(zone) if isinstance(zone, str) else zone
        return UTC if self.conf.enable_utc else local_zone()

    # -- where things are -------------------------------------------------------------------------------------------

    def find_broker(self) -> Found:
        """The broker's URL and who named it. Raises BrokerError when there is none."""
        return home.reachable(resolve_broker(self.conf, lambda: home.private_redis(self.home)))

    def find_results(self) -> Found:
        """Where results go (no URL: nowhere), and who said so."""
        return home.reachable(resolve_results(self.conf, self.find_broker))

    @cached_property
    def broker(self) -> Broker:
        """The producers' side of the broker."""
        security.use_shared_key(self.conf)
        url = self.find_broker().url
        assert url is not None
        told = self.conf.broker_transport_options
        return Broker.of(url, told, lambda: self.declared)

    @property
    def declared(self) -> DeclaredQueues:
        """The queues that it declares, as its settings are now."""
        version, found = self._declared
        if found is None or version != self.conf.version:
            self.conf.load()
            found = DeclaredQueues(self.conf, self.more_queues())
            self._declared = self.conf.version, found
        return found

    @cached_property
    def backend(self) -> Any:
        """Where results are kept: a `Backend`, with what its kind has besides (which one, a setting says)."""
        return self._place_of_results()

    def _place_of_results(self) -> Backend:
        security.use_shared_key(self.conf)
        url = self.find_results().url
        if url is None:
            return DisabledBackend(self)
        name = class_of_results(url)
        return RedisBackend.of(url, self.conf) if name is None else polled.of_a_program(name, self)

    def queues(self) -> list[str]:
        """The queues that a worker consumes unless it is told others; of broadcasts it has one of its own."""
        return [name for name, queue in self.declared.by_name.items() if not queue.is_broadcast]
