"""Messages that lack something or are odd: one for each row of the probe that was made with a real Celery worker."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

TASK = "proj.add"
ARGUMENTS: list[Any] = [1, 2]
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@dataclass(frozen=True)
class Row:
    """One message: does a worker run it, and does it tell its id?"""

    label: str
    make: Callable[[str], bytes]
    runs: bool = False
    knows_id: bool = True
    state: str = "FAILURE"
    is_dead: bool = True


def body_text(args: Any = None, kwargs: Any = None, embed: Any = EMBED) -> str:
    triple = [ARGUMENTS if args is None else args, {} if kwargs is None else kwargs, embed]
    return base64.b64encode(json.dumps(triple).encode()).decode()


def whole(task_id: str) -> dict[str, Any]:
    """A complete message, as a Celery client sends it."""
    headers = {"lang": "py", "task": TASK, "id": task_id, "shadow": None, "eta": None, "expires": None, "group": None}
    headers |= {"group_index": None, "retries": 0, "timelimit": [None, None], "root_id": task_id, "parent_id": None}
    headers |= {"argsrepr": "(1, 2)", "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": False}
    headers |= {"replaced_task_nesting": 0, "stamped_headers": None, "stamps": {}}
    properties = {"correlation_id": task_id, "reply_to": "r", "delivery_mode": 2, "priority": 0}
    properties |= {"delivery_info": {"exchange": "", "routing_key": "celery"}, "body_encoding": "base64"}
    properties |= {"delivery_tag": f"tag-{task_id}"}
    message = {"body": body_text(), "content-encoding": "utf-8", "content-type": "application/json"}
    return {**message, "headers": headers, "properties": properties}


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], bytes]:
    def make(task_id: str) -> bytes:
        message = whole(task_id)
        change(message)
        return json.dumps(message).encode()

    return make


def with_value(place: str, value: Any) -> Callable[[str], bytes]:
    """The message with a value at `headers.eta` and the like."""
    *path, last = place.split(".")

    def change(message: dict[str, Any]) -> None:
        for key in path:
            message = message[key]
        message[last] = value

    return changed(change)


def without(place: str) -> Callable[[str], bytes]:
    *path, last = place.split(".")

    def change(message: dict[str, Any]) -> None:
        for key in path:
            message = message[key]
        del message[last]

    return changed(change)


def protocol_1(task_id: str, *, has_id: bool = True, headers: bool = False, args: Any = ARGUMENTS) -> bytes:
    body = {"task": TASK, "args": args, "kwargs": {}, "retries": 0, "eta": None, "expires": None, "utc": True}
    body |= {"callbacks": None, "errbacks": None, "timelimit": [None, None], "taskset": None, "chord": None}
    if has_id:
        body["id"] = task_id
    message = whole(task_id)
    message["headers"] = {"task": TASK, "id": task_id} if headers else {}
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps(message).encode()


def plain_body(message: dict[str, Any]) -> None:
    del message["properties"]["body_encoding"]
    message["body"] = base64.b64decode(message["body"]).decode()


def least_headers(message: dict[str, Any]) -> None:
    message["headers"] = {name: message["headers"][name] for name in ("task", "id")}


def least(message: dict[str, Any]) -> None:
    least_headers(message)
    kept = ("delivery_tag", "delivery_info", "body_encoding")
    message["properties"] = {name: message["properties"][name] for name in kept}


def two_elements(message: dict[str, Any]) -> None:
    message["body"] = base64.b64encode(b"[[1, 2], {}]").decode()


def unknown_encoding(message: dict[str, Any]) -> None:
    message.update({"content-type": "application/data", "content-encoding": "no-such-encoding"})


def whole_with_halves(task_id: str) -> bytes:
    message = whole(task_id)
    message["headers"] |= {"task": "\ud800", "id": "\udfff"}
    return json.dumps(message).encode()


PAST = datetime.now(UTC) - timedelta(hours=1)
OPTIONAL_HEADERS = (
    *("lang", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id"),
    *("argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps"),
)

RUNNING = {
    "complete message": lambda task_id: json.dumps(whole(task_id)).encode(),
    **{f"headers without {name}": without(f"headers.{name}") for name in OPTIONAL_HEADERS},
    **{
        f"properties without {name}": without(f"properties.{name}")
        for name in ("correlation_id", "reply_to", "delivery_mode", "priority")
    },
    "properties without body_encoding": changed(plain_body),
    "no content-encoding": without("content-encoding"),
    "only headers task+id": changed(least_headers),
    "minimal: task,id headers; properties delivery_tag, delivery_info{exchange,routing_key}, body_encoding": changed(
        least
    ),
    "embed {}": with_value("body", body_text(embed={})),
    "embed null": with_value("body", body_text(embed=None)),
    "lang=node": with_value("headers.lang", "node"),
    "eta naive past": with_value("headers.eta", PAST.replace(tzinfo=None).isoformat()),
    "eta Z suffix past": with_value("headers.eta", PAST.strftime("%Y-%m-%dT%H:%M:%SZ")),
    "timelimit null": with_value("headers.timelimit", None),
    "retries as string": with_value("headers.retries", "0"),
    "priority as string": with_value("properties.priority", "0"),
    "unknown extra header": with_value("headers.x-more", {"a": 1}),
    "unknown extra property": with_value("properties.x_more", [1]),
    "unknown extra top-level key": with_value("more", 1),
    "unknown embed key": with_value("body", body_text(embed={**EMBED, "more": 1})),
    "proto1 body, headers {}": protocol_1,
    "hybrid: proto1 body + task/id headers": lambda task_id: protocol_1(task_id, headers=True),
    "duplicate delivery_tag of an earlier message": with_value("properties.delivery_tag", "always the same"),
    "timelimit huge": with_value("headers.timelimit", [1e300, 1e12]),
    "priority huge": with_value("properties.priority", 10**30),
    "retries huge": with_value("headers.retries", 10**30),
    "stamps of another kind": with_value("headers.stamps", {"__type__": "unheard-of", "__value__": 1}),
}
REFUSED = {
    "properties without delivery_info": without("properties.delivery_info"),
    "properties without delivery_tag": without("properties.delivery_tag"),
    "delivery_info without exchange": without("properties.delivery_info.exchange"),
    "delivery_info without routing_key": without("properties.delivery_info.routing_key"),
    "no content-type": without("content-type"),
    "no properties": without("properties"),
    "no body": without("body"),
    "body has two elements": changed(two_elements),
    "args is a dict": with_value("body", body_text(args={"a": 1})),
    "kwargs is a list": with_value("body", body_text(kwargs=[1])),
    "eta garbage": with_value("headers.eta", "soon"),
    "expires as number": with_value("headers.expires", 5),
    "content-type application/x-nope": with_value("content-type", "application/x-nope"),
    "content-type application/x-python-serialize, body is json (accepted type)": with_value(
        "content-type", "application/x-python-serialize"
    ),
    "body not json": with_value("body", base64.b64encode(b"{not json").decode()),
    "body not base64": with_value("body", "%%% \u00e9"),
    "compression header unknown": with_value("headers.compression", "application/x-nope"),
    "unknown task": with_value("headers.task", "proj.nope"),
    "expires garbage": with_value("headers.expires", "later"),
    "embed is a list": with_value("body", body_text(embed=[1])),
    "embed is a number": with_value("body", body_text(embed=7)),
    "proto1 body, args is a number": lambda task_id: protocol_1(task_id, args=7),
    "eta is half a character": with_value("headers.eta", "\ud800"),
    "content-encoding unknown": changed(unknown_encoding),
    "timelimit garbage": with_value("headers.timelimit", "never"),
    "task is a number": with_value("headers.task", 7),
    "retries garbage": with_value("headers.retries", "many"),
    "body nested too deeply": with_value("body", base64.b64encode(b"[" * 100_000).decode()),
}
WITHOUT_ID = {
    "headers without task": without("headers.task"),
    "headers without id": without("headers.id"),
    "no headers": without("headers"),
    "headers null": with_value("headers", None),
    "proto1 body without id": lambda task_id: protocol_1(task_id, has_id=False),
    "envelope is not json": lambda _: b"{not json",
    "envelope is a json string": lambda _: b'"text"',
    "envelope is no text": lambda _: b"\xff\xfe\x00",
    "envelope is empty": lambda _: b"",
    "id is a number": with_value("headers.id", 7),
    "task is half a character, id too": whole_with_halves,
    "id is half a character": with_value("headers.id", "\ud800"),
}
ROWS = [
    *(Row(label, make, runs=True, state="SUCCESS", is_dead=False) for label, make in RUNNING.items()),
    *(Row(label, make) for label, make in REFUSED.items()),
    *(Row(label, make, knows_id=False) for label, make in WITHOUT_ID.items()),
    Row("expires past", with_value("headers.expires", PAST.isoformat()), state="REVOKED", is_dead=False),
]
