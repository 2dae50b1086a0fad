"""Tasks with `pydantic=True`: arguments that are annotated with models arrive as models, and models travel as data."""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any

from opsq.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from opsq.app.base import App


class Models:
    """The models in the signature of a task's function, and what is made of arguments and of the value by them."""

    def __init__(
        self,
        app: App,
        name: str,
        function: Callable[..., Any],
        strict: bool = False,
        context: Mapping[str, Any] | None = None,
        dump_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """`strict`, `context`: of validation; `dump_kwargs`: of `model_dump`. Raises ImproperlyConfigured."""
        try:
            self._base: type[Any] = importlib.import_module("pydantic").BaseModel
        except ModuleNotFoundError as error:
            raise ImproperlyConfigured(
                f"cannot make the task {name} with pydantic=True",
                why="pydantic is not installed",
                hint="pip install pydantic",
            ) from error
        self._function, self._strict = function, strict
        self._context = {**(context or {}), "celery_app": app, "celery_task_name": name}
        self._dump = {"mode": "json", **(dump_kwargs or {})}
        self.signature = inspect.signature(function)

    @functools.cached_property
    def _hints(self) -> Mapping[str, Any]:
        """Annotations, read when they are first needed: they may name what is defined later."""
        raw = {name: parameter.annotation for name, parameter in self.signature.parameters.items()}
        raw["return"] = self.signature.return_annotation
        try:
            return {**raw, **typing.get_type_hints(self._function)}
        except (NameError, AttributeError, TypeError):
            return raw

    def _model_of(self, name: str) -> Any:
        """The model that a parameter (or `return`) is annotated with, also as `Model | None`; None for all else."""
        hint = self._hints.get(name)
        if typing.get_origin(hint) in (typing.Union, UnionType):
            inner = [each for each in typing.get_args(hint) if each is not NoneType]
            hint = inner[0] if len(inner) == 1 else None
        return hint if isinstance(hint, type) and issubclass(hint, self._base) else None

    def _validated(self, model: Any, value: Any) -> Any:
        return model.model_validate(value, strict=self._strict, context=self._context)

    def wrapped(self) -> Callable[..., Any]:
        """The function that gets models, and whose value is data. Raises pydantic's ValidationError."""
        function = self._function

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            bound = self._bound(args, kwargs)
            return self._plain(function(*bound.args, **bound.kwargs))

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            bound = self._bound(args, kwargs)
            return self._plain(await function(*bound.args, **bound.kwargs))

        made: Any = run_async if inspect.iscoroutinefunction(function) else run
        made.__signature__ = self.signature
        return made  # type: ignore[no-any-return]

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            model = self._model_of(name)
            if model is not None and not (value is None and self._hints[name] is not model):
                bound.arguments[name] = self._validated(model, value)
        return bound

    def _plain(self, value: Any) -> Any:
        model = self._model_of("return")
        return value.model_dump(**self._dump) if model is not None and isinstance(value, model) else value

    def dumped(self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, first: int) -> tuple[Any, Any]:
        """The arguments of a call with data in the place of models; `first`: the parameter that gets the first one.

        A model that would not be the same again at the worker stays, and the serializer refuses it.
        """
        args, kwargs = args or (), kwargs or {}
        if not any(isinstance(value, self._base) for value in (*args, *kwargs.values())):
            return args, kwargs
        names = [name for name, each in self.signature.parameters.items() if each.kind <= each.POSITIONAL_OR_KEYWORD]
        names = names[first:]
        return (
            [self._dumped(names[index] if index < len(names) else "", value) for index, value in enumerate(args)],
            {name: self._dumped(name, value) for name, value in kwargs.items()},
        )

    def _dumped(self, name: str, value: Any) -> Any:
        model = self._model_of(name)
        if model is None or not isinstance(value, self._base) or hasattr(type(value), "__json__"):
            return value
        try:
            data = value.model_dump(**self._dump)
            return data if self._validated(model, data) == value else value
        except Exception:  # its validators may only work on a worker
            return value


class WithModels:
    """What a task of a function with models is besides a task."""

    models: Models
    bind: bool

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *more: Any, **options: Any
    ) -> Any:
        """Send it; models among the arguments travel as data."""
        if options.get("serializer") != "pickle":
            args, kwargs = self.models.dumped(args, kwargs, int(self.bind))
        return super().apply_async(args, kwargs, *more, **options)  # type: ignore[misc]
