"""The worker's ear for remote commands: takes what the thread of the leases has heard, carries it out, and replies.

It is a thread that begins with the first command. It has a connection of its own, so that no command, be it the
program's own, ever keeps the leases from being renewed.
"""

from __future__ import annotations

import fnmatch
import logging
import queue
import re
import threading
from typing import Any

from opsq.broker import mailbox
from opsq.broker.mailbox import Request
from opsq.datastore.trouble import TROUBLE
from opsq.exceptions import ContentDisallowed, DecodeError
from opsq.worker import control, inspection
from opsq.worker.panel import NO_REPLY, Panel, State

logger = logging.getLogger("opsq.worker")

#: The modules that fill the table.
COMMANDS = (control, inspection)


class Ear:
    """Hears commands for one node."""

    def __init__(self, state: State, accept: frozenset[str], serializer: str) -> None:
        """`accept`: content types of commands that are read; `serializer`: of replies."""
        self._state, self._accept, self._serializer = state, accept, serializer
        self._payloads: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def heard(self, payload: bytes) -> None:
        """A message has come to the mailbox; in the thread of the leases."""
        self._payloads.put(payload)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="opsq-remote", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Hear no more."""
        self._payloads.put(None)

    def _run(self) -> None:
        while (payload := self._payloads.get()) is not None:
            try:
                self._take(payload)
            except TROUBLE as error:
                logger.warning("a remote command cannot be answered: %s", error)
            except Exception:
                logger.exception("a remote command failed")

    def _take(self, payload: bytes) -> None:
        try:
            request = mailbox.read(payload, self._accept)
        except (DecodeError, ContentDisallowed) as error:
            logger.error("a remote command cannot be read: %s", error)
            return
        self._state.tick(request.clock)
        if not is_meant(request, self._state.hostname):
            return
        reply = self._reply(request)
        if request.reply_to is not None and reply is not NO_REPLY:
            post, whole = self._state.leases.post, {self._state.hostname: reply}
            told = request, whole, self._state.tick(), self._serializer, post.priorities.separator
            if not mailbox.send_reply(self._state.redis, post.key_prefix, *told):
                logger.debug("who sent the command %s does not wait for replies any more", request.method)

    def _reply(self, request: Request) -> Any:
        logger.debug("remote command %s %r", request.method, request.arguments)
        try:
            return Panel.data[request.method](self._state, **request.arguments)
        except KeyError as error:
            known = request.method in Panel.data
            logger.error("pidbox command error: %r", error, exc_info=error if known else None)
            return {"error": repr(error)}
        except Exception as error:
            logger.error("pidbox command error: %r", error, exc_info=error)
            return {"error": repr(error)}


def is_meant(request: Request, node: str) -> bool:
    """Whether a command is for a node: `destination` names it, or `pattern` fits, or it is for all."""
    if request.destination:
        return node in request.destination
    if request.pattern and request.matcher:
        match request.matcher:
            case "glob":
                return fnmatch.fnmatch(node, request.pattern)
            case "pcre":
                return re.match(request.pattern, node) is not None
        logger.error("a remote command asks for an unknown matcher: %s", request.matcher)
        return False
    return True
