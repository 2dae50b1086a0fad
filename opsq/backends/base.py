"""The record of a result, as Celery writes and reads it, and what every place for results can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any, Protocol

import msgspec

from opsq import states
from opsq.exceptions import ContentDisallowed, EncodeError, ImproperlyConfigured
from opsq.protocol import codec, compression, failure, jsontypes

#: Before compressed records, then the content type, NUL, the bytes (wire section 4.1).
COMPRESSED = b"\x00celery-compressed\x00"
DAY_S = 86_400
#: Shorter records are never compressed: nothing would be won (bytes).
COMPRESS_FROM = 1024

_quoted = msgspec.json.encode


class Backend(Protocol):
    """A place where results are kept."""

    keeps_results: bool
    #: Whether what has expired goes by itself; else somebody has to call `cleanup` now and then.
    expires_itself: bool

    @property
    def url(self) -> str | None:
        """Where it is; None for a place that keeps none."""

    def record(self, request: Any, state: str, value: Any, traceback: str | None) -> bytes:
        """The bytes to store for a run. Raises EncodeError."""

    def writes(self, request: Any, state: str, value: Any, traceback: str | None = None) -> tuple[str, bytes, int]:
        """Key, bytes and seconds to live of a run's result, for whoever writes it together with other things."""

    def store(self, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None) -> None:
        """Store a state and tell those who wait; a stored success stays."""

    def store_records(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Store key, seconds to live, record of each, and tell those who wait."""

    def get_meta(self, task_id: str) -> dict[str, Any]:
        """What is known of a task; PENDING when nothing is."""

    def get_metas(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is known of several tasks, by id; nothing of those of which nothing is known, or that cannot be read."""

    def stored(self, limit: int = 0) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
        """Id and record of results that are stored, in no order (0 = all), and whether there are more."""

    def wait(
        self,
        ids: Sequence[str],
        timeout_s: float | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        interval_s: float = 0.5,
    ) -> dict[str, dict[str, Any]]:
        """Wait until all have ended; id -> what is known. Raises TimeoutError."""

    def wait_each(
        self,
        ids: Sequence[str],
        timeout_s: float | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        interval_s: float = 0.5,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id of each that has ended, as it ends, and what is known of it. Raises TimeoutError."""

    def forget(self, task_id: str) -> None:
        """Remove a result."""

    def cleanup(self) -> None:
        """Remove what has expired, where it does not go by itself."""

    def save_group(self, group_id: str, result: Any) -> None:
        """Store which results a group has."""

    def restore_group(self, group_id: str) -> Any:
        """Which results a group has, as a tuple; None when that was not stored."""

    def delete_group(self, group_id: str) -> None:
        """Remove what is stored of a group."""

    def set_chord_size(self, group_id: str, size: int, body: Mapping[str, Any]) -> None:
        """Say how many parts a chord has; before any of them is sent."""

    def begin_chord(self, header: Any) -> None:
        """Store which results the header of a chord has, if there are groups among them."""

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """A chord has one part more."""

    def chord_member(self, task_id: str, state: str, value: Any) -> bytes:
        """A part of a chord as it is kept until the others are there. Raises EncodeError."""

    def count_parts(self, parts: Iterable[Any]) -> None:
        """Count parts of chords that have ended where there is no turn that does it."""

    def exists(self, task_id: str) -> bool:
        """Whether anything is stored for a task."""


#: What signed records are about.
_ABOUT = b"result"


@dataclass(frozen=True, slots=True)
class Format:
    """How the settings want records written and read. Times in seconds, 0 = for ever."""

    serializer: str = "json"
    accept: frozenset[str] = frozenset({"application/json"})
    compression: str | None = None
    extended: bool = False
    ttl_s: int = DAY_S
    failure_ttl_s: int = DAY_S

    @classmethod
    def of(cls, conf: Mapping[str, Any]) -> Format:
        """As the settings say."""
        ttl_s = _seconds(conf, "result_expires")
        failure_expires = conf["result_failure_expires"]
        accept = conf["result_accept_content"]
        serializer = conf["result_serializer"] or "json"
        codec.kind_of(serializer)
        if conf["result_compression"]:
            compression.check(conf["result_compression"])
        return cls(
            serializer=serializer,
            accept=codec.accepted(conf["accept_content"] if accept is None else accept),
            compression=conf["result_compression"],
            extended=bool(conf["result_extended"]),
            ttl_s=ttl_s,
            failure_ttl_s=ttl_s if failure_expires is None else _seconds(conf, "result_failure_expires"),
        )

    @property
    def simple(self) -> bool:
        """Whether a success can be written by its template."""
        return self.serializer == "json" and not self.extended

    def encode(self, meta: Mapping[str, Any] | Sequence[Any]) -> bytes:
        """A record's bytes. Raises EncodeError."""
        return self.packed(codec.encode(meta, self.serializer, _ABOUT)[2])

    def packed(self, data: bytes) -> bytes:
        """A record's bytes, compressed if they are to be and it makes them fewer: whoever reads sees it by its head."""
        if not self.compression or len(data) < COMPRESS_FROM:
            return data
        content_type, small = compression.compress(data, self.compression)
        packed = COMPRESSED + content_type.encode() + b"\x00" + small
        return packed if len(packed) < len(data) else data

    def decode(self, data: bytes) -> dict[str, Any]:
        """A record as it was stored, its exception made again. Raises DecodeError, ContentDisallowed."""
        meta: dict[str, Any] = self.decode_plain(data)
        if meta["status"] in states.EXCEPTION_STATES:
            meta["result"] = as_exception(meta["result"])
        return meta

    def decode_plain(self, data: bytes) -> Any:
        """What `encode` has written. Raises DecodeError, ContentDisallowed."""
        if data.startswith(COMPRESSED):
            content_type, _, packed = data.removeprefix(COMPRESSED).partition(b"\x00")
            data = compression.decompress(packed, content_type.decode())
        kind, encoding = codec.kind_of(self.serializer)
        try:
            return codec.decode(data, kind, encoding, self.accept, _ABOUT)
        except ContentDisallowed as error:
            hint = f"add {self.serializer!r} to result_accept_content"
            raise ContentDisallowed(error.what, why="it is not in result_accept_content", hint=hint) from None


def _seconds(conf: Mapping[str, Any], name: str) -> int:
    value = conf[name]
    try:
        return int(value.total_seconds() if isinstance(value, timedelta) else value or 0)
    except (TypeError, ValueError):
        raise ImproperlyConfigured(f"cannot use {name} = {value!r}", why="it is no time in seconds") from None


def as_exception(value: Any) -> Any:
    """A stored exception again, or nothing."""
    return value if not value or isinstance(value, BaseException) else failure.from_data(value)


class _Now:
    """The time as records hold it, made once a millisecond."""

    def __init__(self) -> None:
        self.ms, self.text = 0, b""

    def __call__(self) -> bytes:
        now = time()
        if self.ms != (ms := int(now * 1000)):
            self.ms, self.text = ms, datetime.fromtimestamp(now, UTC).isoformat().encode()
        return self.text


_now = _Now()


def encode_success(request: Any, value: Any) -> bytes | None:
    """The record of a success that has nothing but a value, as JSON; None if it needs `encode_meta`."""
    known = request.at_hand()
    if known.get("children") or known.get("group"):
        return None
    try:
        identity = _quoted(known["id"])
    except (UnicodeEncodeError, TypeError):
        return None
    result = jsontypes.dumps(value) if value is not None else b"null"
    parent = known.get("parent_id")
    middle = b'", "parent_id": %b, "task_id": ' % jsontypes.dumps(parent) if parent else b'", "task_id": '
    return b'{"status": "SUCCESS", "result": %b, "traceback": null, "children": [], "date_done": "%b%b%b}' % (
        result,
        _now(),
        middle,
        identity,
    )


def encode_meta(
    wanted: Format, task_id: str, state: str, result: Any, traceback: str | None = None, request: Any = None
) -> bytes:
    """The record of any state (wire section 4.1); exceptions as data, or themselves where pickle writes them."""
    if isinstance(result, BaseException):
        if wanted.serializer == "pickle":
            return _encode_pickled(wanted, _meta(wanted, task_id, state, result, traceback, request))
        result = failure.to_data(result)
    return wanted.encode(_meta(wanted, task_id, state, result, traceback, request))


def _encode_pickled(wanted: Format, meta: dict[str, Any]) -> bytes:
    try:
        return wanted.encode(meta)
    except EncodeError:
        return wanted.encode({**meta, "result": failure.to_data(meta["result"])})


def _meta(wanted: Format, task_id: str, state: str, result: Any, traceback: str | None, request: Any) -> dict[str, Any]:
    done = _now().decode() if state in states.READY_STATES else None
    children = None if request is None else [child.as_tuple() for child in request.children or ()]
    meta = {"status": state, "result": result, "traceback": traceback, "children": children, "date_done": done}
    if request is not None:
        if request.group:
            meta["group_id"] = request.group
        if request.parent_id:
            meta["parent_id"] = request.parent_id
        if wanted.extended:
            meta.update(_call_of(request))
    meta["task_id"] = task_id
    return meta


def _call_of(request: Any) -> dict[str, Any]:
    """What `result_extended` adds: the call, and where it ran."""
    stamps = request.stamps or {}
    stamped = {"stamped_headers": request.stamped_headers} if stamps else {}
    return {
        "name": request.task,
        "args": _writable(request.args),
        "kwargs": _writable(request.kwargs),
        "worker": request.hostname,
        "retries": request.retries,
        "queue": (request.delivery_info or {}).get("routing_key"),
        **stamped,
        **{name: value for name, value in stamps.items() if name in (request.stamped_headers or ())},
    }


def _writable(value: Any) -> Any:
    """Arguments that JSON cannot hold must not cost the result."""
    try:
        jsontypes.dumps(value)
    except EncodeError:
        return repr(value)
    return value
