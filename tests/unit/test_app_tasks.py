"""The app and its tasks, as far as no Redis is needed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

import opsq
from opsq import App, Celery, Task, _state, current_app, current_task, shared_task
from opsq.app.autodiscover import import_by_name, import_related
from opsq.exceptions import AlwaysEagerIgnored, CeleryWarning, ImproperlyConfigured, NotRegistered, UsageError


@pytest.fixture(autouse=True)
def _apps_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_state, "on_app_finalizers", set())
    monkeypatch.setattr(_state, "_default_app", None)
    yield
    vars(_state._thread).clear()


@pytest.fixture
def app() -> App:
    return App("t", set_as_current=False)


def test_import_opsq_loads_nothing_heavy() -> None:
    code = "import sys, opsq; print([m for m in ('redis', 'asyncio', 'rich', 'click', 'msgspec') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_can_be_imported() -> None:
    for name in opsq.__all__:
        assert getattr(opsq, name) is not None
    assert "Celery" in dir(opsq)
    assert Celery is App
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = opsq.nothing


def test_a_task_is_called_after_its_module(app: App) -> None:
    @app.task
    def add(x: int, y: int = 1) -> int:
        """Adds."""
        return x + y

    assert add.name == f"{__name__}.add"
    assert add(2) == 3
    assert add.run(2, 2) == 4
    assert add.__doc__ == "Adds."
    assert app.tasks[add.name] is add
    assert f"<@task: {add.name} of t>" == repr(add)


def test_a_task_of_the_script_itself_is_called_after_the_app(app: App) -> None:
    def add() -> None: ...

    add.__module__ = "__main__"
    assert app.task(add).name == "t.add"


def test_options_of_the_decorator_become_attributes(app: App) -> None:
    @app.task(name="other", max_retries=7, acks_late=True, queue="mail", typing=False)
    def add() -> None: ...

    assert (add.name, add.max_retries, add.acks_late, add.queue) == ("other", 7, True, "mail")
    with pytest.raises(TypeError):
        app.task(1)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        app.task(add, 2)  # type: ignore[call-overload]


def test_attributes_follow_the_settings_also_later_ones(app: App) -> None:
    @app.task
    def plain() -> None: ...

    @app.task(acks_late=False, time_limit=3, serializer=None)
    def own() -> None: ...

    assert (plain.acks_late, plain.time_limit, own.serializer) == (False, None, "json")
    app.conf.update(task_acks_late=True, task_time_limit=9, task_serializer="yaml")
    assert (plain.acks_late, plain.time_limit, own.serializer) == (True, 9, "yaml")
    assert (own.acks_late, own.time_limit) == (False, 3)
    assert (plain.acks_on_failure, plain.acks_on_timeout) == (True, True)
    app.conf.task_acks_on_failure_or_timeout = False
    assert plain.acks_on_failure is False


def test_a_bound_task_gets_itself(app: App) -> None:
    @app.task(bind=True)
    def whoami(self: Any, x: int) -> tuple[Any, int]:
        return self, x

    assert whoami(3) == (whoami, 3)
    assert whoami.bind


def test_a_base_class_of_the_programs_own(app: App) -> None:
    class Base(Task[..., Any]):
        acks_late = None
        extra = 5

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ("called", self.run(*args, **kwargs))

    @app.task(base=Base)
    def add(x: int) -> int:
        return x

    app.conf.task_acks_late = True
    assert (add.extra, add.acks_late, add(1)) == (5, True, ("called", 1))  # type: ignore[attr-defined]
    assert App("x", task_cls=Base, set_as_current=False).task(lambda: 1)() == ("called", 1)


def test_a_task_class_is_registered_under_its_name(app: App) -> None:
    class Named(app.Task):  # type: ignore[name-defined, misc]
        name = "named"

        def run(self, x: int) -> int:
            return x + 1

    class Unnamed(Task[..., Any]):
        def run(self) -> int:
            return 1

    app.register_task(Named())
    app.register_task(Unnamed)
    assert app.tasks["named"](1) == 2
    assert app.tasks[f"{__name__}.Unnamed"]() == 1
    app.tasks.unregister("named")
    with pytest.raises(NotRegistered):
        app.tasks["named"]


def test_two_functions_of_one_name_the_first_stays_and_it_is_said(app: App) -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    app.task(name="same")(one)
    app.task(name="same")(one)
    with pytest.warns(CeleryWarning, match="two functions are tasks of the name 'same'"):
        app.task(name="same")(two)
    assert app.tasks["same"]() == 1


def test_arguments_that_do_not_fit_are_refused_at_the_call(app: App) -> None:
    @app.task(bind=True)
    def add(self: Any, x: int, /, y: int = 2, *rest: int, z: int, w: int = 0, **more: int) -> None: ...

    for args, kwargs in ((), {"z": 1}), ((1,), {}), ((1,), {"z": 1, "y": 2, "x": 3, "q": 4}):
        if args == (1,) and "q" in kwargs:
            add.check_arguments(*args, **kwargs)
        else:
            with pytest.raises(TypeError, match=r"add\(\) missing 1 required"):
                add.apply_async(args, kwargs)


def test_a_shared_task_belongs_to_whatever_app_is_current() -> None:
    @shared_task(name="shared.add")
    def add(x: int) -> int:
        """Shared."""
        return x + 1

    one = App("one")
    assert add.app is one
    two = App("two")
    assert add.app is two
    assert add(1) == 2
    assert {"shared.add"} <= set(one.tasks)
    assert add.__doc__ == "Shared."

    @shared_task
    def late(x: int) -> int:
        return x

    assert f"{__name__}.late" in one.tasks
    assert late.app is two


def test_tasks_are_shared_with_other_apps_unless_told_otherwise() -> None:
    one, two = App("one"), App("two")

    @one.task(name="everywhere")
    def everywhere() -> str:
        return "one"

    @one.task(name="here", shared=False)
    def here() -> None: ...

    assert "everywhere" in two.tasks
    assert "here" not in two.tasks

    @two.task(name="everywhere")
    def mine() -> str:
        return "two"

    assert two.tasks["everywhere"]() == "two"
    assert one.tasks["everywhere"]() == "one"


def test_the_current_app_is_made_when_there_is_none() -> None:
    assert current_app.main == "default"
    app = App("mine")
    assert current_app.main == "mine"
    app.set_default()
    assert not current_task


def test_finalizing_tells_and_may_be_required(app: App) -> None:
    told: list[Any] = []
    app.on_after_finalize.connect(lambda sender, **_: told.append(sender), weak=False)
    _ = app.tasks
    _ = app.tasks
    assert told == [app]
    strict = App("strict", autofinalize=False, set_as_current=False)
    with pytest.raises(RuntimeError, match="not finalized"):
        _ = strict.tasks
    strict.finalize()
    assert all(name.startswith("celery.") for name in strict.tasks)


def test_settings_by_keyword_and_from_an_object(app: App) -> None:
    made = App("x", broker="redis://b", backend="redis://r", include=["a"], task_acks_late=True, set_as_current=False)
    assert (made.conf.broker_url, made.conf.result_backend, made.conf.include) == ("redis://b", "redis://r", ["a"])
    assert made.conf.source_of("broker_url") == "App(...)"
    assert made.conf.task_acks_late is True
    app.config_from_object({"CELERY_TASK_SERIALIZER": "yaml"}, namespace="CELERY")
    assert app.conf.task_serializer == "yaml"
    app.add_defaults(lambda: {"task_default_queue": "mine"})
    assert app.queues() == ["mine"]


def test_a_configuration_may_be_missing_if_it_is_said(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.config_from_object("no_such_module_here", silent=True)
    assert app.conf.task_serializer == "json"
    with pytest.raises(ImproperlyConfigured):
        app.config_from_object("no_such_module_here", force=True)
    with pytest.raises(ImproperlyConfigured, match="the variable is not set"):
        app.config_from_envvar("NOT_THERE")
    assert not app.config_from_envvar("NOT_THERE", silent=True)
    monkeypatch.setenv("MY_CONF", "json")
    assert app.config_from_envvar("MY_CONF", force=True)


def test_signals_around_the_configuration(app: App) -> None:
    told: list[str] = []
    app.config_from_object({"task_serializer": "yaml"})
    app.on_configure.connect(lambda **_: told.append("before"), weak=False)
    app.on_after_configure.connect(lambda source, **_: told.append(source.task_serializer), weak=False)
    assert app.conf.task_acks_late is False
    assert told == ["before", "yaml"]


def test_annotations_change_tasks(app: App) -> None:
    @app.task(name="a")
    def a() -> None: ...

    @app.task(name="b")
    def b() -> None: ...

    app.conf.task_annotations = {
        "*": {"rate_limit": "1/s"},
        "a": {"rate_limit": "2/s", "@run": lambda _run: lambda: "wrapped"},
    }
    assert (app.tasks["a"].rate_limit, app.tasks["b"].rate_limit) == ("2/s", "1/s")
    assert app.tasks["a"].run() == "wrapped"


def test_the_time_zone(app: App) -> None:
    assert app.timezone is UTC
    assert app.now().utcoffset() == timedelta(0)
    app.conf.timezone = "Asia/Tokyo"
    assert app.now().utcoffset() == timedelta(hours=9)


def test_a_task_is_pickled_by_name() -> None:
    app = App("t")

    @app.task(name="p.add")
    def add() -> None: ...

    assert pickle.loads(pickle.dumps(add)) is add


# -- eager ----------------------------------------------------------------------------------------------------------


def test_apply_runs_here_with_a_request(app: App) -> None:
    @app.task(bind=True)
    def info(self: Any, x: int) -> Any:
        return x, self.request.id, self.request.is_eager, self.request.retries, current_task.name

    result = info.apply((1,), task_id="the-id")
    assert result.get() == (1, "the-id", True, 0, info.name)
    assert (result.state, result.id) == ("SUCCESS", "the-id")
    assert info.request.id is None


def test_apply_keeps_an_error_or_raises_it(app: App) -> None:
    @app.task
    def fail() -> None:
        raise ValueError("no")

    result = fail.apply()
    assert (result.state, str(result.result)) == ("FAILURE", "no")
    assert "ValueError: no" in result.traceback
    with pytest.raises(ValueError, match="no"):
        fail.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no"):
        fail.apply()


def test_an_eager_retry_runs_at_once(app: App) -> None:
    @app.task(bind=True, max_retries=3)
    def flaky(self: Any, x: int) -> Any:
        if self.request.retries < 2:
            raise self.retry(args=(x + 1,), countdown=100)
        return x, self.request.retries

    assert flaky.apply((5,)).get() == (7, 2)


def test_retries_end_with_the_error_or_one_that_says_so(app: App) -> None:
    @app.task(bind=True, max_retries=1)
    def with_cause(self: Any) -> None:
        self.retry(exc=ValueError("cause"), countdown=1)

    @app.task(bind=True, max_retries=1)
    def without(self: Any) -> None:
        self.retry(countdown=1)

    assert isinstance(with_cause.apply().result, ValueError)
    result = without.apply((), task_id="an-id").result
    assert isinstance(result, without.MaxRetriesExceededError)
    assert "[an-id]" in str(result)


def test_errors_can_be_retried_by_themselves(app: App) -> None:
    calls: list[int] = []

    @app.task(autoretry_for=(ValueError,), dont_autoretry_for=(UnicodeError,), retry_backoff=True, max_retries=4)
    def flaky(kind: str) -> int:
        calls.append(1)
        if kind == "never":
            raise UnicodeError("never")
        if len(calls) < 3:
            raise ValueError("again")
        return len(calls)

    assert flaky.apply(("now",)).get() == 3
    calls.clear()
    assert flaky.apply(("never",)).state == "FAILURE"
    assert len(calls) == 1


def test_retry_outside_of_a_worker_raises_the_error_itself(app: App) -> None:
    @app.task(bind=True)
    def flaky(self: Any) -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise self.retry(exc=error) from error

    with pytest.raises(KeyError, match="inner"):
        flaky()


def test_always_eager_sends_arguments_through_the_serializer(app: App) -> None:
    app.conf.task_always_eager = True

    @app.task
    def kind(x: Any) -> str:
        return type(x).__name__

    assert kind.delay((1, 2)).get() == "list"
    with pytest.raises(Exception, match="object"):
        kind.delay(object())
    with pytest.warns(AlwaysEagerIgnored), pytest.raises(Exception, match="no broker"):
        app.send_task(kind.name, (1,))


# -- task modules ---------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name, text in {
        "disc_a/__init__.py": "",
        "disc_a/tasks.py": "LOADED = True",
        "disc_b/__init__.py": "",
        "disc_c/__init__.py": "",
        "disc_c/tasks.py": "import nosuchthing",
        "disc_d.py": "LOADED = True",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("disc_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("names", "loaded"),
    [
        (["disc_a"], "disc_a.tasks"),
        (["disc_a.tasks"], "disc_a.tasks"),
        (["disc_a.tasks.add"], "disc_a.tasks"),
        (["disc_d"], "disc_d"),
        (["disc_b", "disc_a"], "disc_a.tasks"),
    ],
)
@pytest.mark.usefixtures("project")
def test_packages_modules_and_full_task_names_are_discovered(names: list[str], loaded: str) -> None:
    import_related(names, "tasks")
    assert loaded in sys.modules


@pytest.mark.usefixtures("project")
def test_an_error_inside_a_task_module_is_shown_and_a_missing_package_too() -> None:
    with pytest.raises(ModuleNotFoundError, match="nosuchthing"):
        import_related(["disc_c"], "tasks")
    with pytest.raises(ImproperlyConfigured, match="cannot import 'disc_nowhere', which autodiscover_tasks names"):
        import_related(["disc_nowhere"], "tasks")
    app = App("t", include=["disc_c.tasks"], set_as_current=False)
    with pytest.raises(UsageError, match=r"cannot import the tasks: .* 'nosuchthing' \(disc_c/tasks.py, line 1\)"):
        app.import_tasks()
    assert import_related(["disc_b"], "tasks") == []
    assert len(import_related(["disc_b"], None)) == 1


@pytest.mark.usefixtures("project")
def test_an_app_imports_what_it_was_told(app: App) -> None:
    app.conf.update(include=["disc_d"], imports="disc_b")
    app.autodiscover_tasks(lambda: ["disc_a"])
    assert "disc_a.tasks" not in sys.modules
    app.loader.import_default_modules()
    assert {"disc_a.tasks", "disc_b", "disc_d"} <= set(sys.modules)
    assert import_by_name("disc_d")[0].LOADED
