"""Tasks with `pydantic=True`: models arrive as models, travel as data, and what does not fit is refused."""

from __future__ import annotations

import asyncio
from typing import Any, Optional

import pytest

from opsq import App
from opsq.exceptions import EncodeError

pydantic = pytest.importorskip("pydantic")


class Item(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    name: str
    count: int = 1


class Odd(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    """Its data is not what it is made of."""

    secret: str = pydantic.Field(exclude=True)


@pytest.fixture
def app() -> App:
    app = App("t", set_as_current=False)
    app.conf.task_always_eager = True
    return app


def test_arguments_become_models_and_the_value_data(app: App) -> None:
    @app.task(pydantic=True)
    def double(item: Item, times: int = 2) -> Item:
        assert isinstance(item, Item)
        return Item(name=item.name, count=item.count * times)

    assert double.delay({"name": "a", "count": "3"}).get() == {"name": "a", "count": 6}  # type: ignore[arg-type]
    assert double.apply_async(kwargs={"item": Item(name="b"), "times": 5}).get() == {"name": "b", "count": 5}
    assert double.s(Item(name="c")).apply_async().get() == {"name": "c", "count": 2}
    assert double({"name": "d"}) == {"name": "d", "count": 2}  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError):
        double.delay({"count": 3}).get()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="item"):
        double.delay()  # type: ignore[call-arg]


def test_a_bound_task_and_optional_models(app: App) -> None:
    @app.task(bind=True, pydantic=True, max_retries=1)
    def keep(self: Any, item: Optional[Item], other: Item | None = None) -> Any:  # noqa: UP045 (older code has it)
        if not self.request.retries:
            raise self.retry(countdown=0)
        return [item and item.name, other and other.name]

    assert keep.delay(Item(name="a")).get() == ["a", None]
    assert keep.delay(None, other={"name": "b"}).get() == [None, "b"]


def test_strictness_and_context(app: App) -> None:
    seen: list[Any] = []

    class Watched(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        count: int

        @pydantic.field_validator("count")
        @classmethod
        def look(cls, value: int, info: Any) -> int:
            seen.append(info.context)
            return value

    def count(item: Watched) -> int:
        return int(item.count)

    count.__annotations__["item"] = Watched
    task = app.task(pydantic=True, pydantic_strict=True, pydantic_context={"who": "me"}, name="count")(count)
    assert task.delay({"count": 3}).get() == 3
    assert seen[-1] == {"who": "me", "celery_app": app, "celery_task_name": "count"}
    with pytest.raises(pydantic.ValidationError):
        task.delay({"count": "3"}).get()


def test_what_is_dumped_can_be_said(app: App) -> None:
    @app.task(pydantic=True, pydantic_dump_kwargs={"exclude_defaults": True})
    def same(item: Item) -> Item:
        return item

    assert same.delay(Item(name="a")).get() == {"name": "a"}


def test_a_model_that_would_not_be_the_same_is_left_to_the_serializer(app: App) -> None:
    @app.task(pydantic=True)
    def take(item: Odd) -> None: ...

    @app.task
    def plain(item: Item) -> None: ...

    for task, value in ((take, Odd(secret="x")), (plain, Item(name="a"))):
        with pytest.raises(EncodeError):
            task.delay(value)  # type: ignore[attr-defined]


def test_a_coroutine_gets_models_too(app: App) -> None:
    @app.task(pydantic=True)
    async def later(item: Item) -> Item:
        await asyncio.sleep(0)
        return item

    assert later.delay(Item(name="a")).get() == {"name": "a", "count": 1}


def test_shared_tasks_and_classes_of_the_programs_own(app: App) -> None:
    class Base(app.Task):  # type: ignore[name-defined, misc]
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            assert kwargs.pop("extra")
            return super().apply_async(*args, **kwargs)

    @app.task(base=Base, pydantic=True)
    def name(item: Item) -> str:
        return str(item.name)

    assert name.apply_async((Item(name="a"),), extra=True).get() == "a"
