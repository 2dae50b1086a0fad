"""`opsq graph workers`: workers, broker and result backend as a picture for Graphviz, with Celery's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from opsq.cli.context import Context, pass_context
from opsq.cli.frame import group
from opsq.exceptions import UsageError

EXAMPLES = """
opsq -A proj graph workers > workers.dot
opsq graph workers nodes:web1,web2 threads:4,2 broker:redis backend:redis
opsq graph workers generic wmax:10 tmax:0
"""
#: What `NAME:VALUE` and `NAME` may be.
WORDS = ("nodes", "threads", "broker", "backend", "wmax", "tmax", "generic", "enumerate")
_WORKER = 'shape="box3d", style="filled", fillcolor="darkseagreen3"'
_BROKER = 'shape="circle", style="filled", fillcolor="cadetblue3"'
_BACKEND = 'shape="folder", style="filled", fillcolor="peachpuff3"'
_THREAD = 'shape="oval", style="filled", fillcolor="lightcyan4", fontcolor="yellow", fontsize=10'


@group(EXAMPLES)
def graph() -> None:
    """Draw the workers, in Graphviz' language."""


@graph.command(examples=EXAMPLES)
@click.argument("words", nargs=-1, metavar="[NAME[:VALUE]]...")
@pass_context
def workers(context: Context, words: Sequence[str]) -> None:
    """Draw workers and how many tasks each runs at once, the broker and the result backend.

    Those that are alive are asked, opsq's and Celery's, unless nodes:LIST (with threads:LIST) names others. wmax:N and
    tmax:N say how many are drawn (4 and 3; 0 = all), generic hides addresses, enumerate gives numbers for names.
    """
    from opsq.datastore.url import masked

    given = {name: value for name, _, value in (word.partition(":") for word in words)}
    for name in given:
        if name not in WORDS:
            raise UsageError(f"there is no {name!r} in this picture", hint=f"one of {', '.join(WORDS)}")
    app = context.app
    sizes = _named(given) if "nodes" in given else _asked(app)
    places = {"broker": given.get("broker") or masked(context.broker.url)}
    backend = given.get("backend") or (masked(app.backend.url) if app.backend.keeps_results else "")
    places |= {"backend": backend} if backend else {}
    if "generic" in given:
        places = {name: f"{name.capitalize()} ({text.partition('://')[0]}://)" for name, text in places.items()}
    most = _number(given, "wmax", 4), _number(given, "tmax", 3)
    for line in drawn(sizes, places, *most, "enumerate" in given):
        context.out.line(line)


@graph.command(examples="opsq graph workers")
@click.argument("words", nargs=-1)
def bootsteps(words: Sequence[str]) -> None:  # noqa: ARG001 (Celery's arguments)
    """(Celery) The worker is not made of such steps."""
    raise UsageError("there is no graph of bootsteps", why="a worker of opsq is not made of them")


def _named(given: Mapping[str, str]) -> dict[str, int]:
    nodes, threads = given["nodes"].split(","), [each for each in given.get("threads", "").split(",") if each]
    try:
        counts = [int(each) for each in threads]
    except ValueError:
        raise UsageError(f"cannot use threads:{given['threads']}", why="threads are numbers") from None
    return dict(zip(nodes, [*counts, *[0] * len(nodes)], strict=False))


def _asked(app: Any) -> dict[str, int]:
    stats = app.control.inspect().stats() or {}
    return {node: int((told.get("pool") or {}).get("max-concurrency") or 0) for node, told in sorted(stats.items())}


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(given.get(name) or default)
    except ValueError:
        raise UsageError(f"cannot use {name}:{given[name]}", why="it is no number") from None


def drawn(
    sizes: Mapping[str, int], places: Mapping[str, str], most_workers: int, most_threads: int, numbered: bool
) -> Iterator[str]:
    """The lines of the picture."""
    yield "digraph workers {"
    yield '    rankdir="BT";'
    for name, text in places.items():
        yield f"    {_quoted(name)} [label={_quoted(text)}, {_BROKER if name == 'broker' else _BACKEND}];"
    labels = [f"Worker {number}" for number in range(1, len(sizes) + 1)] if numbered else list(sizes)
    shown = _some(list(zip(labels, sizes.values(), strict=True)), most_workers)
    for place, found in enumerate(shown):
        label, size = found or ("...", 0)
        worker = f"worker {place}"
        yield f"    {_quoted(worker)} [label={_quoted(label)}, {_WORKER}];"
        for name in places:
            yield f"    {_quoted(worker)} -> {_quoted(name)};"
        for number, each in enumerate(_some(list(range(1, size + 1)), most_threads)):
            thread = f"{worker} {number}"
            yield f"    {_quoted(thread)} [label={_quoted('...' if each is None else str(each))}, {_THREAD}];"
            yield f'    {_quoted(thread)} -> {_quoted(worker)} [arrowhead="none"];'
    yield "}"


def _some(items: list[Any], most: int) -> list[Any]:
    """At most so many (0 = all): the first ones, None for those between, the last one."""
    return items if not most or len(items) <= most else [*items[: max(most - 2, 0)], None, items[-1]][-most:]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
