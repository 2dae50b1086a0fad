"""The addresses: which page, JSON or action answers, and what an error looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from opsq.exceptions import BrokerError, OpsqError, UsageError
from opsq.monitor import access, actions, api, metrics, pages
from opsq.monitor.access import Access
from opsq.monitor.facts import Facts
from opsq.monitor.guard import Guard, see_other
from opsq.monitor.live import Streams
from opsq.monitor.query import Query, limit

#: A form of ours is far smaller (bytes).
_FORM_LIMIT = 16_384
#: Path, name in the menu, what wide screens add to it, template.
PAGES = (
    ("/", "Overview", "", "overview"),
    ("/tasks", "Tasks", "", "tasks"),
    ("/schedule", "Schedule", "", "schedule"),
    ("/hosts", "Hosts", "", "hosts"),
    ("/dead", "Dead", "letters", "dead"),
)


class Web:
    """All addresses of one monitor. `closing`: whether the server is about to end; `secure`: it serves HTTPS."""

    def __init__(
        self, facts: Facts, rules: Callable[[], Access], prefix: str, closing: Callable[[], bool], secure: bool = False
    ) -> None:
        self.facts, self._rules, self._prefix, self._secure = facts, rules, prefix, secure
        self._templates: Environment = pages.environment(prefix)
        self._streams = Streams(lambda: facts.collector.health.changes, closing)

    def asgi(self) -> ASGIApp:
        """The application, behind its guard."""
        handlers: Mapping[Any, Any] = {HTTPException: self._http_error, OpsqError: self._own_error}
        return Guard(Starlette(routes=self._routes(), exception_handlers=handlers), self._rules, self._prefix)

    def _routes(self) -> list[Route | Mount]:
        made: list[Route | Mount] = [
            Route("/", self._overview),
            Route("/tasks", self._tasks),
            Route("/task/{task_id:path}", self._task),
            Route("/worker/{node:path}", self._worker),
            Route("/schedule", self._schedule),
            Route("/hosts", self._hosts),
            Route("/dead", self._dead),
            Route("/live", self._live),
            Route("/metrics", self._metrics),
            Route("/healthz", self._health),
            Route("/healthcheck", self._health),
            Route("/api", self._index),
            Route("/api/tasks/{task_id:path}", self._api_task),
            Route("/api/workers/{node:path}", self._api_worker),
            Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
        ]
        for path, (answer, _help) in api.LISTS.items():
            made.append(Route(f"/api/{path}", partial(self._api, answer)))
        for path, act in actions.ACTIONS.items():
            made.append(Route(f"/do/{path}", partial(self._act, act), methods=["POST"]))
        return made

    # -- pages ---------------------------------------------------------------------------------------------------------

    def _overview(self, request: Request) -> Response:
        return self._page(request, "overview", "Overview", pages.overview(self.facts))

    def _tasks(self, request: Request) -> Response:
        return self._page(request, "tasks", "Tasks", pages.tasks(self.facts, Query.of(request.query_params)))

    def _task(self, request: Request) -> Response:
        told = self._found(self.facts.task(request.path_params["task_id"]), "Nothing is known of this task (any more).")
        return self._page(request, "task", told["name"] or "Task", pages.task(told))

    def _worker(self, request: Request) -> Response:
        node = request.path_params["node"]
        worker = self._found(self.facts.worker(node), f"No worker {node} has been heard of in the last hour.")
        latest = self.facts.tasks(Query(worker=worker["node"]).wanted(), 20)["tasks"]
        return self._page(request, "worker", worker["node"], {"worker": worker, "tasks": latest})

    def _schedule(self, request: Request) -> Response:
        return self._page(request, "schedule", "Schedule", {"entries": self.facts.schedule()})

    def _hosts(self, request: Request) -> Response:
        return self._page(request, "hosts", "Hosts", pages.hosts(self.facts.hosts()))

    def _dead(self, request: Request) -> Response:
        return self._page(request, "dead", "Dead letters", self.facts.dead(limit(request.query_params)))

    def _page(self, request: Request, name: str, title: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """A page for this browser, which gets a number the first time."""
        rules = self._rules()
        session = access.session_of(request.headers.get("cookie"))
        fresh = "" if session or not rules.may_act else access.new_session()
        common: dict[str, Any] = {
            "title": title,
            "here": name,
            "pages": PAGES,
            "said": pages.SAID.get(request.query_params.get("done", "")),
            "may_act": rules.may_act,
            "read_only": "" if rules.may_act else "read-only" if rules.read_only else "read-only without a password",
            "token": rules.token(session or fresh),
        }
        common["monitor"] = None if status == 503 else values.get("monitor") or self.facts.monitor()
        text = self._templates.get_template(f"{name}.html").render({**values, **common})
        answer = Response(text.encode(errors="replace"), status, media_type="text/html; charset=utf-8")
        if fresh:
            answer.headers["Set-Cookie"] = access.set_cookie(
                fresh, self._prefix, self._secure or request.url.scheme == "https"
            )
        return answer

    def _found(self, value: dict[str, Any] | None, otherwise: str) -> dict[str, Any]:
        if value is None:
            raise HTTPException(404, otherwise)
        return value

    # -- JSON, metrics, health, stream ---------------------------------------------------------------------------------

    def _api(self, answer: Callable[[Facts, Mapping[str, str]], dict[str, Any]], request: Request) -> Response:
        return _json(answer(self.facts, request.query_params))

    def _api_task(self, request: Request) -> Response:
        return _json(self._found(self.facts.task(request.path_params["task_id"]), "nothing is known of this task"))

    def _api_worker(self, request: Request) -> Response:
        return _json(self._found(self.facts.worker(request.path_params["node"]), "there is no such worker"))

    def _index(self, _request: Request) -> Response:
        return _json(api.index())

    def _metrics(self, _request: Request) -> Response:
        return Response(metrics.text(self.facts).encode(errors="replace"), media_type=metrics.CONTENT_TYPE)

    def _health(self, _request: Request) -> Response:
        well = self.facts.collector.health.connected_since is not None
        return JSONResponse({"ok": well}, 200 if well else 503)

    async def _live(self, _request: Request) -> Response:
        if self._streams.full:
            raise HTTPException(503, "too many pages are open")
        return StreamingResponse(self._streams.stream(), media_type="text/event-stream")

    # -- actions -------------------------------------------------------------------------------------------------------

    async def _act(self, act: Callable[[Facts, Mapping[str, str]], actions.Done], request: Request) -> Response:
        rules = self._rules()
        form = await _form(request)
        if not rules.may_act:
            raise HTTPException(403, "This monitor is read-only.")
        if refused := rules.forged(request.headers, form.get(access.TOKEN_FIELD, "")):
            raise HTTPException(403, f"The request was refused: {refused}.")
        done = await run_in_threadpool(act, self.facts, form)
        self.facts.forget()
        return see_other(f"{self._prefix}{done.page}?done={done.word}")

    # -- errors --------------------------------------------------------------------------------------------------------

    def _http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = {404: "Not found", 403: "Refused", 405: "Not this way"}.get(error.status_code, "That did not work")
        text = "There is no such page." if error.detail == "Not Found" else error.detail
        return self._error(request, error.status_code, title, text, "")

    def _own_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, OpsqError)
        status = 400 if isinstance(error, UsageError) else 503 if isinstance(error, BrokerError) else 500
        title = "Redis does not answer" if status == 503 else "That did not work"
        return self._error(request, status, title, str(error), error.hint)

    def _error(self, request: Request, status: int, title: str, text: str, hint: str) -> Response:
        if request.url.path.startswith(f"{self._prefix}/api") or request.url.path.startswith("/api"):
            return _json({"error": {"what": text, "why": None, "hint": hint or None}}, status)
        values = {"text": text, "hint": hint, "monitor": {**_NOBODY} if status != 503 else None}
        return self._page(request, "message", title, values, status)


#: What an error's page says of the monitor: nothing that would have to be read from Redis.
_NOBODY = {"trouble": None, "skipped_last_hour": 0, "version": "", "app": "", "broker": ""}


def _json(value: Any, status: int = 200) -> Response:
    return Response(api.encode(value), status, media_type="application/json")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises HTTPException when it is none of ours."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise HTTPException(415, "This is no form.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM_LIMIT:
            raise HTTPException(413, "The form is too large.")
    return dict(parse_qsl(body.decode(errors="replace"), max_num_fields=20))
