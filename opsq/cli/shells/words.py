"""The words that only we know: programs, queues, tasks, hosts. Fast, and silent where something is not there."""

from __future__ import annotations

import json
from collections.abc import Iterable

from opsq.cli.context import Context
from opsq.exceptions import OpsqError

#: Who presses Tab does not wait longer than this for a server, seconds.
_PATIENCE_S = 0.5


def words(context: Context, kind: str) -> list[str]:
    """All words of a kind, sorted."""
    try:
        if kind in ("programs", "targets"):
            return sorted({*_programs(context), *(("all",) if kind == "targets" else ())})
        return sorted({*_in_redis(context, kind)})
    except OpsqError:
        return []


def _programs(context: Context) -> Iterable[str]:
    """Names and groups: of what runs here, else of what the project's file says."""
    from opsq.supervisor import statefile

    kept = statefile.read(context.state_dir)
    if kept is not None:
        programs = kept.plan.programs.values()
        return {name for program in programs for name in (program.name, program.group) if name}
    import os

    from opsq.config import toml_file

    path = toml_file.find(os.getcwd())
    file = toml_file.load(path) if path is not None else None
    ours = toml_file.SERVICES if file is None or file.services is None else file.services
    return {*ours, *(file.programs if file else ())}


def _in_redis(context: Context, kind: str) -> Iterable[str]:
    from opsq.datastore import keys
    from opsq.datastore.line import questions
    from opsq.supervisor import statefile

    kept = statefile.read(context.state_dir)
    broker = kept.plan.broker if kept is not None else None
    url, prefix = (broker.url, broker.key_prefix) if broker else context.configured_address()[:2]
    with questions(url, _PATIENCE_S) as ask:
        if kind == "tasks":
            (ids,) = ask([("ZRANGE", prefix + keys.WORKERS, 0, -1)])
            names = [prefix + keys.worker(each.decode()) for each in ids]
            (records,) = ask([("MGET", *names)]) if names else ([],)
            return [task for record in records if record for task in json.loads(record).get("tasks") or ()]
        (members,) = ask([("SMEMBERS", prefix + keys.QUEUES if kind == "queues" else keys.HOSTS)])
        return [member.decode(errors="replace") for member in members]
