"""chain: tasks one after the other, each with the value of the one before it.

On the wire it is one message, for the first task; the rest travels in it, last step first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opsq import states
from opsq.canvas import stamping
from opsq.canvas.several import Several
from opsq.canvas.signatures import Signature, listed, maybe_signature, short_repr
from opsq.result.eager import EagerResult
from opsq.result.waiting import allow_join_result

#: Options of a chain that it uses itself; the others are of its first task.
OWN = ("group_id", "chord", "task_id", "link", "link_error", "root_id", "parent_id", "group_index")


@Signature.register_type("chain")
class chain(Several):
    """`chain(a, b, c)`, `chain([a, b, c])` or `a | b | c`.

    A group that is followed by a task becomes the header of a chord with that task as its body.
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        """A chain, or what its tasks come to: a group alone, or a chord."""
        if len(tasks) == 1 and not isinstance(tasks[0], Mapping):
            tasks = tuple(tasks[0])
        if not tasks or (options.keys() - {"app"}):
            return super().__new__(cls)
        steps: list[Any] = []
        for task in tasks:
            follow_on(steps, maybe_signature(task, app=options.get("app")))
        begins_with_group = kind_of(tasks[0]) == "group" and kind_of(unrolled(tasks[0])) == "group"
        if len(steps) == 1 and begins_with_group and kind_of(steps[0]) in ("group", "chord"):
            return steps[0]
        return cls.of(steps, options.get("app"))

    def __init__(self, *tasks: Any, **options: Any) -> None:
        if self:  # `__new__` has made it already
            return
        if len(tasks) == 1 and not isinstance(tasks[0], Mapping):
            tasks = tuple(tasks[0])
        super().__init__("celery.chain", (), {"tasks": list(tasks)}, subtask_type="chain", **options)

    @classmethod
    def of(cls, steps: Sequence[Any], app: Any = None, options: Mapping[str, Any] | None = None) -> chain:
        """A chain of these steps as they are."""
        made: chain = Signature.__new__(cls)
        Signature.__init__(made, "celery.chain", (), {"tasks": list(steps)}, options, subtask_type="chain", app=app)
        return made

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> chain:
        """From plain data."""
        steps = [maybe_signature(task, app=app) for task in d["kwargs"]["tasks"]]
        made = cls.of(steps, app, d.get("options"))
        made["args"], made["immutable"] = tuple(d.get("args") or ()), bool(d.get("immutable"))
        return made

    def unchain_tasks(self) -> list[Any]:
        """Copies of its steps; what is linked to the chain is linked to the last one, errbacks to each."""
        steps = [maybe_signature(task, app=self._app, clone=True) for task in self.tasks]
        if steps:
            for linked in listed(self["options"].get("link")):
                steps[-1].link(linked)
            for linked in listed(self["options"].get("link_error")):
                for step in steps:
                    step.link_error(maybe_signature(linked, clone=True))
        return steps

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        steps = self.unchain_tasks()
        follow_on(steps, other)
        if len(steps) == 1 and not self.tasks and kind_of(steps[0]) == "group":
            return steps[0]
        return self.__class__.of(steps, self._app)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it."""
        return self.apply_async(args, kwargs) if self.tasks else None

    # -- sending ----------------------------------------------------------------------------------------------------

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send its first task, with the rest; returns the result of the last one."""
        if self.app.conf.task_always_eager:
            with allow_join_result():
                return self.apply(args, kwargs, **options)
        return self.run(args, kwargs, **{**self["options"], **options})

    def run(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send it with these options alone."""
        own = {name: options.pop(name, None) for name in OWN}
        args = self["args"] if self["immutable"] else (*(args or ()), *self["args"])
        kwargs = None if self["immutable"] else kwargs
        steps, results = self._frozen(args, kwargs, own, clone=True)
        if not steps:
            return None
        if own["link"]:
            steps[0].extend_list_option("link", own["link"])
        first = steps.pop()
        following = [*(options.pop("chain", None) or ()), *steps]
        result = first.apply_async(chain=following, **options) if following else first.apply_async(**options)
        return results[0] if steps else result

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,  # noqa: ARG002 (of a step it is the step before it)
        group_index: int | None = None,
    ) -> Any:
        """Give all its steps their ids; returns the result of the last one."""
        own = {"task_id": _id, "group_id": group_id, "chord": chord, "root_id": root_id, "group_index": group_index}
        steps, results = self._frozen(self["args"], None, own, clone=False)
        self.tasks = reversed(steps)
        self["args"] = ()
        self.id = results[0].id
        return results[0]

    _freeze = freeze

    def _frozen(self, args: Any, kwargs: Any, own: Mapping[str, Any], clone: bool) -> tuple[list[Any], list[Any]]:
        """Its steps, each with an id, and their results; both last first.

        The last step is who belongs to a group, and to a chord, for all of them.
        """
        steps = self._straightened(clone)
        if steps and (args or kwargs):
            steps[-1] = steps[-1].clone(args, kwargs)
        results: list[Any] = []
        before: Any = None
        root_id = own.get("root_id")
        for step in steps:
            if results:
                result = step.freeze(root_id=root_id)
                if before.parent is None:
                    before.parent = result
            else:
                place = {name: own.get(name) for name in ("group_id", "chord", "group_index")}
                result = step.freeze(own.get("task_id"), root_id=root_id, **place)
            for errback in listed(own.get("link_error")):
                step.link_error(errback)
            results.append(result)
            before = result
            while kind_of(step) == "chord" and before.parent is not None:
                before = before.parent
        return steps, results

    def _straightened(self, clone: bool) -> list[Any]:
        """Its steps, last first: chains in it dissolved, empty groups left out, a group with a follower a chord."""
        waiting = [maybe_signature(task, app=self._app, clone=clone) for task in self.tasks]
        steps: list[Any] = []
        while waiting:
            step = unrolled(waiting.pop())
            kind = kind_of(step)
            if kind == "chain":
                waiting += step.unchain_tasks() if clone else step.tasks
            elif is_empty_group(step) and (waiting or steps):
                continue
            elif clone and kind == "chord" and step.is_led_by_task():
                waiting += step.unroll_body()
            elif kind == "group" and steps:
                steps.append(Signature.TYPES["chord"](step, steps.pop(), app=self._app))
            else:
                steps.append(step)
        return steps

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run its steps here, one after the other."""
        options = {**_without_links(self["options"]), **options}
        every = self.unchain_tasks()
        steps = [step for step in every if not is_empty_group(step)] or every[-1:]
        for linked in listed(options.pop("link", None)) if steps else ():
            steps[-1].link(linked)
        last: Any = None
        for step in steps:
            result = step.apply(args, kwargs, **options) if last is None else step.apply((last.get(),), **options)
            result.parent, last = last, result
            if isinstance(result, EagerResult) and result.state in (states.IGNORED, states.REJECTED):
                break
        return last

    # -- the rest ---------------------------------------------------------------------------------------------------

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put stamps on its steps."""
        visited = None if visitor is None else visitor.on_chain_start(self, **headers) or {}
        headers = stamping.merged(self["options"], headers, visited, append_stamps)
        self.stamp_links(visitor, append_stamps, **headers)
        for step in self.tasks:
            step.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)
        return self

    def __repr__(self) -> str:
        if not self.tasks:
            return "<chain: empty>"
        return short_repr(self.tasks[0], " | ".join(map(repr, self.tasks)))


def _without_links(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("link", "link_error")}


def kind_of(sig: Any) -> str | None:
    """ "chain", "group", "chord", ... or None for a plain task."""
    return sig.get("subtask_type") if isinstance(sig, Mapping) else None


def is_empty_group(sig: Any) -> bool:
    """Whether it is a group without tasks."""
    return kind_of(sig) == "group" and not sig["kwargs"]["tasks"]


def unrolled(sig: Any) -> Any:
    """A group of one task is that task."""
    while kind_of(sig) == "group" and len(sig.tasks) == 1:
        sig = sig.tasks[0]
    return sig


def follow_on(steps: list[Any], other: Any) -> None:
    """Add a copy of what comes next to the steps of a chain, as the operator `|` does."""
    other = unrolled(other)
    kind = kind_of(other)
    if is_empty_group(other) and steps:
        return
    if kind == "chain":
        for step in other.unchain_tasks():
            follow_on(steps, step)
    elif steps and kind_of(steps[-1]) == "chord" and kind != "chord":
        steps[-1] = steps[-1].clone()
        steps[-1].body = steps[-1].body | other
    elif steps and kind_of(steps[-1]) == "group" and kind != "group":
        steps[-1] = Signature.TYPES["chord"](steps[-1], other.clone())
    else:
        steps.append(other.clone())
