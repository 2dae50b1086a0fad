"""xmap, xstarmap and chunks: one task called for each item of a list, in one message or in several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from opsq.canvas.signatures import Signature, maybe_signature


class _ForItems(Signature):
    """A call of a built-in task that is about another one and a list of items."""

    _task_name: ClassVar[str]

    def _hold(self, task: Any, it: Iterable[Any], options: dict[str, Any], **more: Any) -> None:
        """`task`: a signature of it, or the task."""
        app = options.pop("app", None)
        task = maybe_signature(task, app=app) if isinstance(task, Mapping) else Signature(task, app=app)
        held = {"task": task, "it": list(it), **more}
        super().__init__(self._task_name, (), held, options, immutable=True, app=app)

    @property
    def app(self) -> Any:
        """The app that sends it: its own, or that of its task."""
        return self._app if self._app is not None else self["kwargs"]["task"].app

    def clone(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """A copy, with other options. It is of its kind again; on the wire it says none, as Celery's."""
        made: Any = Signature.__new__(self.__class__)
        made.update(super().clone(args, kwargs, **options))
        made._app, made._type = self._app, self._type
        return made


class _Map(_ForItems):
    """The task is called for each item, one after the other, by one task."""

    _shown: ClassVar[str]

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        """`task`: a signature of it, or the task."""
        self._hold(task, it, options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> _Map:
        """From plain data."""
        return cls(d["kwargs"]["task"], d["kwargs"]["it"], app=app, **d["options"])

    def apply_async(
        self,
        args: Sequence[Any] | None = None,  # noqa: ARG002 (it is immutable)
        kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002
        **options: Any,
    ) -> Any:
        """Send it, to where its task would go."""
        route = options.pop("route_name", None) or self["kwargs"]["task"]["task"]
        return super().apply_async(route_name=route, **options)

    def __repr__(self) -> str:
        items = repr(self["kwargs"]["it"])
        items = items if len(items) <= 100 else f"{items[:97]}..."
        return f"[{self['kwargs']['task']['task']}({self._shown}) for x in {items}]"


@Signature.register_type()
class xmap(_Map):
    """`xmap(task, items)`: the values of `task(item)` for each item, as one task."""

    _task_name = "celery.map"
    _shown = "x"


@Signature.register_type()
class xstarmap(_Map):
    """`xstarmap(task, items)`: the values of `task(*item)` for each item, as one task."""

    _task_name = "celery.starmap"
    _shown = "*x"


@Signature.register_type()
class chunks(_ForItems):
    """`chunks(task, items, n)`: a group of tasks, each of which calls `task(*item)` for n of the items."""

    _task_name = "celery.chunks"

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        self._hold(task, it, options, n=n)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> chunks:
        """From plain data."""
        held = d["kwargs"]
        return cls(held["task"], held["it"], held["n"], app=app, **d["options"])

    def __call__(self, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(**options)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send all of them; returns the result of the group."""
        route = options.pop("route_name", None) or self["kwargs"]["task"]["task"]
        return self.group().apply_async(args, kwargs, route_name=route, **options)

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run all of them here."""
        return self.group().apply(args, kwargs, **options)

    def group(self) -> Any:
        """The group that it stands for."""
        task, items, n = (self["kwargs"][name] for name in ("task", "it", "n"))
        parts = [xstarmap(task, items[start : start + n], app=self._app) for start in range(0, len(items), n)]
        return Signature.TYPES["group"](parts, app=self._app)

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Any = None) -> Any:
        """Send it at once."""
        return cls(task, it, n, app=app)()
