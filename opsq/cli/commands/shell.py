"""`opsq shell`: a Python prompt with the app, its tasks and the words of workflows at hand, with Celery's flags."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import command
from opsq.exceptions import UsageError

EXAMPLES = """
opsq -A proj shell
opsq -A proj shell --ipython
echo 'print(add.delay(2, 3).get())' | opsq -A proj shell --python
"""
_WORDS = ("Task", "chain", "chord", "chunks", "group", "signature", "subtask", "xmap", "xstarmap")


@command(EXAMPLES)
@click.option("-I", "--ipython", is_flag=True, help="With IPython.")
@click.option("-B", "--bpython", is_flag=True, help="With bpython.")
@click.option("--python", is_flag=True, help="With Python's own prompt.")
@click.option("-T", "--without-tasks", is_flag=True, help="Tasks get no names of their own.")
@click.option("--eventlet", is_flag=True, help="With eventlet's green threads.")
@click.option("--gevent", is_flag=True, help="With gevent's green threads.")
@pass_context
def shell(context: Context, /, **given: bool) -> None:
    """A Python prompt in which `app`, the app's tasks (by their functions' names) and `chain`, `group`, ... are known.

    IPython or bpython are taken if they are installed and nothing is said.
    """
    for library in ("eventlet", "gevent"):
        if given[library]:
            _patch(library)
    _open(given)(_names(context, not given["without_tasks"]))


def _patch(library: str) -> None:
    from opsq.concurrency.patched import patch

    try:
        patch(library)
    except ImportError:
        raise UsageError(f"{library} is not installed", hint=f"pip install 'opsq[{library}]'") from None


def _names(context: Context, tasks: bool) -> dict[str, Any]:
    import opsq

    app = context.app
    app.import_tasks()
    app.set_current()
    names = {"app": app, "celery": app, **{word: getattr(opsq, word) for word in _WORDS}}
    if tasks:
        own = [task for name, task in sorted(app.tasks.items()) if not name.startswith("celery.")]
        names |= {type(task).__name__: task for task in own}
    return names


def _open(given: dict[str, bool]) -> Callable[[dict[str, Any]], None]:
    """The prompt that is wanted. Raises UsageError for one that is not installed."""
    if not (given["python"] or sys.stdin.isatty() or given["ipython"] or given["bpython"]):
        return _python
    for flag, kind in (("python", _python), ("ipython", _ipython), ("bpython", _bpython)):
        if given[flag]:
            return kind
    return next((kind for kind, module in ((_ipython, "IPython"), (_bpython, "bpython")) if _is_there(module)), _python)


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _python(names: dict[str, Any]) -> None:
    import code

    if sys.stdin.isatty():
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
        code.interact(local=names)
    else:
        _script(names)


def _script(names: dict[str, Any]) -> None:
    """What comes through a pipe: no prompts between what it prints."""
    try:
        exec(compile(sys.stdin.read(), "<stdin>", "exec"), names)
    except Exception:  # the script's own, told as Python tells it
        traceback.print_exc()
        raise click.exceptions.Exit(1) from None


def _ipython(names: dict[str, Any]) -> None:
    _imported("IPython").start_ipython(argv=[], user_ns=names)


def _bpython(names: dict[str, Any]) -> None:
    _imported("bpython").embed(names)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{module} is not installed", hint=f"pip install {module.lower()}") from None
