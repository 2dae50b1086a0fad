"""What a task knows of workflows: its signatures, and how it is replaced by other tasks while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from opsq.broker.gathering import gather
from opsq.canvas import Signature, chain, chunks, group, signature, xmap, xstarmap
from opsq.canvas.signatures import listed
from opsq.exceptions import ImproperlyConfigured
from opsq.execution.outcome import Replaced

if TYPE_CHECKING:
    from opsq.execution.context import Context


class Workflows:
    """The part of a task that is about workflows."""

    app: ClassVar[Any]
    name: str

    if TYPE_CHECKING:

        @property
        def request(self) -> Context:
            """What this run is told about itself."""

        @property
        def backend(self) -> Any:
            """Where its results are kept."""

    # -- signatures -------------------------------------------------------------------------------------------------

    def signature(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Signature:
        """A call as data; options as `apply_async` has them."""
        more.setdefault("app", self.app)
        return Signature(self.name, args, kwargs, options, self, **more)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """A call with these arguments, as data."""
        return Signature(self.name, args, kwargs, None, self, app=self.app)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """The same, immutable: it does not take the value of the task before it."""
        return Signature(self.name, args, kwargs, None, self, immutable=True, app=self.app)

    def map(self, it: Iterable[Any]) -> xmap:
        """One task that calls this one for each item."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> xstarmap:
        """One task that calls this one for each item, the arguments of the call."""
        return xstarmap(self.s(), it, app=self.app)

    def chunks(self, it: Iterable[Any], n: int) -> chunks:
        """A group of tasks that each call this one for n of the items."""
        return chunks(self.s(), it, n, app=self.app)

    def signature_from_request(
        self,
        request: Any = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **options: Any,
    ) -> Signature:
        """This very call again: same id and lineage, with what follows it."""
        request = self.request if request is None else request
        info = request.delivery_info or {}
        same = {
            **request.as_execution_options(),
            "priority": info.get("priority"),
            "queue": queue or (info.get("routing_key") if request.envelope is None else request.envelope.queue),
            "ignore_result": request.ignore_result,
            **options,
        }
        given = request.args if args is None else args, request.kwargs if kwargs is None else kwargs
        return self.signature(*given, {name: value for name, value in same.items() if value is not None})

    subtask_from_request = signature_from_request

    # -- in a running task ------------------------------------------------------------------------------------------

    def replace(self, sig: Signature) -> Any:
        """Be replaced by another task or workflow, which takes over id, callbacks, errbacks, chain and chord.

        Raises Ignore: nothing after it is run. In an eager run it returns the value (`return self.replace(...)`).
        """
        request = self.request
        if sig["options"].get("chord") is not None:
            raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
        sig = self._with_one_end(sig)
        for callback in listed(request.callbacks):
            sig.link(callback)
        for errback in listed(request.errbacks):
            sig.link_error(errback)
        if isinstance(sig, chain) and sig["options"].get("link"):
            sig.tasks[-1].extend_list_option("link", sig["options"].pop("link"))
        sig.freeze(request.id)
        nesting = (request.replaced_task_nesting or 0) + 1
        sig.set(
            chord=request.chord,
            group_id=request.group,
            group_index=request.group_index,
            root_id=request.root_id,
            replaced_task_nesting=nesting,
        )
        for step in sig.tasks if isinstance(sig, chain) else ():
            step.set(replaced_task_nesting=nesting)
        for step in reversed(request.chain or ()):
            sig |= signature(step, app=self.app).set(replaced_task_nesting=nesting)
        return self.on_replace(sig)

    def _with_one_end(self, sig: Any) -> Any:
        """A group ends in many tasks: what follows needs one."""
        if isinstance(sig, chain):
            if not sig.tasks:
                raise ImproperlyConfigured("Cannot replace with an empty chain")
            if isinstance(sig.tasks[-1], group):
                sig = sig.clone()
                sig.tasks[-1] |= self.app.tasks["celery.accumulate"].s(index=0)
            return sig
        return sig | self.app.tasks["celery.accumulate"].s(index=0) if isinstance(sig, group) else sig

    def on_replace(self, sig: Signature) -> Any:
        """Called with what replaces this task; to be overridden, and then `super().on_replace(sig)` returned."""
        request = self.request
        if request.is_eager:
            request.update(callbacks=None, errbacks=None)  # they follow the other one now
            return sig.apply().get()
        with gather(records=True) as held:
            sig.delay()
        raise Replaced(self.app.following.follow_ups(held))

    def add_to_chord(self, sig: Signature, lazy: bool = False) -> Any:
        """Add a task to the header of the chord that this one belongs to; `lazy`: it is returned, not sent."""
        request = self.request
        if not request.chord:
            raise ValueError("Current task is not member of any chord")
        sig.set(group_id=request.group, group_index=request.group_index, chord=request.chord, root_id=request.root_id)
        self.backend.add_to_chord(request.group, sig.freeze())
        return sig if lazy else sig.delay()
