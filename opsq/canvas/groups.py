"""group: tasks that run at the same time. On the wire they are so many messages with one group id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from opsq.broker.gathering import gather
from opsq.canvas import stamping
from opsq.canvas.chains import is_empty_group, kind_of
from opsq.canvas.several import Several
from opsq.canvas.signatures import Signature, maybe_signature, new_id, plain, short_repr, signatures
from opsq.protocol.writing import REPLY_TO
from opsq.result.groups import GroupResult

#: Options that a task gets when it is given its id.
_ALIKE = frozenset(("task_id", "reply_to", "group_id", "group_index", "chord", "root_id"))
#: Messages that are sent in one pipeline.
SLICE = 1000


@Signature.register_type()
class group(Several):
    """`group(a, b, c)` or `group([a, b, c])`; a group inside a group is dissolved when it is sent."""

    def __init__(self, *tasks: Any, **options: Any) -> None:
        found: Iterable[Any] = tasks
        if len(tasks) == 1:
            only = tasks[0]
            if isinstance(only, group):
                found = only.tasks
            elif isinstance(only, Mapping):
                found = [maybe_signature(only, clone=True)]
            else:
                found = only
        app = options.pop("app", None)
        super().__init__("celery.group", (), {"tasks": list(found)}, options, None, "group", app=app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> group:
        """From plain data."""
        made = cls(signatures(d["kwargs"]["tasks"], app), app=app, **d["options"])
        made["args"], made["immutable"] = tuple(d.get("args") or ()), bool(d.get("immutable"))
        return made

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(partial_args, **options)

    def __or__(self, other: Any) -> Any:
        """`group | task`: a chord."""
        if not isinstance(other, Signature):
            return NotImplemented
        return self if is_empty_group(other) else Signature.TYPES["chord"](self, other, app=self._app)

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Let its tasks begin one after the other, every `step` seconds from `start` on, the rest at `stop`."""
        delay = start
        for task in self.tasks:
            task.set(countdown=delay)
            delay = delay + step if stop is None else min(delay + step, stop)
        return self

    # -- sending ----------------------------------------------------------------------------------------------------

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        add_to_parent: bool = True,
        producer: Any = None,  # noqa: ARG002 (Celery's signature)
        link: Any = None,
        link_error: Any = None,
        chord: Any = None,
        **options: Any,
    ) -> Any:
        """Send its tasks, in few round trips; returns their results together."""
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        if not self.tasks:
            return self.freeze()
        args, options = (*(args or ()), *self["args"]), self._merge(options=options)[2].copy()
        group_id = options.pop("task_id", None) or new_id()
        options.pop("group_index", None)
        options["group_id"] = group_id
        if chord is None:
            chord = options.pop("chord", None)
        else:
            options.pop("chord", None)
        results = self._send_alike(app, group_id, (args, kwargs), chord, options)
        if results is None:
            results = self._send_each(app, group_id, (args, kwargs), chord, options)
        result: Any = app.GroupResult(group_id, results)
        if len(results) == 1 and isinstance(results[0], GroupResult):
            result = results[0]  # a chain that ends with a group is that group
        if add_to_parent:
            app.note_children((result,))
        return result

    def _send_each(
        self, app: Any, group_id: str, call: tuple[Any, Any], chord: Any, options: dict[str, Any]
    ) -> list[Any]:
        """Send its tasks, each by its own `apply_async`."""
        args, kwargs = call
        members = self._members(group_id, args, options.get("root_id"))
        body = chord if chord is not None else members[-1][0]["options"].get("chord")
        if body is not None:
            if members[0][0]["options"].get("group_id") in (None, group_id):
                app.backend.set_chord_size(group_id, sum(weight(task) for task, _ in members), body)
            options["chord"] = plain(body)
        self._send_all(app, members, kwargs, options)
        return [result for _, result in members]

    def _send_alike(
        self, app: Any, group_id: str, call: tuple[Any, Any], chord: Any, options: Mapping[str, Any]
    ) -> list[Any] | None:
        """Send its tasks as many calls of one task; None if they are not."""
        args, kwargs = call
        name, kind = self.tasks[0].get("task"), getattr(self.tasks[0], "_type", None)
        calls = []
        for index, task in enumerate(self.tasks):
            if type(task) is not Signature or task["task"] != name or task._type is not kind or task["subtask_type"]:
                return None
            own = task["options"]
            if own and not _is_alike(own, group_id, chord):
                return None
            task_args, task_kwargs, _ = task._merge(args, kwargs)
            calls.append((own.get("task_id") or new_id(), task_args, task_kwargs, index, own.get("root_id")))
        if chord is not None:
            options = {**options, "chord": Shared(plain(chord))}
        sender = app.sender_of_group(name, kind, options)
        if sender is None:
            return None
        if chord is not None:
            app.backend.set_chord_size(group_id, len(calls), chord)
        sent: list[Any] = sender(calls)
        return sent

    @staticmethod
    def _send_all(app: Any, members: Sequence[tuple[Any, Any]], kwargs: Any, options: Mapping[str, Any]) -> None:
        for start in range(0, len(members), SLICE):
            with gather() as held:
                for task, _ in members[start : start + SLICE]:
                    task.apply_async((), kwargs, add_to_parent=False, **options)
            app.broker.publish_many(held.messages)

    def _members(self, group_id: str, args: Any, root_id: str | None) -> list[tuple[Any, Any]]:
        """Its tasks as they are sent, with ids, and their results."""
        found = []
        for index, task in enumerate(self.flattened()):
            task = task.clone(args)
            result = task.freeze(group_id=group_id, root_id=root_id, group_index=index)
            found.append((task, result))
        return found

    def flattened(self) -> Iterator[Any]:
        """Its tasks, those of groups in it too, without empty chains."""
        for task in self.tasks:
            task = maybe_signature(task, app=self._app if getattr(task, "_app", None) is None else None)
            if kind_of(task) == "group":
                yield from task.flattened()
            elif kind_of(task) != "chain" or task.tasks:
                yield task

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give all its tasks their ids; returns their results together."""
        options = self["options"]
        own_id = options.get("task_id") or _id or new_id()
        options["task_id"] = own_id
        for name, value in (("group_id", group_id), ("chord", chord), ("group_index", group_index)):
            if value is not None:
                options[name] = value
        root_id = options.setdefault("root_id", root_id)
        parent_id = options.setdefault("parent_id", parent_id)
        self.tasks = [task.clone() for task in self.flattened()]
        found = [
            task.freeze(group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id, group_index=index)
            for index, task in enumerate(self.tasks)
        ]
        return self.app.GroupResult(own_id, found)

    _freeze = freeze

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run its tasks here, one after the other."""
        if not self.tasks:
            return self.freeze()
        args, options = (*(args or ()), *self["args"]), self._merge(options=options)[2].copy()
        group_id = options.pop("task_id", None) or new_id()
        options["group_id"] = group_id
        return self.app.GroupResult(group_id, [task.apply(args, kwargs, **options) for task in self.flattened()])

    # -- its tasks together -----------------------------------------------------------------------------------------

    def set_immutable(self, immutable: bool) -> None:
        """Of all its tasks."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Link to its first task only, without its value: use a chord to wait for all."""
        return self.tasks[0].link(maybe_signature(callback, clone=True).set(immutable=True))

    def link_error(self, errback: Any) -> tuple[Any, ...]:
        """Link to each of its tasks."""
        errback = maybe_signature(errback)
        return tuple(task.link_error(errback.clone()) for task in self.tasks)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on all its tasks."""
        visited = None if visitor is None else visitor.on_group_start(self, **headers) or {}
        headers = stamping.merged(self["options"], headers, visited, append_stamps)
        self.stamp_links(visitor, append_stamps, **headers)
        self.tasks = signatures(self.tasks, self._app)
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_group_end(self, **headers)
        return self

    def __repr__(self) -> str:
        return short_repr(self.tasks[0], f"group({self.tasks!r})") if self.tasks else "group(<empty>)"


class Shared(dict[str, Any]):
    """A dictionary that is the same in many calls, and is compared by that."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def _is_alike(options: Mapping[str, Any], group_id: str, chord: Any) -> bool:
    """Whether a task has no options but those that differ in every group."""
    return (
        options.keys() <= _ALIKE
        and options.get("group_id", group_id) == group_id
        and options.get("reply_to", REPLY_TO) == REPLY_TO
        and ("chord" not in options or chord is not None)
    )


def weight(sig: Any) -> int:
    """How many parts of a chord it comes to: each message that carries the chord's body is one."""
    kind = kind_of(sig)
    if kind == "group":
        return sum(weight(task) for task in sig.tasks)
    if kind == "chain":
        return next((size for task in reversed(sig.tasks) if (size := weight(task))), 0)
    if kind == "chord":
        return weight(sig.body)
    return 1
