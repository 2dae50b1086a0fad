"""What the chaos suite strikes: a Redis with an append-only file, two workers, a producer; and what they wrote down."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
from chaos.sentinels import Pair
from chaos.wire import Wire
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import redis_server
from support.namespaces import HUB, Network
from support.processes import Running, Spawner
from support.world import World, compiler

PATIENCE_S = 60.0
#: Seconds that a lease lasts when nobody says anything.
DEFAULT_LEASE_S = 15.0
QUEUES = ("celery", "side", "greedy")
#: Which queues a worker takes from: what `a` sends to the other queue only `b` runs.
TAKES = {"a": "celery,greedy", "b": "celery,side,greedy"}

#: `follow` sends its second half to another queue, as a retry does.
TASKS = """
import ctypes
import os
import random
import signal
import time
from contextlib import suppress

from opsq import Celery

app = Celery("tasks")
app.conf.broker_connection_retry_on_startup = True


def mark(what, number):
    # Opened each time: `rude` closes what it finds open.
    file = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{what} {number} {os.getpid()}\\n".encode())
    os.close(file)


def work(number):
    mark("begin", number)
    time.sleep(random.choice((0.0, 0.005, 0.02, 0.08)))
    mark("effect", number)
    mark("end", number)


LIMITED = {"max_concurrency": 3, "rate_limit": "300/s", "rate_limit_scope": "cluster"} if os.environ["LIMITS"] else {}


@app.task(acks_late=True, **LIMITED)
def late(number):
    work(number)


@app.task(**LIMITED)
def early(number):
    work(number)


@app.task(bind=True, acks_late=True, max_retries=1)
def follow(self, number):
    if not self.request.retries:
        mark("first", number)
        raise self.retry(countdown=0, queue="side")
    work(number)


def hold():
    # Sleeps inside C code that keeps the interpreter's lock.
    ctypes.PyDLL(None).usleep(int(float(os.environ["HOLD_S"]) * 1_000_000))


def fork():
    child = os.fork()
    if not child:
        time.sleep(0.1)
        os._exit(0)
    if random.random() < 0.5:
        with suppress(ChildProcessError):  # who ignores SIGCHLD has none to wait for
            os.waitpid(child, 0)


def close_all():
    os.closerange(3, 4096)


def change_handlers():
    how = random.choice((signal.SIG_IGN, signal.SIG_DFL, lambda *_: None))
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, how)


def be_rude(number):
    how = random.choice((hold, fork, close_all, change_handlers))
    mark(how.__name__, number)
    mark("begin", number)
    how()
    mark("effect", number)
    mark("end", number)


@app.task(acks_late=True)
def rude(number):
    be_rude(number)


@app.task
def rude_early(number):
    be_rude(number)


@app.task(acks_late=True, ignore_result=True)
def bulk(number):
    mark("bulk", number)
"""

#: An early task is sent once: a try that fails may have arrived or not. A late one is sent until Redis has it.
PRODUCER = """
import os
import random
import time

import tasks
from opsq.exceptions import OpsqError

PATIENT = {"max_retries": 5, "interval_start": 0, "interval_step": 0.05, "interval_max": 0.1}
EARLY, RUDE = ("early", "rude_early"), float(os.environ["RUDE"])
client = tasks.app.broker.client


def ready():
    try:
        return client.llen("celery") < 30
    except Exception:
        return True


with open("sent", "a", buffering=1) as sent:
    number = 0
    while not os.path.exists("stop"):
        if not ready():
            time.sleep(0.02)
            continue
        rude = random.random() < RUDE
        kind = random.choice(("rude", "rude_early") if rude else ("late", "early", "early", "late", "follow"))
        number += 1
        while True:
            try:
                handle = getattr(tasks, kind).apply_async((number,), retry=kind not in EARLY, retry_policy=PATIENT)
            except OpsqError:
                if kind not in EARLY:
                    time.sleep(0.05)
                    continue
                sent.write(f"unsure {kind} {number} -\\n")
            else:
                sent.write(f"sent {kind} {number} {handle.id}\\n")
            break
        time.sleep(0.002)
"""

#: Tasks whose message is in more than one place at this instant, of the queues in which early ones are.
_IN_TWO_PLACES = """
local places, doubled = {}, {}
local function see(raw)
  local known, message = pcall(cjson.decode, raw)
  if not known then return end
  local id = message.headers.id
  places[id] = (places[id] or 0) + 1
  if places[id] == 2 then doubled[#doubled + 1] = message.headers.task .. ' ' .. id end
end
for _, queue in ipairs(KEYS) do
  if redis.call('TYPE', queue).ok == 'list' then
    for _, raw in ipairs(redis.call('LRANGE', queue, 0, -1)) do see(raw) end
  end
  for _, store in ipairs(redis.call('KEYS', 'opsq:inflight:{' .. queue .. '}:*')) do
    for _, raw in ipairs(redis.call('HVALS', store)) do see(raw) end
  end
end
for _, set in ipairs(redis.call('KEYS', 'opsq:delayed:*')) do
  for _, raw in ipairs(redis.call('ZRANGE', set, 0, -1)) do see(string.match(raw, '^%d*|(.*)$')) end
end
for _, hash in ipairs(redis.call('KEYS', 'opsq:dead:*')) do
  for _, record in ipairs(redis.call('HVALS', hash)) do see(cjson.decode(record).message) end
end
return doubled
"""


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """The first true value; Redis may be away meanwhile. Ends the run when it does not come."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with suppress(redis.RedisError, OSError):
            if value := condition():
                return value
        time.sleep(0.01)
    raise Stuck(f"not within {timeout_s:.0f} s: {what}")


@dataclass(frozen=True)
class Setup:
    """How the arena is set up. `lease_s`: None = the default; `rude`: how many of the tasks are (0..1); `hold_s`: how
    long such a one keeps the interpreter's lock (seconds); `limits`: most tasks are under limits; `sentinels`: in place
    of one server there are a master and its replica.
    """

    lease_s: float | None = 2.0
    rude: float = 0.01
    hold_s: float = 3.0
    appendfsync: str = "always"
    limits: bool = False
    sentinels: bool = False

    @property
    def lease(self) -> float:
        """Seconds that a lease lasts."""
        return DEFAULT_LEASE_S if self.lease_s is None else self.lease_s


class Stuck(Exception):
    """Something did not happen."""


class Store:
    """A Redis that can be killed and comes back with what it had acknowledged."""

    def __init__(self, folder: Path, network: Network | None, appendfsync: str) -> None:
        self.folder, self.port, self._network, self._appendfsync = (
            folder,
            redis_server.free_port(),
            network,
            appendfsync,
        )
        folder.mkdir()
        self.world = World(folder / "world") if compiler() else None
        self.start()

    def start(self, *options: str) -> None:
        """Start it; it may still be loading."""
        on, addresses = (self._network.on("hub"), [HUB, "127.0.0.1"]) if self._network else ([], ["127.0.0.1"])
        argv = [*on, redis_server.binary(), "--port", str(self.port), "--bind", *addresses, "--save", ""]
        argv += ["--unixsocket", str(self.folder / "sock"), "--dir", str(self.folder), "--logfile", "log"]
        argv += ["--appendonly", "yes", "--appendfsync", self._appendfsync, "--protected-mode", "no", *options]
        environment = {**os.environ, **(self.world.environment if self.world else {})}
        self.process = subprocess.Popen(
            argv, preexec_fn=redis_server.die_with_parent, stdin=subprocess.DEVNULL, env=environment
        )

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def url(self, db: int = 0) -> str:
        """By its Unix socket."""
        return f"redis+socket://{self.folder / 'sock'}?virtual_host={db}"

    def client(self, db: int = 0, socket_timeout: float = 5.0) -> redis.Redis:
        """Over the socket, past the wire; nothing is sent twice."""
        path, once = str(self.folder / "sock"), Retry(NoBackoff(), 0)
        return redis.Redis(unix_socket_path=path, db=db, socket_timeout=socket_timeout, retry=once)

    def is_up(self) -> bool:
        return bool(self.client().ping())

    def problems(self) -> list[str]:
        """Nothing happens to one server alone that nobody has done to it."""
        return []


class Marks:
    """What the tasks have written down."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.counts: dict[str, Counter[int]] = defaultdict(Counter)
        self._begun: dict[int, bool] = {}

    def read(self) -> Marks:
        """What is new."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
            self._offset += len(whole) + 1 if whole else 0
            for line in whole.decode().splitlines():
                what, number, pid = line.split()
                self.counts[what][int(number)] += 1
                self._begun[int(pid)] = what in ("begin", "first")
        return self

    def busy(self) -> set[int]:
        """Processes that have begun a task and not ended it; also those that were killed meanwhile."""
        return {pid for pid, begun in self.read()._begun.items() if begun}


class Arena:
    """Worker `a` speaks through a wire that can be cut, worker `b` by a cable (where the machine lets us lay one); each
    lives on a "host" of its own, with a clock of its own.
    """

    def __init__(
        self, folder: Path, chance: random.Random, results_db: int, setup: Setup, network: Network | None
    ) -> None:
        self.folder, self.chance, self.setup, self.network = folder, chance, setup, network
        (folder / "tasks.py").write_text(TASKS)
        (folder / "producer.py").write_text(PRODUCER)
        self.spawn = Spawner(folder)
        place = folder / "redis"
        self.store: Any = Pair(place) if setup.sentinels else Store(place, network, setup.appendfsync)
        wait_for(self.store.is_up, "Redis answers")
        self.memory_before = self.memory()
        self.wire = None if setup.sentinels else Wire(self.store.folder / "sock")
        self.worlds = {name: World(folder / f"world-{name}") for name in TAKES} if compiler() else {}
        self.results_db = results_db
        self.marks = Marks(folder / "marks")
        self.workers: dict[str, Running] = {}
        self.starts = 0
        self.bulk = 0
        self.doubled: set[str] = set()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def memory(self) -> int:
        """What Redis uses (bytes)."""
        return int(self.store.client().info("memory")["used_memory"])

    def environment(self, name: str = "") -> dict[str, str]:
        """Of a worker, or of the producer."""
        hub = HUB if self.network else "127.0.0.1"
        places = {"a": f"127.0.0.1:{self.wire.port}", "b": f"{hub}:{self.store.port}"} if self.wire else {}
        place = places.get(name)
        urls = [f"redis://{place}/{db}" if place else self.store.url(db) for db in (0, self.results_db)]
        return {
            **(self.worlds[name].environment if name in self.worlds else {}),
            "OPSQ_BROKER_URL": urls[0],
            "OPSQ_RESULT_BACKEND": urls[1],
            "MARKS": str(self.folder / "marks"),
            "RUDE": str(self.setup.rude),
            "LIMITS": "1" if self.setup.limits else "",
            "HOLD_S": str(self.setup.hold_s),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")])),
        }

    def state_directory(self, name: str) -> Path:
        """The "disk" of a worker's host."""
        return self.folder / f"host-{name}"

    def start_worker(self, name: str) -> Running:
        """Start a worker on its host; the next strike need not wait until it is ready."""
        self.starts += 1
        argv = [sys.executable, "-m", "opsq", "-A", "tasks", "worker", "-l", "info"]
        argv += ["-n", f"{name}@chaos", "-Q", TAKES[name]]
        if self.setup.lease_s is not None:
            argv += ["-c", "2", "--lease", str(self.setup.lease_s)]
        if self.network is not None and name == "b":
            argv = [*self.network.on(name), *argv]
        environment = self.environment(name)
        environment["OPSQ_STATE_DIR"] = str(self.state_directory(name))
        self.workers[name] = self.spawn(argv, name=f"worker-{name}-{self.starts}", env=environment, cwd=self.folder)
        return self.workers[name]

    def start_producer(self) -> Running:
        argv = [sys.executable, "producer.py"]
        return self.spawn(argv, name="producer", env=self.environment(), cwd=self.folder)

    def family(self, name: str) -> list[psutil.Process]:
        """A worker's processes: the parent first, then the template, then children."""
        with suppress(psutil.Error):
            parent = psutil.Process(self.workers[name].pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def busy(self) -> set[int]:
        """The processes that run a task now."""
        return self.marks.busy() & {process.pid for name in self.workers for process in self.family(name)}

    def is_settled(self) -> bool:
        """Nothing waits, also not for limits, nothing is in flight, nothing is for later."""
        client = self.store.client()
        waiting = sum(int(client.llen(queue)) for queue in QUEUES)
        held = sum(int(client.hlen(key)) for key in client.scan_iter("opsq:inflight:*"))
        parked = [*client.scan_iter("opsq:delayed:*"), *client.scan_iter("opsq:limited:*")]
        return not (waiting or held or parked)

    def server_ms(self) -> int:
        """Redis' clock."""
        seconds, micros = self.store.client().time()
        return int(seconds) * 1000 + int(micros) // 1000

    def only_the_living(self, since_ms: int) -> bool:
        """Whoever is registered has renewed its lease since then: those who are gone were reaped."""
        client, renewed = self.store.client(), since_ms + self.setup.lease * 1000
        registries = ["opsq:workers", *(f"opsq:consumers:{{{queue}}}" for queue in QUEUES)]
        return not any(client.zcount(key, "-inf", renewed) for key in registries)

    def dead_letters(self) -> list[dict[str, Any]]:
        found = []
        for queue in QUEUES:
            records: Any = self.store.client().hvals(f"opsq:dead:{{{queue}}}")
            found += [json.loads(record) for record in records]
        return found

    def _watch(self) -> None:
        """Look again and again whether a message that was sent once is in two places."""
        while not self._over.wait(0.05):
            with suppress(redis.RedisError, OSError), self.store.client() as client:
                found: Any = client.eval(_IN_TWO_PLACES, 2, "celery", "side")
                self.doubled |= {line.decode() for line in found if line.startswith(b"tasks.early ")}

    def close(self) -> None:
        """End everything."""
        self._over.set()
        self._watcher.join()
        if self.wire:
            self.wire.speak()
        self.spawn.end_all()
        if self.wire:
            self.wire.close()
        self.store.kill()
