"""Classes of results that belong to one app: `app.AsyncResult` and its like are classes, as in Celery."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from opsq import _state

Kind = TypeVar("Kind", bound="type[OfApp]")


class OfApp:
    """What belongs to an app: the one that it is told, else that of its class, else the current one."""

    #: The app whose class of results this is.
    own_app: ClassVar[Any] = None


def app_for(kind: type[OfApp], app: Any) -> Any:
    """The app of a result that is made, or looked up, with this class and this argument."""
    if app is not None:
        return app
    return kind.own_app if kind.own_app is not None else _state.get_current_app()


def belonging(kind: Kind, app: Any) -> Kind:
    """A class like this one whose results are of an app."""
    members = {"own_app": app, "__module__": kind.__module__, "__doc__": kind.__doc__}
    made: Any = type(kind.__name__, (kind,), members)
    return made  # type: ignore[no-any-return]


def plain(kind: type[Any]) -> type[Any]:
    """The class that can be imported: what a pickle names."""
    return next(base for base in kind.__mro__ if getattr(base, "own_app", None) is None)
