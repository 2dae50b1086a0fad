"""Signature: a call of a task as data, to be sent later, linked to others, or passed on as JSON.

Workflows (chain, group, chord, ...) are signatures too. They know each other by `Signature.TYPES` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from opsq import _state
from opsq.canvas import stamping
from opsq.protocol import writing
from opsq.runtime.aside import aside
from opsq.utils.ids import new_task_id

Made = TypeVar("Made", bound="type[Signature]")

_SWITCHES: tuple[tuple[str, Any], ...] = (("subtask_type", None), ("immutable", False))


class _Item:
    """An attribute that is an item of the dictionary, or of one inside it."""

    def __init__(self, *path: str) -> None:
        self._path, self._name = path[:-1], path[-1]

    def __get__(self, sig: Any, owner: Any) -> Any:
        return self if sig is None else self._holder(sig).get(self._name)

    def __set__(self, sig: Any, value: Any) -> None:
        self._holder(sig)[self._name] = value

    def _holder(self, sig: Any) -> dict[str, Any]:
        for step in self._path:
            sig = dict.__getitem__(sig, step)
        holder: dict[str, Any] = sig
        return holder


class Signature(dict[str, Any]):
    """A call: task, arguments, options of `apply_async`. It is a dictionary, and that is what travels.

    Arguments given when it is sent go before its own, unless it is immutable.
    """

    #: Workflows by the name of their kind (`subtask_type`).
    TYPES: ClassVar[dict[str, Any]] = {}
    #: Options that are not changed when a call is sent: others count on them.
    _FIXED: ClassVar[frozenset[str]] = frozenset(("group_id", "stamped_headers"))

    _app: Any = None
    _type: Any = None

    task = _Item("task")
    args = _Item("args")
    kwargs = _Item("kwargs")
    options = _Item("options")
    subtask_type = _Item("subtask_type")
    immutable = _Item("immutable")
    id = _Item("options", "task_id")
    parent_id = _Item("options", "parent_id")
    root_id = _Item("options", "root_id")

    def __init__(
        self,
        task: Any = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **more: Any,
    ) -> None:
        """`task`: a task, its name, or a signature as plain data. What else is named are options."""
        self._app, self._type = app, type
        if not isinstance(task, str) and task is not None:
            if isinstance(task, Mapping):
                super().__init__(task)
                for name, empty in (("args", ()), ("kwargs", {}), ("options", {}), *_SWITCHES):
                    self.setdefault(name, empty)
                return
            self._type, task = task, task.name
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=kwargs if isinstance(kwargs, dict) else dict(kwargs or {}),
            options={**(options or {}), **more},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # -- kinds ------------------------------------------------------------------------------------------------------

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[Made], Made]:
        """A decorator that makes a class known as a kind of signature."""

        def register(kind: Made) -> Made:
            cls.TYPES[name or kind.__name__] = kind
            return kind

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """A signature of the right kind from plain data, such as JSON."""
        kind = Signature.TYPES.get(d.get("subtask_type") or "")
        if kind is not None and kind is not cls:
            made: Signature = kind.from_dict(d, app=app)
            return made
        return Signature(d, app=app)

    # -- calling ----------------------------------------------------------------------------------------------------

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Call the task here, as the function that it is."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Send it, with these arguments before its own."""
        return self.apply_async(partial_args, partial_kwargs)

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """`delay` for an event loop, which goes on meanwhile however long the broker takes."""
        return await self.aapply_async(partial_args, partial_kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """`apply_async` for an event loop."""
        return await aside(self.apply_async, args, kwargs, **options)

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here and wait."""
        args, kwargs, options = self._merge(args, kwargs, _said(options))
        return self.type.apply(args, kwargs, **options)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send it. Arguments go before its own, options win over its own."""
        args, kwargs, options = self._merge(args, kwargs, _said(options))
        return self._send(args, kwargs, **options)

    @property
    def _send(self) -> Callable[..., Any]:
        try:
            send: Callable[..., Any] = self.type.apply_async
        except KeyError:
            return partial(self.app.send_task, self["task"])
        return send

    def _merge(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Its own arguments and options together with others; `force`: although it is immutable."""
        own: dict[str, Any] = self["options"]
        if options:
            fixed = self._FIXED.union(own.get("stamped_headers") or ())
            own = {**own, **{name: value for name, value in options.items() if name not in fixed or name not in own}}
        if self["immutable"] and not force:
            return self["args"], self["kwargs"], own
        return (
            (*args, *self["args"]) if args else self["args"],
            {**self["kwargs"], **kwargs} if kwargs else self["kwargs"],
            own,
        )

    # -- copies -----------------------------------------------------------------------------------------------------

    def clone(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """A copy, with more arguments before its own, and other options."""
        args, kwargs, options = self._merge(args, kwargs, options)
        data = {
            "task": self["task"],
            "args": tuple(args),
            "kwargs": dict(kwargs),
            "options": {name: _copied(value) for name, value in options.items()},
            "subtask_type": self["subtask_type"],
            "immutable": self["immutable"],
        }
        made = Signature.from_dict(data, app=self._app)
        made._type = self._type
        return made

    partial = clone

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """A copy in which what is given stands in place of its own."""
        made = self.clone()
        for name, value in (("args", args), ("kwargs", kwargs), ("options", options)):
            if value is not None:
                made[name] = value
        return made

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give it an id before it is sent; returns its result. Sent twice it would be twice the same task."""
        options = self["options"]
        task_id = options.get("task_id")
        if task_id is None:
            task_id = options["task_id"] = _id or new_id()
        if root_id:
            options["root_id"] = root_id
        if parent_id:
            options["parent_id"] = parent_id
        options.setdefault("reply_to", writing.REPLY_TO)
        if group_id:
            options.setdefault("group_id", group_id)
        if chord:
            options["chord"] = chord
        if group_index is not None:
            options["group_index"] = group_index
        return self.AsyncResult(task_id)

    _freeze = freeze

    # -- options ----------------------------------------------------------------------------------------------------

    def set(self, immutable: bool | None = None, **options: Any) -> Any:
        """Set options of the call; returns itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self["options"].update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Whether arguments given when it is sent are left out."""
        self["immutable"] = immutable

    def link(self, callback: Any) -> Any:
        """Have a task called with the value when this one has succeeded; returns that task."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Have a task called when this one has failed; returns that task."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Any:
        """`link_error`, and returns this signature."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add to an option that is a list, unless it is there already; returns the value."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add all of a list, or one value, to an option that is a list."""
        self._list_option(key).extend(listed(value))

    def _list_option(self, key: str) -> list[Any]:
        items = self["options"].get(key)
        if not isinstance(items, list):
            items = self["options"][key] = listed(items)
        return items

    def flatten_links(self) -> list[Any]:
        """This signature, and all that are linked to it, to those, and so on."""
        found = [self]
        for linked in listed(self["options"].get("link")):
            found += maybe_signature(linked, app=self._app).flatten_links()
        return found

    # -- stamps -----------------------------------------------------------------------------------------------------

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on it and on what is linked to it; with a visitor it says which. Returns itself."""
        self.stamp_links(visitor, append_stamps, **headers)
        visited = None if visitor is None else visitor.on_signature(self, **headers) or {}
        return self.set(**stamping.merged(self["options"], headers, visited, append_stamps))

    def stamp_links(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """Put stamps on what is linked to it."""
        for option, visit in (("link", "on_callback"), ("link_error", "on_errback")):
            if self["options"].get(option) is None:
                continue
            items = self._list_option(option)
            items[:] = [maybe_signature(linked, app=self._app) for linked in items]
            for linked in items:
                visited = None if visitor is None else getattr(visitor, visit)(linked, **headers) or {}
                linked.stamp(visitor, append_stamps, **stamping.merged({}, headers, visited, append_stamps, own=False))

    # -- the rest ---------------------------------------------------------------------------------------------------

    def __or__(self, other: Any) -> Any:
        """`self | other`: a chain."""
        return (
            Signature.TYPES["chain"]([self, other], app=self._app) if isinstance(other, Signature) else NotImplemented
        )

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    def __invert__(self) -> Any:
        return self.apply_async().get()

    @property
    def name(self) -> str:
        """The name of the task."""
        return str(self["task"])

    @property
    def type(self) -> Any:
        """The task itself. Raises NotRegistered."""
        return self._type if self._type is not None else self.app.tasks[self["task"]]

    @property
    def app(self) -> Any:
        """The app that sends it."""
        return self._app if self._app is not None else _state.get_current_app()

    @property
    def AsyncResult(self) -> Callable[[str], Any]:
        """Makes the result of a call by its id."""
        try:
            made: Callable[[str], Any] = self.type.AsyncResult
        except KeyError:
            made = self.app.AsyncResult
        return made

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """The call as text, with these arguments before its own."""
        args, kwargs, _ = self._merge(args, kwargs, force=True)
        words = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{self['task']}({', '.join(words)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = memo[id(self)] = self.clone()
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)


def signature(varies: Any, *args: Any, **kwargs: Any) -> Any:
    """A signature of a task, of its name, or from plain data; of a signature a copy."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


subtask = signature


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Plain data becomes a signature; a signature stays what it is (or is copied), and None stays None."""
    if isinstance(d, Signature):
        d = d.clone() if clone else d
    elif isinstance(d, Mapping):
        d = Signature.from_dict(d, app=app)
    if d is not None and app is not None:
        d._app = app
    return d


maybe_subtask = maybe_signature


#: Makes a new id of a task or a group.
new_id = new_task_id


def listed(value: Any) -> list[Any]:
    """A list of what is one already, of one value, or of nothing."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set) else [value]


def signatures(tasks: Any, app: Any = None) -> list[Any]:
    """The signatures of an iterable, whatever they are written as."""
    return [maybe_signature(task, app=app if getattr(task, "_app", None) is None else None) for task in tasks]


def short_repr(first: Any, text: str) -> str:
    """A text of several calls in which the module of the first one's task is named once."""
    module, dot, _ = str(first["task"]).rpartition(".")
    head, found, rest = text.partition(f"{module}.")
    return f"{head}{found}{rest.replace(f'{module}.', '')}" if dot and found else text


def plain(value: Any) -> Any:
    """A signature and all that is in it as dictionaries and lists, which are written faster."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _copied(value: Any) -> Any:
    """A copy of an option's value: what may be changed in place is not shared."""
    if isinstance(value, Signature):
        return value.clone()
    if type(value) is dict:
        return {name: _copied(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return value
