"""The first look at the servers, when a worker starts: they answer, they are new enough, and who stores results."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from opsq.config.broker import class_of_results
from opsq.datastore import keys
from opsq.datastore.connection import parse_url
from opsq.datastore.line import Ask, questions
from opsq.datastore.trouble import NoPermissionError, ResponseError
from opsq.exceptions import BrokerError, ImproperlyConfigured
from opsq.worker.settle import Results

logger = logging.getLogger("opsq.worker")
Looked = TypeVar("Looked")

#: Celery's exchange for the queues of single nodes.
DIRECT_EXCHANGE = "C.dq2"

#: Between two looks at a broker that cannot be reached at start (seconds).
BROKER_PAUSE_S = 0.5


def look(app: Any, url: str, node: str, own_id: str) -> Results:
    """Look at the broker at `url`, then at the results' server. Raises BrokerError, RefusedError, ImproperlyConfigured.

    `own_id`: of a worker whose name is taken because this process belongs to it.
    """
    patient, backend = _is_patient(app), app.backend
    _until_reached(lambda: _check_broker(url, node, app.broker.key_prefix, own_id), patient)
    found = _until_reached(lambda: results(url, backend), patient)
    if app.conf.worker_direct:
        _bind_own_queue(app.broker, node)
    return found


def own_queue(node: str) -> str:
    """The queue of this node alone, as Celery calls it (`worker_direct`)."""
    return f"{node}.dq2"


def _is_patient(app: Any) -> bool:
    """Whether a broker that cannot be reached at start is waited for.

    Under a supervisor or systemd it is: nobody reads an error there, and the broker may be starting too. Somebody who
    types the command wants to hear it. `broker_connection_retry_on_startup` decides if it is set.
    """
    wish = app.conf.broker_connection_retry_on_startup
    return bool(os.environ.get("NOTIFY_SOCKET")) if wish is None else bool(wish)


def _until_reached(look: Callable[[], Looked], patient: bool) -> Looked:
    """Look at a server; a patient worker says once that it cannot be reached, and looks again until it can."""
    told = False
    while True:
        try:
            return look()
        except BrokerError as error:
            if not patient:
                raise
            if not told:
                logger.warning("%s; waiting for it", error)
                told = True
            time.sleep(BROKER_PAUSE_S)


def _check_broker(url: str, node: str, prefix: str, own_id: str) -> None:
    """One look at the server at start: it answers, it is new enough; the name of this node may be taken."""
    with questions(url) as ask:
        ask([("PING",)])
        try:
            version = _about_server(ask)["redis_version"]
            if tuple(int(part) for part in version.split(".")[:2]) < (6, 2):
                raise ImproperlyConfigured(
                    f"cannot work with Redis {version} at {parse_url(url).address}",
                    why="opsq needs 6.2 or newer",
                )
        except (ResponseError, KeyError, ValueError):
            logger.debug("the server does not say its version")
        [members] = ask([("ZRANGE", prefix + keys.WORKERS, 0, -1)])
        alive = [name.decode() for name in members]
    if any(name.rpartition(":")[0] == node and name != own_id for name in alive):
        logger.warning("another worker goes by the name %s, or did until a moment ago; that does no harm", node)


def _bind_own_queue(broker: Any, node: str) -> None:
    """The queue of this node alone is reached through Celery's exchange for such, with the node's name as key."""
    member = keys.binding_member(node, own_queue(node), broker.priorities.separator)
    names = keys.binding(DIRECT_EXCHANGE), keys.binding_permanent(DIRECT_EXCHANGE)
    with questions(broker.url) as ask:
        ask([("SADD", broker.key(name), member) for name in names])


def _about_server(ask: Ask) -> dict[str, str]:
    """INFO of the server itself. Raises ResponseError where it is refused."""
    [text] = ask([("INFO", "server")])
    return dict(line.split(":", 1) for line in text.decode(errors="replace").splitlines() if ":" in line)


def _run_id(url: str) -> str | None:
    with questions(url) as ask:
        try:
            return _about_server(ask)["run_id"]
        except (NoPermissionError, KeyError):
            return None


def results(url: str, backend: Any) -> Results:
    """Whether the turn can store results: it can if they are on the broker's own server, by comparing its `run_id`.

    Where INFO is refused, only the same host and port are the same server.
    """
    if not backend.keeps_results:
        return Results()
    if class_of_results(backend.url):
        return replace(_results(backend, None), announces=True)
    where, other = parse_url(url), parse_url(backend.url)
    ids = [_run_id(url), _run_id(backend.url)]
    same = where.address == other.address if None in ids else ids[0] == ids[1]
    if where.address != other.address and (where.moves or other.moves):
        same = False  # they may part with the next failover
    return _results(backend, other.db if same else None)


def _results(backend: Any, database: int | None) -> Results:
    return Results(
        backend.key_prefix,
        backend.ttl_s,
        backend.format.failure_ttl_s,
        database,
        backend.store_records,
        backend.record,
        backend.chords.part,
        backend.chords.count,
    )
