"""Settings: layers looked through from top to bottom; each value knows where it came from."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from opsq.config.names import BY_NAME, canonical, sort_out
from opsq.config.sources import PLACES, Layer, all_from_environment, from_environment, warn_of_typing_errors

#: Settings whose default is the value of another one.
FOLLOWS = {"task_default_exchange": "task_default_queue", "task_default_routing_key": "task_default_queue"}
#: Defaults of who signs with a shared key.
WITH_SHARED_KEY = {"task_serializer": "signed", "result_serializer": "signed", "accept_content": ("signed",)}
DEFAULT = "default"


class Settings(MutableMapping[str, Any]):
    """All settings of an app by attribute or item, under their new names, their old ones, or with the namespace.

    Flags win over the environment, that over what the program sets, that over its configuration object, that over
    `opsq.toml`, that over defaults added by the program, and these over the table. What has to be imported or read
    from a file is read when a value is first asked for (`load`), so that it may be set up after the app.
    """

    _flags: dict[str, tuple[Any, str]]
    _changes: dict[str, tuple[Any, str]]
    _layers: list[Layer]
    _environment: dict[str, tuple[Any, str]]
    _merged: dict[str, tuple[Any, str]] | None
    _cached: set[str]

    #: Grows with each change; who keeps values compares it.
    version: int
    #: Prefix of names in a shared namespace: with "CELERY", `CELERY_TASK_SERIALIZER` is `task_serializer`.
    namespace: str | None

    def __init__(
        self,
        load: Callable[[], list[Layer]] = list,
        namespace: str | None = None,
        when_loaded: Callable[[], None] = lambda: None,
    ) -> None:
        hidden = vars(self)
        hidden.update(_flags={}, _changes={}, _layers=[], _merged=None, _default_values={}, _cached=set())
        hidden.update(_environment={})
        hidden.update(_load=load, _when_loaded=when_loaded, _loaded=False, _lock=threading.RLock())
        hidden.update(version=0, namespace=namespace)

    def __getitem__(self, name: str) -> Any:
        return self._find(name)[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            value = self._find(name)[0]
        except KeyError:
            raise AttributeError(f"there is no setting {name!r}") from None
        if canonical(name, self.namespace) not in PLACES:  # from now on an attribute, until something changes
            self._cached.add(name)
            vars(self)[name] = value
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self.put(name, value, "set in code")

    def __setattr__(self, name: str, value: Any) -> None:
        self.put(name, value, "set in code")

    def __delitem__(self, name: str) -> None:
        del self._changes[canonical(name, self.namespace) or name]
        self._changed()

    def __iter__(self) -> Iterator[str]:
        yield from BY_NAME
        yield from (name for name in self._merge() if name not in BY_NAME)

    def __len__(self) -> int:
        return sum(1 for _name in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (canonical(name, self.namespace) or name) in (*BY_NAME, *self._merge())

    def __repr__(self) -> str:
        return f"<Settings: {', '.join(sorted(self.changed()))}>"

    def update(self, *given: Any, **more: Any) -> None:
        """Set several values. Raises ImproperlyConfigured when two names give one setting different values."""
        values = dict(*given, **more)
        sort_out(values, self.namespace, "what is set in code")
        for name, value in values.items():
            self[name] = value

    def put(self, name: str, value: Any, source: str) -> None:
        """Set a value and say where it comes from. Loads nothing."""
        setting = canonical(name, self.namespace)
        if setting is None:
            warn_of_typing_errors({name: value}, source)
        self._changes[setting or name] = value, source
        self._changed()

    def put_flag(self, name: str, value: Any, flag: str) -> None:
        """Set a value from the command line: it wins over everything."""
        self._flags[name] = value, flag
        self._changed()

    def reload(self, load: Callable[[], list[Layer]], namespace: str | None = None) -> None:
        """Read the configuration anew from elsewhere, when a value is next asked for; what was set stays."""
        vars(self).update(_load=load, _loaded=False, _layers=[], namespace=namespace)
        self._changed()

    def add_layer(self, layer: Layer) -> None:
        """Add defaults of the program's own below everything but the table's."""
        self._layers.append(layer)
        self._changed()

    @property
    def is_loaded(self) -> bool:
        """Whether what has to be read was read."""
        return bool(self._loaded)

    def load(self) -> None:
        """Read what has to be read, once."""
        with self._lock:
            if not self._loaded:
                vars(self).update(_loaded=True)  # what is imported now may itself ask for settings
                try:
                    vars(self).update(_environment=all_from_environment())
                    self._layers[:0] = self._load()
                except BaseException:
                    vars(self).update(_loaded=False)
                    raise
                self._changed()
                self._when_loaded()

    def source_of(self, name: str) -> str:
        """Where the value of a setting comes from, in words."""
        return self._find(name)[1]

    def changed(self) -> dict[str, Any]:
        """All values that are not the table's defaults."""
        self.load()
        names = [*self._merge(), *(name for name in PLACES if from_environment(name))]
        return {name: self[name] for name in names}

    without_defaults = changed

    def set_by_program(self, name: str) -> bool:
        """Whether the program itself (its code or its configuration object) sets this; not its surroundings."""
        self.load()
        return name in self._changes or any(name in layer.values for layer in self._layers if not layer.outside)

    def first(self, *names: str) -> Any:
        """The first of these settings that is not None."""
        return next((value for name in names if (value := self.get(name)) is not None), None)

    def _find(self, name: str) -> tuple[Any, str]:
        if not self._loaded:
            self.load()
        setting = canonical(name, self.namespace) or name
        if setting in PLACES and setting not in self._flags and (found := from_environment(setting)):
            return found[0], f"environment {found[1]}"
        merged = self._merge()
        if setting in merged:
            return merged[setting]
        if setting in FOLLOWS:
            return self._find(FOLLOWS[setting])[0], DEFAULT
        if setting in WITH_SHARED_KEY and self._find("security_shared_key")[0]:
            return WITH_SHARED_KEY[setting], "security_shared_key"
        return self._default_of(setting), DEFAULT

    def _default_of(self, setting: str) -> Any:
        """The table's default; a mutable one is this app's own."""
        value = BY_NAME[setting].default
        if isinstance(value, list | dict):
            return self._default_values.setdefault(setting, copy.deepcopy(value))
        return value

    def _merge(self) -> dict[str, tuple[Any, str]]:
        merged = self._merged
        if merged is None:
            merged = {}
            for layer in reversed(self._layers):
                for values in (layer.others, layer.values):
                    merged.update({name: (value, layer.source) for name, value in values.items()})
            merged.update(self._changes)
            merged.update(self._environment)
            merged.update(self._flags)
            for setting in [name for name in FOLLOWS if name in merged and merged[name][0] is None]:
                del merged[setting]
            vars(self)["_merged"] = merged
        return merged

    def _changed(self) -> None:
        hidden = vars(self)
        while self._cached:
            hidden.pop(self._cached.pop(), None)
        hidden.update(_merged=None, version=self.version + 1)
