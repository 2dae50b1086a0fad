"""What is known of a task as a row of the table of results, and back, as django-celery-results writes and reads it."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from typing import Any

import msgspec
from django.utils import timezone

from opsq import states
from opsq.backends.base import Format, as_exception
from opsq.contrib.django.results_models import TaskResult
from opsq.exceptions import DecodeError, EncodeError
from opsq.protocol import codec, failure

#: What the values belong to, for formats that sign them.
_ABOUT = b"result"
#: Columns of the call, which are empty without `result_extended`.
_CALL = ("task_name", "task_args", "task_kwargs", "worker", "periodic_task_name")
#: What one who tells of a task writes, and thereby overwrites: not when it was heard of first, or started.
WRITTEN = ("status", "content_type", "content_encoding", "result", "traceback", "meta", *_CALL)
#: The longest texts that the columns take; what is only shown is cut off, so that the result is kept.
_LONGEST = {name: TaskResult._meta.get_field(name).max_length for name in ("task_name", "worker", "periodic_task_name")}

Columns = dict[str, Any]

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class Rows:
    """Makes rows of runs, in the format that the settings want."""

    def __init__(self, wanted: Format) -> None:
        self.format = wanted
        self.kind, self.encoding = codec.kind_of(wanted.serializer)
        #: The same for most.
        self._childless = self.content({"children": []})

    def record(self, task_id: str, state: str, value: Any, traceback: str | None, request: Any) -> bytes:
        """The columns of a row as bytes. Raises EncodeError."""
        columns = self.columns(task_id, state, value, traceback, request)
        try:
            return _encode(columns)
        except UnicodeEncodeError as error:
            raise EncodeError("cannot write the result", why=str(error)) from error

    @staticmethod
    def read(data: bytes) -> Columns:
        """What `record` has written."""
        found: Columns = _decode(data)
        return found

    def columns(self, task_id: str, state: str, value: Any, traceback: str | None, request: Any) -> Columns:
        """The columns of a row. Raises EncodeError."""
        found: Columns = {
            "task_id": task_id,
            "status": state,
            "content_type": self.kind,
            "content_encoding": self.encoding,
            "result": self._result(value),
            "traceback": None if traceback is None else _storable(traceback),
            "meta": self._meta(request),
        }
        if self.format.extended and request is not None:
            found |= self._call_of(request)
        return found

    def content(self, value: Any) -> str:
        """A value as the columns hold it. Raises EncodeError."""
        data = codec.encode(value, self.format.serializer, _ABOUT)[2]
        return base64.b64encode(data).decode() if self.encoding == "binary" else data.decode(self.encoding)

    def _result(self, value: Any) -> str:
        if not isinstance(value, BaseException):
            return self.content(value)
        if self.format.serializer == "pickle":
            with suppress(EncodeError):
                return self.content(value)
        return self.content(failure.to_data(value))

    def _meta(self, request: Any) -> str:
        """What was sent by the task and where it stands, beside what the program has put into `request.meta`."""
        if request is None:
            return self.content({"children": None})
        known = request.at_hand()
        children = known.get("children")
        own = getattr(request, "meta", None) if "meta" in known or _speaks_of_meta(request) else None
        place = {"group_id": known.get("group"), "parent_id": known.get("parent_id")}
        place = {name: value for name, value in place.items() if value}
        if place.get("parent_id"):
            place["root_id"] = request.root_id
        if not children and not own and not place:
            return self._childless
        return self.content({**(own or {}), **place, "children": [child.as_tuple() for child in children or ()]})

    def _call_of(self, request: Any) -> Columns:
        name = getattr(request.task, "name", None)
        if name is None and request.envelope is not None:
            name = request.envelope.headers.task
        return {
            "task_name": _cut("task_name", name),
            "task_args": self._argument(getattr(request, "argsrepr", None), request.args),
            "task_kwargs": self._argument(getattr(request, "kwargsrepr", None), request.kwargs),
            "worker": _cut("worker", request.hostname),
            "periodic_task_name": _cut("periodic_task_name", getattr(request, "periodic_task_name", None)),
        }

    def _argument(self, told: Any, value: Any) -> str | None:
        """Arguments as the caller has put them into words, else themselves; they must not cost the result."""
        shown = value if told is None else told
        if shown is None:
            return None
        try:
            return self.content(shown)
        except EncodeError:
            return self.content(repr(shown))

    # -- reading -------------------------------------------------------------------------------------------------------

    def meta_of(self, row: TaskResult) -> dict[str, Any]:
        """What a row says. Raises DecodeError, ContentDisallowed."""
        meta = self.value_of(row, row.meta) or {}
        result = self.value_of(row, row.result)
        args, kwargs = self._shown(row, row.task_args), self._shown(row, row.task_kwargs)
        return {
            "task_id": row.task_id,
            "name": row.task_name,
            "task_name": row.task_name,
            "status": row.status,
            "date_done": row.date_done,
            "traceback": row.traceback,
            "worker": row.worker,
            **meta,
            "result": as_exception(result) if row.status in states.EXCEPTION_STATES else result,
            "task_args": args,
            "task_kwargs": kwargs,
            "args": args,
            "kwargs": kwargs,
        }

    def value_of(self, row: Any, content: str | None) -> Any:
        """The value of a column of a row. Raises DecodeError, ContentDisallowed."""
        if not content:
            return None
        try:
            data = base64.b64decode(content) if row.content_encoding == "binary" else content.encode()
        except binascii.Error as error:
            raise DecodeError("cannot read a row of the results", why=str(error)) from error
        return codec.decode(data, row.content_type, row.content_encoding, self.format.accept, _ABOUT)

    def _shown(self, row: TaskResult, content: str | None) -> Any:
        """Arguments; as they are where they were written in another way."""
        try:
            return self.value_of(row, content)
        except DecodeError:
            return content


def made(columns: Columns) -> TaskResult:
    """The row of these columns, not saved."""
    row = TaskResult(**columns)
    if row.status == states.STARTED:
        row.date_started = timezone.now()
    return row


def _speaks_of_meta(request: Any) -> bool:
    """Whether the message may carry a header of this name."""
    return request.envelope is not None and b'"meta"' in request.envelope.raw


def _cut(column: str, text: Any) -> str | None:
    return None if text is None else _storable(str(text))[: _LONGEST[column]]


def _storable(text: str) -> str:
    """A text without what databases refuse."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
