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
from pathlib import Path
from typing import Any

import psutil
import redis
from chaos.wire import Wire
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import redis_server
from support.processes import Running, Spawner

LEASE_S = 2.0
PATIENCE_S = 60.0
QUEUES = ("celery", "side")
#: Which queues a worker takes from: what `a` sends to the other queue only `b` runs.
TAKES = {"a": "celery", "b": "celery,side"}

#: `follow` sends its second half to another queue, as a retry does.
TASKS = """
import os
import random
import time

from opsq import Celery

app = Celery("tasks")
app.conf.broker_connection_retry_on_startup = True
MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark(what, number):
    os.write(MARKS, f"{what} {number} {os.getpid()}\\n".encode())


def work(number):
    mark("begin", number)
    time.sleep(random.choice((0.0, 0.005, 0.02, 0.08)))
    mark("effect", number)
    mark("end", number)


@app.task(acks_late=True)
def late(number):
    work(number)


@app.task
def early(number):
    work(number)


@app.task(bind=True, acks_late=True, max_retries=1)
def follow(self, number):
    if not self.request.retries:
        mark("first", number)
        raise self.retry(countdown=0, queue="side")
    work(number)
"""

#: An early task is sent once: a try that fails may have arrived or not. A late one is sent until Redis has it.
PRODUCER = """
import os
import random
import time

import tasks
from opsq.exceptions import OpsqError

PATIENT = {"max_retries": 5, "interval_start": 0, "interval_step": 0.05, "interval_max": 0.1}
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
        kind = random.choice(("late", "early", "early", "late", "follow"))
        number += 1
        while True:
            try:
                handle = getattr(tasks, kind).apply_async((number,), retry=kind != "early", retry_policy=PATIENT)
            except OpsqError:
                if kind != "early":
                    time.sleep(0.05)
                    continue
                sent.write(f"unsure {kind} {number} -\\n")
            else:
                sent.write(f"sent {kind} {number} {handle.id}\\n")
            break
        time.sleep(0.002)
"""

#: Tasks whose message is in more than one place at this instant.
_IN_TWO_PLACES = """
local places, doubled = {}, {}
local function see(raw)
  local known, message = pcall(cjson.decode, raw)
  if not known then return end
  local id = message.headers.id
  places[id] = (places[id] or 0) + 1
  if places[id] == 2 then doubled[#doubled + 1] = message.headers.task .. ' ' .. id end
end
for _, list in ipairs(KEYS) do
  if redis.call('TYPE', list).ok == 'list' then
    for _, raw in ipairs(redis.call('LRANGE', list, 0, -1)) do see(raw) end
  end
end
for _, store in ipairs(redis.call('KEYS', 'opsq:inflight:*')) do
  for _, raw in ipairs(redis.call('HVALS', store)) do see(raw) end
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


class Stuck(Exception):
    """Something did not happen."""


class Store:
    """A Redis that can be killed and comes back with what it had acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, redis_server.free_port()
        folder.mkdir()
        self.start()

    def start(self, *options: str) -> None:
        """Start it; it may still be loading."""
        argv = [redis_server.binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        argv += ["--unixsocket", str(self.folder / "sock"), "--dir", str(self.folder), "--logfile", "log"]
        argv += ["--appendonly", "yes", "--appendfsync", "always", *options]
        self.process = subprocess.Popen(argv, preexec_fn=redis_server.die_with_parent, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def client(self, db: int = 0, socket_timeout: float = 5.0) -> redis.Redis:
        """Over the socket, past the wire; nothing is sent twice."""
        path, once = str(self.folder / "sock"), Retry(NoBackoff(), 0)
        return redis.Redis(unix_socket_path=path, db=db, socket_timeout=socket_timeout, retry=once)

    def is_up(self) -> bool:
        return bool(self.client().ping())


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
    """Worker `a` speaks through a wire that can be cut, worker `b` does not; each lives on a "host" of its own."""

    def __init__(self, folder: Path, chance: random.Random, results_db: int) -> None:
        self.folder, self.chance = folder, chance
        (folder / "tasks.py").write_text(TASKS)
        (folder / "producer.py").write_text(PRODUCER)
        self.spawn = Spawner(folder)
        self.store = Store(folder / "redis")
        wait_for(self.store.is_up, "Redis answers")
        self.wire = Wire(self.store.port)
        self.results_db = results_db
        self.marks = Marks(folder / "marks")
        self.workers: dict[str, Running] = {}
        self.starts = 0
        self.doubled: set[str] = set()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def environment(self, port: int) -> dict[str, str]:
        return {
            "OPSQ_BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "OPSQ_RESULT_BACKEND": f"redis://127.0.0.1:{port}/{self.results_db}",
            "MARKS": str(self.folder / "marks"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")])),
        }

    def state_directory(self, name: str) -> Path:
        """The "disk" of a worker's host."""
        return self.folder / f"host-{name}"

    def start_worker(self, name: str) -> Running:
        """Start a worker on its host; the next strike need not wait until it is ready."""
        self.starts += 1
        argv = [sys.executable, "-m", "opsq", "-A", "tasks", "worker", "-c", "2", "--lease", str(LEASE_S), "-l", "info"]
        argv += ["-n", f"{name}@chaos", "-Q", TAKES[name]]
        environment = self.environment(self.wire.port if name == "a" else self.store.port)
        environment["OPSQ_STATE_DIR"] = str(self.state_directory(name))
        self.workers[name] = self.spawn(argv, name=f"worker-{name}-{self.starts}", env=environment, cwd=self.folder)
        return self.workers[name]

    def start_producer(self) -> Running:
        argv = [sys.executable, "producer.py"]
        return self.spawn(argv, name="producer", env=self.environment(self.store.port), cwd=self.folder)

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
        """Nothing waits, nothing is in flight, nothing is for later."""
        client = self.store.client()
        waiting = sum(int(client.llen(queue)) for queue in QUEUES)
        held = sum(int(client.hlen(key)) for key in client.scan_iter("opsq:inflight:*"))
        return not (waiting or held or list(client.scan_iter("opsq:delayed:*")))

    def dead_letters(self) -> list[dict[str, Any]]:
        found = []
        for queue in QUEUES:
            records: Any = self.store.client().hvals(f"opsq:dead:{{{queue}}}")
            found += [json.loads(record) for record in records]
        return found

    def _watch(self) -> None:
        """Look again and again whether a message that was sent once is in two places."""
        client = self.store.client()
        while not self._over.wait(0.05):
            with suppress(redis.RedisError, OSError):
                found: Any = client.eval(_IN_TWO_PLACES, len(QUEUES), *QUEUES)
                self.doubled |= {line.decode() for line in found if line.startswith(b"tasks.early ")}

    def close(self) -> None:
        """End everything."""
        self._over.set()
        self._watcher.join()
        self.wire.speak()
        self.spawn.end_all()
        self.wire.close()
        self.store.kill()
