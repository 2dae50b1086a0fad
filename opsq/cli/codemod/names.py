"""Where a name of Celery's or kombu's lives in opsq, and why some live nowhere.

Most are under the same path (`celery.result` is `opsq.result`); here stand the others. `module:name` is one name, a
module alone means all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

#: The packages whose imports are rewritten.
PACKAGES = ("celery", "kombu")

ELSEWHERE = {
    "celery.app:Celery": "opsq:Celery",
    "celery.app:shared_task": "opsq:shared_task",
    "celery.utils:nodename": "opsq.utils.nodenames:nodename",
    "celery.utils:nodesplit": "opsq.utils.nodenames:nodesplit",
    "celery.task.schedules:crontab": "opsq.schedules:crontab",
    "celery.task:Task": "opsq:Task",
    "celery.task:task": "opsq:shared_task",
    "celery.utils:worker_direct": "opsq.utils.nodenames:worker_direct",
    "celery.local:Proxy": "opsq._state:Proxy",
    "kombu:Exchange": "opsq:Exchange",
    "kombu:Queue": "opsq:Queue",
    "kombu:binding": "opsq:binding",
    "kombu:uuid": "opsq:uuid",
    "kombu.common:Broadcast": "opsq:Broadcast",
    "kombu.common:uuid": "opsq:uuid",
    "kombu.entity:Exchange": "opsq:Exchange",
    "kombu.entity:Queue": "opsq:Queue",
    "kombu.entity:binding": "opsq:binding",
    "kombu.exceptions:ContentDisallowed": "opsq.exceptions:ContentDisallowed",
    "kombu.exceptions:DecodeError": "opsq.exceptions:DecodeError",
    "kombu.exceptions:EncodeError": "opsq.exceptions:EncodeError",
    "kombu.exceptions:KombuError": "opsq.exceptions:OpsqError",
    "kombu.exceptions:OperationalError": "opsq.exceptions:OperationalError",
    "kombu.serialization:register": "opsq.serialization:register",
    "kombu.serialization:registry": "opsq.serialization:registry",
    "kombu.serialization:unregister": "opsq.serialization:unregister",
    "kombu.compression:register": "opsq.compression:register",
    "kombu.utils:cached_property": "functools:cached_property",
    "kombu.utils:uuid": "opsq:uuid",
    "kombu.utils.json:register_type": "opsq.serialization:register_type",
    "kombu.utils.objects:cached_property": "functools:cached_property",
    "kombu.utils.uuid:uuid": "opsq:uuid",
}

_ENGINE = "it is part of Celery's engine; opsq's is another one"
_PROGRAM = "the command line is opsq's: use the command `opsq`"
_TEXT = "it is a helper of Celery's own code: Python's library or a few lines of your own do it"
_RESULTS = "results are kept by another interface: see docs/extending.md"
_MESSAGES = "opsq has no kombu: messages that are no tasks are not its business"
_UP = "`opsq up` starts, stops and watches programs"

REASONS = {
    "celery:VERSION": "ask for opsq.__version__",
    "celery:VERSION_BANNER": "ask for opsq.__version__",
    "celery:version_info": "ask for opsq.__version__",
    "celery:version_info_t": "ask for opsq.__version__",
    "celery:SERIES": "it is a joke of Celery's",
    "celery:bugreport": "`opsq doctor` says more",
    "celery:maybe_patch_concurrency": "the pools gevent and eventlet patch their own process: worker -P gevent",
    "celery:execute": "app.send_task(name)",
    "celery:log": "connect to the signals around logging",
    "celery:messaging": _MESSAGES,
    "celery:registry": "app.tasks",
    "celery.app.amqp": "opsq has no AMQP objects: see docs/sending.md",
    "celery.app.annotations": "use the setting task_annotations",
    "celery.app.backends": _RESULTS,
    "celery.app.base:PendingConfiguration": "settings are read when they are first needed: app.conf",
    "celery.app.builtins": "each app has these tasks by their names",
    "celery.app.defaults": "app.conf has every setting; docs/reference/settings.md lists them",
    "celery.app.trace": _ENGINE,
    "celery.app.utils": "app.conf has every setting, `opsq config` shows them",
    "celery.app:AppPickler": "an app is not pickled: import it",
    "celery.app:bugreport": "`opsq doctor` says more",
    "celery.app:default_app": "from opsq import current_app",
    "celery.app:disable_trace": "it is a debugging aid of Celery's own",
    "celery.app:enable_trace": "it is a debugging aid of Celery's own",
    "celery.app:pop_current_task": "task.pop_request()",
    "celery.app:push_current_task": "task.push_request()",
    "celery.app.log:Logging": "connect to the signals setup_logging or after_setup_logger",
    "celery.apps": _PROGRAM,
    "celery.backends": _RESULTS,
    "celery.beat:BeatPidbox": "`opsq schedule` speaks to the beat",
    "celery.beat:EmbeddedService": "use worker -B",
    "celery.beat:PersistentScheduler": "the schedule is kept in Redis; leave the setting beat_scheduler out",
    "celery.beat:Service": "run `opsq beat`",
    "celery.bin": _PROGRAM,
    "celery.bootsteps": "the worker is not made of steps: see docs/extending.md for what takes their place",
    "celery.concurrency": "the pools are opsq's: worker -P prefork, solo, threads, asyncio, gevent, eventlet",
    "celery.contrib.migrate": "`opsq queues move` moves messages",
    "celery.contrib.rdb": "worker -P solo keeps standard input: breakpoint() works there",
    "celery.contrib.sphinx": "sphinx documents the function: task.__wrapped__",
    "celery.contrib.testing.manager": "it is of Celery's own tests",
    "celery.contrib.testing.mocks": "it is of Celery's own tests",
    "celery.decorators": "it is of Celery 4: from opsq import shared_task",
    "celery.task": "it is of Celery 4",
    "celery.task.control": "it is of Celery 4: app.control has it",
    "celery.task:PeriodicTask": "it is of Celery 4: beat_schedule names the task, or app.add_periodic_task",
    "celery.task:periodic_task": "it is of Celery 4: beat_schedule names the task, or app.add_periodic_task",
    "celery.events.cursesmon": "`opsq events` and `opsq top` show it",
    "celery.events.dumper": "`opsq events --dump` does it",
    "celery.events.snapshot": "`opsq monitor` keeps history: see docs/monitor.md",
    "celery.events.dispatcher": "app.events.Dispatcher(connection)",
    "celery.events.receiver": "app.events.Receiver(connection, handlers=...)",
    "celery.events.state:heartbeat_expires": "worker.alive() of the state tells it",
    "celery.events:Event": "an event is a dict",
    "celery.events:EventDispatcher": "app.events.Dispatcher(connection)",
    "celery.events:EventReceiver": "app.events.Receiver(connection, handlers=...)",
    "celery.events:event_exchange": _MESSAGES,
    "celery.events:get_exchange": _MESSAGES,
    "celery.events:group_from": _MESSAGES,
    "celery.exceptions:CeleryCommandException": _PROGRAM,
    "celery.exceptions:reraise": "raise error.with_traceback(...)",
    "celery.fixups": "Django is found by itself",
    "celery.loaders": "an app is configured by config_from_object; modules are found by -A and include",
    "celery.local": "it is of Celery's own lazy modules",
    "celery.platforms:DaemonContext": _UP,
    "celery.platforms:Pidfile": _UP,
    "celery.platforms:LockFailed": _UP,
    "celery.platforms:close_open_fds": _UP,
    "celery.platforms:create_pidlock": _UP,
    "celery.platforms:detached": _UP,
    "celery.platforms:fd_by_path": _UP,
    "celery.platforms:get_errno_name": "errno.errorcode",
    "celery.platforms:get_fdmax": _UP,
    "celery.platforms:ignore_errno": "contextlib.suppress",
    "celery.platforms:initgroups": _UP,
    "celery.platforms:isatty": "stream.isatty()",
    "celery.platforms:maybe_drop_privileges": "worker --uid",
    "celery.platforms:parse_gid": "worker --gid",
    "celery.platforms:parse_uid": "worker --uid",
    "celery.platforms:pyimplementation": "platform.python_implementation()",
    "celery.platforms:set_mp_process_title": "setproctitle",
    "celery.platforms:set_process_title": "setproctitle",
    "celery.platforms:setgid": "worker --gid",
    "celery.platforms:setgroups": "worker --gid",
    "celery.platforms:setuid": "worker --uid",
    "celery.platforms:signals": "Python's module signal",
    "celery.platforms:SIGMAP": "Python's module signal",
    "celery.security": "app.setup_security() is there; its parts are opsq's own",
    "celery.utils.abstract": _TEXT,
    "celery.utils.collections": _TEXT,
    "celery.utils.debug": _TEXT,
    "celery.utils.deprecated": _TEXT,
    "celery.utils.dispatch.signal": "from opsq.utils.dispatch import Signal",
    "celery.utils.functional": _TEXT,
    "celery.utils.graph": "result.graph gives one",
    "celery.utils.imports": "importlib does it",
    "celery.utils.iso8601": "datetime.fromisoformat",
    "celery.utils.log:ColorFormatter": "connect to after_setup_logger and set a formatter of your own",
    "celery.utils.log:LoggingProxy": "contextlib.redirect_stdout",
    "celery.utils.log:LOG_LEVELS": "logging.getLevelNamesMapping()",
    "celery.utils.log:mlevel": "logging.getLevelNamesMapping()",
    "celery.utils.log:base_logger": "logging.getLogger('celery')",
    "celery.utils.log:get_multiprocessing_logger": "children do not use multiprocessing",
    "celery.utils.log:reset_multiprocessing_logger": "children do not use multiprocessing",
    "celery.utils.log:in_sighandler": "no code of yours runs in a signal handler",
    "celery.utils.log:set_in_sighandler": "no code of yours runs in a signal handler",
    "celery.utils.nodenames:anon_nodename": _TEXT,
    "celery.utils.nodenames:host_format": "node_format does it",
    "celery.utils.objects": _TEXT,
    "celery.utils.saferepr": "reprlib",
    "celery.utils.serialization": _TEXT,
    "celery.utils.static": _TEXT,
    "celery.utils.sysinfo": "psutil",
    "celery.utils.term": "rich, or click.style",
    "celery.utils.text": _TEXT,
    "celery.utils.threads": "Python's threading",
    "celery.utils.timer2": "Python's threading.Timer",
    "celery.utils.time": "datetime and zoneinfo do it",
    "celery.utils:LOG_LEVELS": "logging.getLevelNamesMapping()",
    "celery.utils:chunks": _TEXT,
    "celery.utils:gen_task_name": "app.gen_task_name(name, module)",
    "celery.utils:get_cls_by_name": "importlib does it",
    "celery.utils:get_full_cls_name": _TEXT,
    "celery.utils:import_from_cwd": "importlib does it",
    "celery.utils:instantiate": "importlib does it",
    "celery.utils:memoize": "functools.lru_cache",
    "celery.utils:noop": _TEXT,
    "celery.worker.autoscale:WorkerComponent": "the worker is not made of steps",
    "celery.worker.components": "the worker is not made of steps",
    "celery.worker.consumer": "the worker is not made of steps: see docs/extending.md",
    "celery.worker.heartbeat": _ENGINE,
    "celery.worker.loops": _ENGINE,
    "celery.worker.state": "`opsq inspect` tells what a worker runs and holds",
    "celery.worker.strategy": _ENGINE,
    "celery.worker.worker": _ENGINE,
    "celery.worker:WorkController": "run `opsq worker`, or opsq.contrib.testing.worker.start_worker in tests",
    "celery.beat:ScheduleEntry": "entries are mappings, as in beat_schedule",
    "celery.beat:Scheduler": "subclass opsq.beat.scheduler.Scheduler, which says less: see docs/extending.md",
    "celery.beat:SchedulingError": "what cannot be sent is logged, and told by `opsq schedule`",
    "celery.contrib.testing.app:UnitLogging": "tests see what is logged without it",
    "celery.contrib.testing.worker:TestWorkController": "TestWorker is what start_worker yields",
    "celery.worker.autoscale:Autoscaler": "subclass opsq's, which says another thing: see docs/extending.md",
    "kombu": _MESSAGES,
    "kombu.transport": "opsq's broker is Redis, spoken to without kombu's transports",
}

#: Names that are not the same although they are in the same place: what `utils.time` has is opsq's own.
_SAME = frozenset({"celery.utils.time:maybe_timedelta", "celery.utils.time:make_aware"})


class Home(NamedTuple):
    """Where a name is to be imported from."""

    module: str
    name: str


def home_of(module: str, name: str) -> Home | None:
    """Where a name of a module of Celery's or kombu's is in opsq; None: nowhere, and `reason` says why."""
    key = f"{module}:{name}"
    if key in ELSEWHERE:
        where, _, new = ELSEWHERE[key].partition(":")
        return Home(where, new) if _is_there(where, new) else None
    if key not in _SAME and (key in REASONS or f"{module}.{name}" in REASONS or _reason_of(module)):
        return None
    own = own_path(module)
    return Home(own, name) if own and _is_there(own, name) else None


def own_path(module: str) -> str:
    """The path of a module of Celery's in opsq, whether there is one or not; nothing for kombu's."""
    first, dot, rest = module.partition(".")
    return f"opsq{dot}{rest}" if first == "celery" else ""


def module_is_there(module: str) -> bool:
    """Whether a whole module of Celery's is there in opsq."""
    own = own_path(module)
    return bool(own) and not _reason_of(module) and _spec(own)


def reason(module: str, name: str = "") -> str:
    """Why a name, or a module, cannot be moved."""
    if f"{module}:{name}" in ELSEWHERE:
        return "opsq accepts kombu's objects as they are"
    found = REASONS.get(f"{module}:{name}") or REASONS.get(f"{module}.{name}") or _reason_of(module)
    return found or "opsq has no such name"


def _reason_of(module: str) -> str:
    while module:
        if module in REASONS:
            return REASONS[module]
        module = module.rpartition(".")[0]
    return ""


def _is_there(module: str, name: str) -> bool:
    if not _spec(module):
        return False
    try:
        return name == "*" or hasattr(importlib.import_module(module), name) or _spec(f"{module}.{name}")
    except ImportError:  # it needs a library that is not installed here
        return False


def _spec(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
