"""What is done to the arena: one function a strike, by name in `STRIKES`; each leaves everything running again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import redis
from chaos.arena import Arena, wait_for
from support.lab import new_id

from opsq.broker.consumer import Consumer
from opsq.datastore import keys
from opsq.protocol import writing

#: A strike returns whether it was a kill, and if so whether it hit a task that ran; None: nothing was there to kill.
Strike = Callable[[Arena], bool | None]
#: Free slots of somebody greedy.
BULK = 10_000


def _pick(arena: Arena) -> str:
    """A worker, one that has children already if there is one."""
    names = sorted(arena.workers)
    return arena.chance.choice([name for name in names if len(arena.family(name)) > 2] or names)


def _kill(arena: Arena, pids: list[int], witnesses: set[int]) -> bool | None:
    """SIGKILL processes; whether one of the witnesses was in the middle of a task."""
    hit = bool(arena.busy() & witnesses)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return hit if pids else None


def child(arena: Arena) -> bool | None:
    """kill -9 of a child, one that runs a task if there is one."""
    children = [process.pid for process in arena.family(_pick(arena))[2:]]
    busy = sorted(arena.busy() & set(children))
    victim = arena.chance.choice(busy or children) if children else None
    return None if victim is None else _kill(arena, [victim], {victim})


def template(arena: Arena) -> bool | None:
    """kill -9 of the process that forks children."""
    family = [process.pid for process in arena.family(_pick(arena))]
    return _kill(arena, family[1:2], set(family[2:]))


def parent(arena: Arena) -> bool | None:
    """kill -9 of the parent; it starts again at once, or its peer has to take over."""
    name = _pick(arena)
    family = [process.pid for process in arena.family(name)]
    hit = _kill(arena, family[:1], set(family[2:]))
    _start_again(arena, name)
    return hit


def group(arena: Arena) -> bool | None:
    """kill -9 of a whole worker."""
    name = _pick(arena)
    hit = _kill_group(arena, name)
    _start_again(arena, name)
    return hit


def host_lost(arena: Arena) -> bool | None:
    """The same, and what it had written down is gone with its disk: its peer takes over once the lease has run out."""
    name = _pick(arena)
    hit = _kill_group(arena, name)
    arena.workers[name].process.wait()
    shutil.rmtree(arena.state_directory(name), ignore_errors=True)
    arena.start_worker(name)
    return hit


def _kill_group(arena: Arena, name: str) -> bool:
    hit = bool(arena.busy() & {process.pid for process in arena.family(name)})
    with suppress(ProcessLookupError):
        os.killpg(arena.workers[name].pid, signal.SIGKILL)
    return hit


def _start_again(arena: Arena, name: str) -> None:
    arena.workers[name].process.wait()
    if arena.chance.random() < 0.3:
        time.sleep(arena.setup.lease * 1.5)
    arena.start_worker(name)


def freeze(arena: Arena) -> None:
    """SIGSTOP of a whole worker for longer than its lease; its peer takes over, then the zombie goes on."""
    family = arena.family(_pick(arena))
    for process in family:
        process.suspend()
    time.sleep(arena.setup.lease * arena.chance.uniform(1.2, 2.0))
    for process in family:
        process.resume()


def redis_killed(arena: Arena) -> bool | None:
    """kill -9 of Redis; it comes back with its append-only file."""
    hit = bool(arena.busy())
    arena.store.kill()
    time.sleep(arena.chance.uniform(0, 0.5))
    arena.store.start()
    wait_for(arena.store.is_up, "Redis is back")
    return hit


def loading(arena: Arena) -> bool | None:
    """The same, and it takes its time to load."""
    hit = bool(arena.busy())
    filler = arena.store.client(15)
    if not filler.dbsize():
        filler.mset({f"filler-{number}": "" for number in range(8_000)})
        filler.bgrewriteaof()
        wait_for(lambda: not filler.info("persistence")["aof_rewrite_in_progress"], "the file is rewritten")
    arena.store.kill()
    arena.store.start("--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024")
    wait_for(arena.store.is_up, "Redis has loaded")
    return hit


def slow_disk(arena: Arena) -> bool | None:
    """The disk is slow to sync, and Redis is killed meanwhile; it comes back with its append-only file."""
    assert arena.store.world is not None
    arena.store.world.slow_disk(arena.chance.uniform(0.1, 0.4))
    time.sleep(arena.chance.uniform(0.5, 1.5))
    hit = bool(wait_for(arena.busy, "a task runs"))
    arena.store.kill()
    arena.store.world.slow_disk(0.0)
    arena.store.start()
    wait_for(arena.store.is_up, "Redis is back")
    return hit


def failover(arena: Arena) -> bool | None:
    """The master dies, or only falls silent, and the Sentinels choose its replica."""
    silent, hit = arena.chance.random() < 0.5, bool(arena.busy())
    arena.store.fail_over(silent)
    return None if silent else hit


def connections(arena: Arena) -> None:
    """All connections are closed by the server."""
    arena.store.client().client_kill_filter(_type="normal", skipme=True)


def lost_answers(arena: Arena) -> None:
    """Turns are carried out and their answers lost."""
    arena.wire.lose_answers(5)
    time.sleep(0.5)


def silence(arena: Arena) -> None:
    """The peer says nothing and closes nothing, for longer than an answer may take; then all of it comes, late."""
    arena.wire.fall_silent()
    time.sleep(arena.chance.uniform(5.2, 6.0))
    arena.wire.speak()


def cable(arena: Arena) -> None:
    """A worker's network cable is pulled, for less or for more than its lease, and put in again."""
    assert arena.network is not None
    arena.network.cut("b")
    time.sleep(arena.setup.lease * arena.chance.choice((0.3, 1.2, 3.0)))
    arena.network.join("b")


def clock_jump(arena: Arena) -> None:
    """The wall clock of a worker's host is set wrong, and right again."""
    world = arena.worlds[_pick(arena)]
    for offset_s in (arena.chance.uniform(-7200, 7200), arena.chance.uniform(-5, 5), 0.0):
        world.set_clock(offset_s)
        time.sleep(arena.chance.uniform(0.2, 1.5))


def ten_thousand(arena: Arena) -> None:
    """Somebody with 10,000 free slots takes as many messages in one turn, and is lost."""
    first, arena.bulk = arena.bulk, arena.bulk + BULK
    client, name = arena.store.client(), f"greedy@chaos:{first:08x}:0"
    bulk = [
        writing.build(task="tasks.bulk", id=new_id(), args=[number], kwargs={}, queue="greedy", headers={})
        for number in range(first, arena.bulk)
    ]
    client.lpush("greedy", *bulk)
    client.zadd(keys.consumers("greedy"), {name: 9e15})
    consumer = Consumer(arena.store.url(), ["greedy"], name)
    consumer.connect()
    consumer.turn((), BULK)
    consumer.close()
    # Its lease runs out only when all of it is in its hands; both workers see it at their next renewal.
    client.zadd(keys.consumers("greedy"), {name: 0})


def out_of_memory(arena: Arena) -> None:
    """Redis is full: nothing more can be put in, what is there can be worked off."""
    client = arena.store.client()
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    time.sleep(arena.chance.uniform(0.3, 1.0))
    client.config_set("maxmemory", 0)


def read_only(arena: Arena) -> None:
    """Redis becomes a replica of nobody, and a master again."""
    client = arena.store.client()
    client.replicaof("127.0.0.1", 1)
    time.sleep(arena.chance.uniform(0.3, 1.0))
    client.replicaof("NO", "ONE")


def busy(arena: Arena) -> None:
    """A script that does not end."""
    client = arena.store.client()
    client.config_set("lua-time-limit", 50)
    with suppress(redis.TimeoutError), arena.store.client(socket_timeout=0.8) as victim:
        victim.eval("while true do end", 0)
    client.script_kill()


def forgotten_scripts(arena: Arena) -> None:
    """Redis forgets all scripts, a few times."""
    for _ in range(5):
        arena.store.client().script_flush()
        time.sleep(0.05)


def wrong_type(arena: Arena) -> None:
    """The list of what follows holds something else, when nothing waits in it."""
    client = arena.store.client()
    with suppress(redis.RedisError):
        for _ in range(200):
            if client.set("side", "x", nx=True):
                break
    time.sleep(arena.chance.uniform(0.3, 0.8))
    if client.type("side") == b"string":
        client.delete("side")


def no_permission(arena: Arena) -> None:
    """The user may not run scripts for a while."""
    client = arena.store.client()
    client.execute_command("ACL", "SETUSER", "default", "-@scripting")
    time.sleep(arena.chance.uniform(0.3, 1.0))
    client.execute_command("ACL", "SETUSER", "default", "+@scripting")


def possible(arena: Arena, name: str) -> bool:
    """Whether this machine has what a strike needs."""
    needs = {"cable": arena.network, "clock_jump": arena.worlds, "slow_disk": arena.store.world}
    return bool(needs.get(name, True))


KILLS: dict[str, Strike] = {
    each.__name__: each for each in (child, template, parent, group, host_lost, redis_killed, loading, slow_disk)
}
OTHERS: dict[str, Callable[[Arena], None]] = {
    each.__name__: each
    for each in (
        *(freeze, connections, lost_answers, silence, out_of_memory, read_only),
        *(busy, forgotten_scripts, wrong_type, no_permission, cable, clock_jump, ten_thousand),
    )
}
#: What is done where Sentinels watch a master and its replica: the kills of Redis are failovers.
UNDER_SENTINELS: dict[str, Strike | Callable[[Arena], None]] = {
    each.__name__: each
    for each in (failover, child, template, parent, group, host_lost, freeze, connections, forgotten_scripts)
}
