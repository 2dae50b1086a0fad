"""A program that sends tasks and waits for results, with Celery or with opsq; run beside the project's `proj.py`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the answering side
from support.peer import Peer, serve


class Client(Peer):
    """The asking side."""

    def __init__(self, python: Path, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__([python, __file__], cwd=folder, env={**environment, "PYTHONPATH": str(folder)})

    def send(self, task: str, *args: Any, _kwargs: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Send a task by the function of the project that has this name; returns the id."""
        task_id: str = self.ask("send", task, args, _kwargs or {}, options)
        return task_id

    def send_by_name(self, name: str, *args: Any) -> str:
        """Send a task that this client need not know."""
        task_id: str = self.ask("send_by_name", name, args)
        return task_id

    def get(self, task_id: str, timeout: float = 20) -> Any:
        """The result; a failure raises the name of its class."""
        return self.ask("get", task_id, timeout)

    def outcome(self, task_id: str, timeout: float = 20) -> dict[str, Any]:
        """State, value or error (class, module, args), and traceback of a finished task."""
        answer: dict[str, Any] = self.ask("outcome", task_id, timeout)
        return answer

    def broadcast(self, method: str, **arguments: Any) -> list[dict[str, Any]]:
        """The replies of all workers to a remote command, or of those named by `destination`."""
        replies: list[dict[str, Any]] = self.ask("broadcast", method, arguments)
        return replies

    def inspect(self, method: str, **how: Any) -> dict[str, Any] | None:
        """What `app.control.inspect(...)` tells."""
        told: dict[str, Any] | None = self.ask("inspect", method, how)
        return told

    def revoke(self, task_id: str, **how: Any) -> None:
        """Revoke a task by its result."""
        self.ask("revoke", task_id, how)

    def flow(self, name: str, *args: Any) -> Any:
        """What a function of the project's `flows.py` returns."""
        return self.ask("flow", name, args)

    def state(self, task_id: str) -> str:
        answer: str = self.ask("state", task_id)
        return answer


#: How a remote command is sent, beside its own arguments.
_HOW = ("destination", "pattern", "matcher", "timeout", "limit", "reply")


def _serve() -> None:
    # Celery's results unsubscribe when they are freed. Freed by a collection that begins while redis-py holds the lock
    # of the same subscriptions, they wait for it for ever; without collections Celery's clients do not hang.
    gc.disable()
    import proj

    app = proj.app

    def outcome(task_id: str, timeout: float) -> dict[str, Any]:
        result = app.AsyncResult(task_id)
        value = result.get(timeout=timeout, propagate=False)
        found = {"state": result.state, "traceback": result.traceback}
        if isinstance(value, BaseException):
            kind = type(value)
            known = {"proj.Odd": proj.Odd, "ValueError": ValueError}
            is_known = any(kind is each for each in known.values())
            return {**found, "error": kind.__name__, "args": list(value.args), "own_class": is_known}
        return {**found, "value": value}

    def broadcast(method: str, arguments: dict[str, Any]) -> Any:
        how = {name: arguments.pop(name) for name in _HOW if name in arguments}
        return app.control.broadcast(method, arguments=arguments, **{"reply": True, **how})

    def flow(name: str, args: Any) -> Any:
        import flows

        return getattr(flows, name)(*args)

    serve(
        {
            "flow": flow,
            "send": lambda task, args, kwargs, options: getattr(proj, task).apply_async(args, kwargs, **options).id,
            "send_by_name": lambda name, args: app.send_task(name, args).id,
            "get": lambda task_id, timeout: app.AsyncResult(task_id).get(timeout=timeout),
            "outcome": outcome,
            "broadcast": broadcast,
            "inspect": lambda method, how: getattr(app.control.inspect(**how), method)(),
            "revoke": lambda task_id, how: app.AsyncResult(task_id).revoke(**how),
            "state": lambda task_id: app.AsyncResult(task_id).state,
        }
    )


if __name__ == "__main__":
    _serve()
