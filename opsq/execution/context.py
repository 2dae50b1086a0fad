"""What a running task is told about itself: `self.request`.

Celery's attributes by name; every header of the message is one too, and `properties` are those of the message.
"""

from __future__ import annotations

from typing import Any

from opsq.protocol.envelope import Envelope

#: What a request says when no task runs, or a message does not.
DEFAULTS: dict[str, Any] = {
    "args": None,
    "callbacks": None,
    "called_directly": True,
    "chain": None,
    "children": None,
    "chord": None,
    "correlation_id": None,
    "delivery_info": None,
    "errbacks": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "headers": None,
    "hostname": None,
    "id": None,
    "ignore_result": False,
    "is_eager": False,
    "kwargs": None,
    "lang": "py",
    "logfile": None,
    "loglevel": None,
    "origin": None,
    "parent_id": None,
    "properties": None,
    "replaced_task_nesting": 0,
    "reply_to": None,
    "retries": 0,
    "root_id": None,
    "shadow": None,
    "stamped_headers": None,
    "stamps": None,
    "task": None,
    "timelimit": None,
    "utc": None,
}
#: What was read of a message when it came.
_IN_HEADERS = frozenset(("retries", "root_id", "task"))
#: What programs find in the `__dict__` of a running task's request, whatever its message says.
_ALWAYS = ("callbacks", "chain", "chord", "errbacks", "is_eager")
#: Headers of every message: what else there is, are the caller's own.
_OF_THE_PROTOCOL = DEFAULTS.keys() - {"headers"} | {"argsrepr", "kwargsrepr", "compression", "redelivered"}


class _Values:
    """What holds attributes as any object does."""


_dict_of: Any = vars(_Values)["__dict__"]
#: The attributes of an object as they are.
_values = _dict_of.__get__
_new = object.__new__


class Context(_Values):
    """One run of a task. Attributes that need the whole message read it when they are first asked for.

    So does `__dict__`: programs take `request.__dict__["properties"]` out of it.
    """

    #: The task itself; `task` is its name.
    task_object: Any = None
    envelope: Envelope | None = None
    id: Any
    args: Any
    kwargs: Any
    hostname: Any
    group: Any
    parent_id: Any
    ignore_result: Any
    called_directly: Any

    def __init__(self, **values: Any) -> None:
        _values(self).update(values)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """Every attribute there is, with all that the message says."""
        known: dict[str, Any] = _values(self)
        envelope = known.get("envelope")
        if envelope is not None and "properties" not in known:
            self._read_all(envelope)
        if not known.get("called_directly", True):
            for name in _ALWAYS:
                known.setdefault(name, DEFAULTS[name])
        return known

    @classmethod
    def of(cls, envelope: Envelope, task: Any, hostname: str, args: Any = None, kwargs: Any = None) -> Context:
        """The request of a message that is about to run."""
        self = _new(cls)
        self.envelope, self.task_object, self.hostname = envelope, task, hostname
        headers = envelope.headers
        self.id, self.group, self.parent_id = headers.id, headers.group, headers.parent_id
        self.ignore_result = headers.ignore_result
        self.args, self.kwargs, self.called_directly = args, kwargs, False
        return self

    @property
    def time_limit(self) -> float | None:
        """The hard time limit that the call was given (seconds)."""
        return self.timelimit[0] if self.timelimit else None

    @property
    def soft_time_limit(self) -> float | None:
        """The soft time limit that the call was given (seconds)."""
        return self.timelimit[1] if self.timelimit else None

    def __getattr__(self, name: str) -> Any:
        """Whatever is not there yet: from the message (all of it, once), else the default."""
        if name.startswith("__"):
            raise AttributeError(name)
        known = _values(self)
        envelope = known.get("envelope")
        if envelope is not None and "properties" not in known:
            if name in _IN_HEADERS:
                known[name] = getattr(envelope.headers, name) or DEFAULTS[name]
            else:
                self._read_all(envelope)
            if name in known:
                return known[name]
        if name in DEFAULTS:
            return DEFAULTS[name]
        raise AttributeError(f"the request has no {name!r}")

    def _read_all(self, envelope: Envelope) -> None:
        message = envelope.everything()
        headers, properties = dict(message.get("headers") or {}), dict(message.get("properties") or {})
        info = dict(properties.get("delivery_info") or {})
        info.update(
            priority=properties.get("priority"), redelivered=bool(info.get("redelivered") or headers.get("redelivered"))
        )
        if envelope.headers.deliveries:
            info["redelivered"] = True
        found = {
            **headers,
            "headers": {name: value for name, value in headers.items() if name not in _OF_THE_PROTOCOL} or None,
            "correlation_id": properties.get("correlation_id"),
            "reply_to": properties.get("reply_to"),
            "delivery_info": info,
            "properties": properties,
        }
        known = _values(self)
        for name, value in found.items():
            known.setdefault(name, value)
        known["retries"] = known.get("retries") or 0

    def as_execution_options(self) -> dict[str, Any]:
        """What `apply_async` has to be given for this very call to be made again: same id and lineage."""
        stamped = self.stamped_headers
        stamps = {"stamped_headers": stamped} if stamped is not None and self.stamps is not None else {}
        return {
            **{name: self.get(name) for name in ("root_id", "parent_id", "group_index", "shadow", "chord", "chain")},
            **{name: self.get(name) for name in ("expires", "retries", "reply_to", "origin")},
            "headers": dict(self.headers or {}),
            "replaced_task_nesting": self.replaced_task_nesting,
            "task_id": self.id,
            "group_id": self.group,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "soft_time_limit": self.soft_time_limit,
            "time_limit": self.time_limit,
            **stamps,
            **{name: value for name, value in (self.stamps or {}).items() if name in (stamped or ())},
        }

    def at_hand(self) -> dict[str, Any]:
        """The attributes that are known without reading the whole message."""
        found: dict[str, Any] = _values(self)
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute by name, or the default."""
        return getattr(self, key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set attributes."""
        _values(self).update(*args, **kwargs)

    def clear(self) -> None:
        """Forget all attributes."""
        _values(self).clear()

    def __repr__(self) -> str:
        return f"<Context: {_values(self).get('id')}>"
