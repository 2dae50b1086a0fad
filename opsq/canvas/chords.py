"""chord: a group (the header) and a task that gets the list of its values (the body).

Each message of the header carries the body. Whoever counts the last part sends it (`opsq/worker/chords.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opsq import _state
from opsq.canvas import stamping
from opsq.canvas.chains import OWN, chain, kind_of
from opsq.canvas.groups import group
from opsq.canvas.signatures import Signature, listed, maybe_signature, new_id, short_repr, signatures
from opsq.result.waiting import allow_join_result


@Signature.register_type()
class chord(Signature):
    """`chord([a, b, c])(body)`, `chord([a, b, c], body)` or `group(a, b, c) | body`."""

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        """`header`: a group, or tasks; a chain counts as its steps."""
        held = {**(kwargs or {"kwargs": {}}), "header": _header(header, app), "body": maybe_signature(body, app=app)}
        own = options.pop("options", None)
        immutable = options.pop("immutable", False)
        options.pop("subtask_type", None)
        super().__init__(task, args, held, {**(own or {}), **options}, None, "chord", immutable, app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> chord:
        """From plain data. A header that is a group stays one, with its id."""
        held = dict(d["kwargs"])
        header, body = held.pop("header"), held.pop("body", None)
        # Celery 4 wraps them once more with each step through its hands; nothing of that is for the header.
        held["kwargs"] = {name: value for name, value in (held.get("kwargs") or {}).items() if name != "kwargs"}
        made = cls((), body, str(d["task"]), tuple(d.get("args") or ()), held, app, options=dict(d["options"]))
        made["immutable"] = bool(d.get("immutable"))
        made["kwargs"]["header"] = (
            maybe_signature(header, app=app) if isinstance(header, Mapping) else signatures(header, app)
        )
        return made

    @property
    def tasks(self) -> Any:
        """Its header: a list, or a group once it has an id."""
        return self["kwargs"]["header"]

    @tasks.setter
    def tasks(self, header: Any) -> None:
        self["kwargs"]["header"] = header

    @property
    def body(self) -> Any:
        """Its body."""
        return self["kwargs"]["body"]

    @body.setter
    def body(self, body: Any) -> None:
        self["kwargs"]["body"] = body

    def header_group(self) -> group:
        """Its header as a group."""
        if not isinstance(self.tasks, group):
            self.tasks = group(self.tasks, app=self._app)
        header: group = self.tasks
        return header

    def header_tasks(self) -> list[Any]:
        """The tasks of its header."""
        found: list[Any] = self.tasks.tasks if isinstance(self.tasks, group) else self.tasks
        return found

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> chord:
        """A copy, also of its header and body."""
        made: chord = super().clone(args, kwargs, **options)
        header = made.tasks
        made.tasks = header.clone() if isinstance(header, group) else [maybe_signature(t, clone=True) for t in header]
        made.body = maybe_signature(made.body, clone=True)
        return made

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body if it has none."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def __or__(self, other: Any) -> Any:
        """`chord | task`: the task follows the body."""
        if isinstance(other, group) and len(other.tasks) == 1:
            other = other.tasks[0]
        if isinstance(other, Signature) and kind_of(other) not in ("group", "chain"):
            made = self.clone()
            made.body = made.body | other
            return made
        return super().__or__(other)

    # -- sending ----------------------------------------------------------------------------------------------------

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Send its header; returns the result of its body. A `countdown` or `eta` is of the header."""
        kwargs = dict(kwargs or {})
        args = self["args"] if self["immutable"] else (*(args or ()), *self["args"])
        body = maybe_signature(kwargs.pop("body", None) or self.body, clone=True)
        kwargs = {**self["kwargs"].get("kwargs", {}), **kwargs}
        app = self._app_with(body)
        options = {**self["options"], **options}
        own_id = options.pop("task_id", None)
        header = group(self.header_tasks(), app=app)
        header["options"].update(self.tasks["options"] if isinstance(self.tasks, group) else ())
        header["options"].setdefault("task_id", own_id or new_id())
        if app.conf.task_always_eager:
            with allow_join_result():
                return self.apply(args, kwargs, body=_with_links(body, options), task_id=task_id)
        return self.run(header, body, args, app=app, task_id=task_id or own_id, kwargs=kwargs, **options)

    def run(
        self,
        header: Any,
        body: Any,
        partial_args: Sequence[Any],
        app: Any = None,
        interval: float | None = None,  # noqa: ARG002 (Celery's signature: of results without counters)
        countdown: float | None = None,
        max_retries: int | None = None,  # noqa: ARG002
        task_id: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Send a header and count on a body, with these options alone; an empty header sends the body at once."""
        app = app or self._app_with(body)
        group_id = header["options"].get("task_id") or new_id()
        delay = {"countdown": countdown, "eta": options.pop("eta", None)}
        body = _with_links(body, options)
        body["options"].update({name: value for name, value in options.items() if name != "parent_id"})
        root_id = body["options"].get("root_id")
        if isinstance(body, chain):
            body.tasks = reversed(body._straightened(clone=True))
        result = body.freeze(task_id or new_id(), group_id=group_id, root_id=root_id)
        rest = {name: value for name, value in options.items() if name not in ("chain", "chord", "task_id")}
        header["options"]["task_id"] = group_id
        frozen = header.freeze(group_id=group_id, chord=body, root_id=root_id)
        if header.tasks:
            app.backend.begin_chord(frozen)
            rest.update({name: value for name, value in delay.items() if value is not None})
            parent = header.apply_async(partial_args, kwargs, task_id=group_id, chord=body, **rest)
        else:
            body.delay([])
            parent = frozen
        result.parent = parent
        return result

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give its header and its body their ids; returns the result of the body."""
        before = self.header_group().freeze(parent_id=parent_id, root_id=root_id)
        self.id = before.id
        if self.body is None:
            return before
        result = self.body.freeze(_id, root_id=root_id, chord=chord, group_id=group_id, group_index=group_index)
        first = result
        while first.parent is not None:
            first = first.parent
        first.parent = before
        return result

    _freeze = freeze

    def is_led_by_task(self) -> bool:
        """Whether its body is a chain that begins with a task: the rest can follow the chord instead."""
        body = self.body
        return isinstance(body, chain) and bool(body.tasks) and kind_of(body.tasks[0]) != "group"

    def unroll_body(self) -> list[Any]:
        """This chord with the first step of its body, and the other steps: each part then carries less."""
        made = self.clone()
        steps = made.body.unchain_tasks()
        first = {name: value for name, value in made.body["options"].items() if name not in OWN}
        made.body = steps[0].clone(**first)
        return [made, *steps[1:]]

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        propagate: bool = True,
        body: Any = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Run its header here, then its body."""
        body = _with_links(maybe_signature(self.body if body is None else body, clone=True), options)
        values = self.header_group().clone().apply(args, kwargs).get(propagate=propagate)
        return body.apply((values,), task_id=task_id)

    # -- its parts together -----------------------------------------------------------------------------------------

    def link(self, callback: Any) -> Any:
        """Link to its body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Link to its body, and with `task_allow_error_cb_on_chord_header` to each task of the header."""
        errback = maybe_signature(errback)
        on_header = self.app.conf.task_allow_error_cb_on_chord_header
        for task in self.header_tasks():
            if isinstance(task, chord):
                task.link_error(errback)
            elif on_header:
                task.link_error(errback.clone(immutable=True))
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Of all tasks of its header."""
        for task in self.header_tasks():
            task.set_immutable(immutable)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on its header, and with a visitor on its body."""
        visited = None if visitor is None else visitor.on_chord_header_start(self, **headers) or {}
        headers = stamping.merged(self["options"], headers, visited, append_stamps)
        self.stamp_links(visitor, append_stamps, **headers)
        for task in self.header_tasks():
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chord_header_end(self, **headers)
            if self.body is not None:
                visited = visitor.on_chord_body(self, **headers) or {}
                self.body.stamp(visitor, append_stamps, **stamping.merged(self["options"], headers, visited, False))
        return self

    @property
    def app(self) -> Any:
        """The app that sends it: its own, or that of a task in it."""
        return self._app_with(self.body)

    def _app_with(self, body: Any) -> Any:
        if self._app is not None:
            return self._app
        for sig in (*self.header_tasks()[:1], body):
            if isinstance(sig, Signature):
                return sig.app
        return _state.get_current_app()

    def __repr__(self) -> str:
        if self.body is None:
            return f"<chord without body: {self.tasks!r}>"
        if isinstance(self.body, chain) and self.body.tasks:
            first, *rest = self.body.tasks
            text = " | ".join([first.reprcall(self.tasks), *map(repr, rest)])
            return "%" + short_repr(first, text)
        return "%" + short_repr(self.body, self.body.reprcall(self.tasks))


def _header(header: Any, app: Any) -> list[Any]:
    if isinstance(header, Mapping):
        header = maybe_signature(header, app=app)
        header = header.tasks if kind_of(header) in ("group", "chain") else [header]
    return [maybe_signature(task, clone=True) for task in header]


def _with_links(body: Any, options: dict[str, Any]) -> Any:
    """The body with what the options link to the chord; they are taken out of the options."""
    for linked in listed(options.pop("link", None)):
        body.link(maybe_signature(linked, clone=True))
    for linked in listed(options.pop("link_error", None)):
        body.link_error(maybe_signature(linked, clone=True))
    return body
