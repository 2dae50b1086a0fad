"""Find the app that `-A` means, as Celery does; every mistake is one clear sentence."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from opsq.app.base import App
from opsq.app.blame import broken
from opsq.config import toml_file
from opsq.exceptions import OpsqError, UsageError, did_you_mean
from opsq.project import find_django

#: Why an app of Celery's is refused.
OF_CELERY = "it is made by Celery, not by opsq"


def named_app(flag: str | None = None, start: Path | None = None) -> tuple[str, str] | None:
    """The app that is to be used and who named it; None if nobody does.

    `-A`, `OPSQ_APP`, `app =` in `opsq.toml`, or the Django project whose `manage.py` is here or above.
    """
    if flag:
        return flag, "-A"
    if named := os.environ.get("OPSQ_APP"):
        return named, "OPSQ_APP"
    path = toml_file.find(start or Path.cwd())
    if path is not None and (named := toml_file.load(path).app):
        _put_on_path(path.parent)
        return named, str(path)
    if (django := find_django(start or Path.cwd())) is not None:
        _put_on_path(django.folder)
        return django.app, str(django.folder / "manage.py")
    return None


def find_app(spec: str | None, workdir: str | os.PathLike[str] | None = None) -> App:
    """The app of `module`, `module:attribute`, `package.module.attribute` or a package; opsq's own when none is named.

    The current directory (`workdir`, if given) is looked in first. It becomes the current app. Raises UsageError.
    """
    app = _find(spec, workdir)
    app.set_current()
    app.set_default()
    return app


def _find(spec: str | None, workdir: str | os.PathLike[str] | None) -> App:
    if workdir is not None:
        _go_to(workdir)
    _put_on_path(Path.cwd())
    named = named_app(spec)
    if named is None:
        own: App = importlib.import_module("opsq.app.own").app
        return own
    spec = named[0]
    name, colon, attribute = spec.partition(":")
    found = _attribute(spec, _import(spec, name), attribute) if colon else _module_or_attribute(spec)
    if not isinstance(found, ModuleType):
        return _checked(spec, found)
    app = _app_in(found, spec)
    if app is None:
        raise UsageError(
            f"cannot find the app {spec!r}",
            why=f"{found.__name__!r} has neither 'app' nor 'celery', no module 'celery', and no other instance",
            hint=f"make one with app = App({found.__name__!r}), or name it: -A {found.__name__}:NAME",
        )
    return app


def _go_to(workdir: str | os.PathLike[str]) -> None:
    try:
        os.chdir(workdir)
    except OSError as error:
        raise UsageError(f"cannot work in {os.fspath(workdir)}", why=(error.strerror or str(error)).lower()) from None


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _module_or_attribute(spec: str) -> Any:
    """A dotted name: the module, else something in the module that is named by all but its last part."""
    parent, _, last = spec.rpartition(".")
    if not parent or last == "py":
        return _import(spec, spec)
    try:
        return importlib.import_module(spec)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{spec}.".startswith(f"{error.name}."):
            raise broken(f"cannot load the app {spec!r}", error) from error
    except OpsqError:
        raise
    except (Exception, SystemExit) as error:
        raise broken(f"cannot load the app {spec!r}", error) from error
    return _attribute(spec, _import(spec, parent), last)


def _import(spec: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise _missing(spec, name, error.name) from None
        raise broken(f"cannot load the app {spec!r}", error) from error
    except OpsqError:
        raise
    except (Exception, SystemExit) as error:
        raise broken(f"cannot load the app {spec!r}", error) from error


def _attribute(spec: str, module: ModuleType, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        if not hasattr(found, name):
            there = [each for each in vars(module) if each[:2] != "__"]
            tried = f"neither a module {spec!r} nor " if ":" not in spec else "no "
            raise UsageError(
                f"cannot find the app {spec!r}",
                why=f"there is {tried}{name!r} in the module {module.__name__!r}",
                hint=did_you_mean(name, there) or _instances_hint(module),
            )
        found = getattr(found, name)
    return found


def _instances_hint(module: ModuleType) -> str:
    names = list(_apps(module))
    return f"its apps are: {', '.join(names)}" if names else f"the module {module.__name__!r} makes no app"


def _apps(module: ModuleType) -> Iterator[str]:
    return (name for name, value in vars(module).items() if isinstance(value, App))


def _app_in(module: ModuleType, spec: str) -> App | None:
    """The app of a module: `app`, `celery`, that of its submodule `celery`, or its first instance."""
    for name in ("app", "celery"):
        found = getattr(module, name, None)
        if isinstance(found, App) or _is_of_celery(found):
            return _checked(spec, found)
    if hasattr(module, "__path__"):
        inner = f"{module.__name__}.celery"
        try:
            if (app := _app_in(importlib.import_module(inner), spec)) is not None:
                return app
        except ModuleNotFoundError as error:
            if error.name != inner:
                raise broken(f"cannot load the app {spec!r}", error) from error
        except OpsqError:
            raise
        except (Exception, SystemExit) as error:
            raise broken(f"cannot load the app {spec!r}", error) from error
    for value in vars(module).values():
        if isinstance(value, App) or _is_of_celery(value):
            return _checked(spec, value)
    return None


def _is_of_celery(value: Any) -> bool:
    return any(f"{kind.__module__}.{kind.__name__}" == "celery.app.base.Celery" for kind in type(value).__mro__)


def _checked(spec: str, found: Any) -> App:
    if isinstance(found, App):
        return found
    if _is_of_celery(found):
        raise UsageError(
            f"cannot use the app {spec!r}",
            why=OF_CELERY,
            hint="change `from celery import Celery` to `from opsq import Celery`",
        )
    raise UsageError(f"cannot use {spec!r} as an app", why=f"it is a {type(found).__name__}")


# -- what went wrong -------------------------------------------------------------------------------------------------


def _missing(spec: str, name: str, missing: str) -> UsageError:
    """There is no such module: where it was looked for, and what is there."""
    if name.endswith(".py"):
        hint = f"write {name[:-3]!r}, without .py"
    else:
        there = sorted(_modules_in(Path.cwd()))
        hint = did_you_mean(missing.rpartition(".")[2], there, "name the module that makes the app: -A MODULE")
    return UsageError(
        f"cannot find the app {spec!r}", why=f"there is no module {missing!r} in {Path.cwd()} or installed", hint=hint
    )


def _modules_in(folder: Path) -> set[str]:
    files = {path.stem for path in folder.glob("*.py")}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}
