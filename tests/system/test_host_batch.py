"""Commands on hosts, with real agents: what is run, what is told, and who is believed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from support.fleet import Fleet
from support.processes import Spawner
from support.supervised import Supervised

from opsq.datastore import keys
from opsq.hosts import joined, policy
from opsq.hosts.joined import Token, without_password
from opsq.hosts.order import Answer, Order, new_nonce
from opsq.protocol import signing
from opsq.protocol.signing import PrivateKey


@pytest.fixture
def fleet(tmp_path: Path, spawn: Spawner, redis_url: str, wait_for: Callable[..., Any]) -> Fleet:
    return Fleet(tmp_path, spawn, redis_url, wait_for)


# -- what is run and told ----------------------------------------------------------------------------------------------


def test_a_line_for_the_shell_is_run_and_its_exit_code_is_told(fleet: Fleet) -> None:
    fleet.start("web1")
    done = fleet.opsq("run", "host-batch", "echo out; echo err >&2; exit 3", code=1)
    assert done.stdout.splitlines()[0].startswith("web1: exit 3, ")
    assert done.stdout.splitlines()[1:] == ["out", "stderr:", "err"]
    assert done.stderr.startswith("1 host: 1 failed (web1); job ")


def test_several_words_are_a_program_and_its_arguments(fleet: Fleet) -> None:
    fleet.start("web1")
    for words in (["--", "printf", "%s|", "$HOME", "--json", "a b"], ["printf", "%s|", "$HOME", "--json", "a b"]):
        found = fleet.run(*words)
        assert found["hosts"]["web1"]["stdout"] == "$HOME|--json|a b|"


def test_equal_outputs_are_shown_once_under_the_folded_names(fleet: Fleet) -> None:
    for number in (1, 2, 3):
        fleet.start(f"web{number}", "--tag", "odd" if number % 2 else "even")
    line = 'if [ "$OPSQ_HOST" = web2 ]; then echo other; exit 1; else echo same; fi'
    done = fleet.opsq("run", "host-batch", line, code=1)
    assert [text.partition(" (")[0].partition(":")[0] for text in done.stdout.splitlines()] == [
        *("web[1,3]", "same", "web2", "other")
    ]
    assert "3 hosts: 2 succeeded, 1 failed (web2)" in done.stderr
    chosen = fleet.run("--hosts", "@odd,!web3", "true")
    assert list(chosen["hosts"]) == ["web1"]
    assert fleet.run("--hosts", "web[1-4]", "true", code=3)["hosts"]["web4"]["state"] == "unknown"


def test_the_contract_for_scripts(fleet: Fleet) -> None:
    fleet.start("web1")
    found = fleet.run("--hosts", "web[1-2]", "echo hello", code=3)
    assert set(found) == {"job", "hosts", "summary"}
    web1, web2 = found["hosts"]["web1"], found["hosts"]["web2"]
    assert (web1["state"], web1["exit"], web1["stdout"], web1["stderr"]) == ("succeeded", 0, "hello\n", "")
    assert 0 <= web1["duration"] < 30
    assert (web2["state"], web2["exit"], web2["stdout"], web2["duration"]) == ("unknown", None, None, None)
    assert found["summary"] == {
        "total": 2,
        "succeeded": 1,
        "failed": 0,
        "timeout": 0,
        "cancelled": 0,
        "lost": 0,
        "refused": 0,
        "silent": 0,
        "unknown": 1,
    }


def test_without_an_agent_the_line_that_starts_it_is_told(fleet: Fleet) -> None:
    done = fleet.opsq("run", "host-batch", "true", code=3)
    assert done.stderr.splitlines() == [
        "opsq: no agent runs here: nobody would run it",
        "hint: start the one of this host: opsq up",
    ]


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--hosts", "wbe1", "true"], 2, "no host is called wbe1"),
        (["--hosts", "web[1-", "true"], 2, "cannot read the hosts"),
        (["--hosts", "@nobody", "true"], 2, "there is no group @nobody"),
        (["--timeout", "0", "true"], 2, "--timeout must be more than 0"),
        ([""], 2, "the command is empty"),
        ([], 2, "missing argument"),
    ],
)
def test_a_mistake_is_one_line(fleet: Fleet, words: list[str], code: int, what: str) -> None:
    fleet.start("web1")
    done = fleet.opsq("run", "host-batch", *words, code=code)
    assert what in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_takes_too_long_is_ended_on_its_host(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start("web1")
    found = fleet.run("--timeout", "0.5", f"sleep 100; touch {tmp_path}/ran", code=1)
    assert (found["hosts"]["web1"]["state"], found["hosts"]["web1"]["signal"]) == ("timeout", 15)
    assert not (tmp_path / "ran").exists()


def test_ctrl_c_cancels_what_was_begun(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start("web1")
    line = [sys.executable, "-m", "opsq", "run", "host-batch", f"echo $$ > {tmp_path}/pid; sleep 100"]
    caller = fleet.spawner(line, name="caller", env=fleet.environment())
    pid = int(fleet.wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    assert caller.stop(signal.SIGINT) == 130
    assert "cancelled on web1" in caller.output()
    assert "1 cancelled (web1)" in caller.output()
    fleet.wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the command has ended")


def test_ctrl_c_cancels_what_has_only_just_been_sent(fleet: Fleet, redis_client: redis.Redis) -> None:
    agent = fleet.start("web1")
    agent.send(signal.SIGSTOP)
    line = [sys.executable, "-m", "opsq", "run", "host-batch", "sleep 100"]
    caller = fleet.spawner(line, name="caller", env=fleet.environment())
    until = time.monotonic() + 30
    while not redis_client.zcard(keys.JOBS):  # without a pause: what is meant is the moment after the sending
        assert time.monotonic() < until, caller.report()
    assert caller.stop(signal.SIGINT) == 130
    assert "cancelled on web1" in caller.output()
    agent.send(signal.SIGCONT)
    fleet.wait_for(lambda: "cancelled by" in agent.output(), what="the agent has heard of it")


def test_the_history_tells_what_was_run(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start("web1")
    job = fleet.run("echo hello")["job"]
    [row] = fleet.json("jobs", "--json")["jobs"]
    assert (row["job"], row["command"], row["hosts"]) == (job, "echo hello", "web1")
    assert row["summary"]["succeeded"] == 1
    shown = fleet.json("jobs", "show", job[:5], "--json")
    assert shown["results"]["web1"]["stdout"] == "hello\n"
    fleet.opsq("jobs", "show", job, "--export", str(tmp_path / "audit"))
    (tmp_path / "signers").write_text(f"me {fleet.ring.operator_public.read_text()}")
    with (tmp_path / "audit/order-0.json").open() as body:
        check = ["ssh-keygen", "-Y", "verify", "-n", "opsq-order", "-I", "me", "-f", tmp_path / "signers"]
        done = subprocess.run([*check, "-s", tmp_path / "audit/order-0.json.sig"], stdin=body, capture_output=True)
    assert done.returncode == 0, done


# -- somebody with Redis, and nothing else -----------------------------------------------------------------------------


class Hostile:
    """A client that speaks to Redis in raw bytes and knows what was sent before."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
        self.link = socket.create_connection((host, int(port)), 10)

    def ask(self, *words: bytes) -> bytes:
        packed = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.link.sendall(packed)
        return self.link.recv(65_536)

    def seen(self, job: str) -> bytes:
        """The order of a job, as Redis keeps it."""
        answer = self.ask(b"LINDEX", b"opsq:job:{%s}:order" % job.encode(), b"0")
        return answer.partition(b"\r\n")[2][:-2]

    def push(self, host: str, value: bytes) -> None:
        key = b"opsq:host:{%s}:orders" % host.encode()
        assert self.ask(b"RPUSH", key, value).startswith(b":")
        self.ask(b"EXPIRE", key, b"60")

    def left(self, host: str) -> bool:
        key = b"opsq:host:{%s}:" % host.encode()
        return any(self.ask(b"EXISTS", key + name) != b":0\r\n" for name in (b"orders", b"taken"))

    def close(self) -> None:
        self.link.close()


def test_what_a_hostile_client_sends_runs_nowhere(fleet: Fleet, tmp_path: Path, redis_url: str) -> None:
    for host in ("web1", "web2"):
        fleet.start(host)
    mark = tmp_path / "mark"
    seen = fleet.run("--hosts", "web1", f"echo $OPSQ_HOST >> {mark}")["job"]
    assert mark.read_text() == "web1\n"
    former = PrivateKey.parse(signing.generate()[0])
    for host in ("web1", "web2"):
        policy.trust(fleet.ring_of(host), "former", former.public)
        policy.revoke(fleet.ring_of(host), former.public, "former")
    hostile = Hostile(redis_url)
    captured = hostile.seen(seen)
    good = Order.parse(captured[80:])
    day_old = replace(good, iat=good.iat - 86_400, exp=good.exp - 86_400, nonce=new_nonce())
    fresh = replace(good, iat=time.time(), exp=time.time() + 50, nonce=new_nonce(), targets="web[1-2]")
    operator = fleet.ring.operator()

    def sealed(order: Order, key: Any = operator, space: str = signing.ORDER) -> bytes:
        return signing.seal(key, space, order.to_bytes())

    tries = {
        "replayed": captured,
        "altered": captured.replace(b"OPSQ_HOST", b"OPSQ_HOTS"),
        "retargeted": captured.replace(b'"web1"', b'"web2"'),
        "of yesterday": sealed(day_old),
        "of another host": sealed(replace(fresh, targets="db1")),
        "of a revoked key": sealed(fresh, former),
        "of a stranger": sealed(fresh, PrivateKey.parse(signing.generate()[0])),
        "for another purpose": sealed(fresh, space=signing.ANSWER),
        "of a stranger under the operator's key id": captured[:80] + fresh.to_bytes(),
        "garbage": os.urandom(300),
        "nothing": b"",
        "half": captured[:150],
    }
    for value in tries.values():
        for host in ("web1", "web2"):
            hostile.push(host, value)
    fleet.wait_for(lambda: not hostile.left("web1") and not hostile.left("web2"), 30, "all orders are refused")
    hostile.close()
    assert mark.read_text() == "web1\n"
    assert fleet.run("--hosts", "web2", f"echo $OPSQ_HOST >> {mark}")["summary"]["succeeded"] == 1
    assert mark.read_text() == "web1\nweb2\n"


def test_an_order_cannot_be_replayed_after_a_restart(
    fleet: Fleet, tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    agent = fleet.start("web1")
    mark = tmp_path / "mark"
    with closing(Hostile(redis_url)) as hostile:
        captured = hostile.seen(fleet.run(f"echo x >> {mark}")["job"])
        fleet.wait_for(lambda: not redis_client.exists(keys.host_taken("web1")), what="the order is put away")
        agent.stop(signal.SIGKILL)
        hostile.push("web1", captured)
        again = fleet.start("web1", label="again")
        fleet.wait_for(lambda: "carried out before" in again.output(), what="the replay is refused")
    assert mark.read_text() == "x\n"


def test_a_flood_of_garbage_costs_neither_the_lease_nor_the_next_order(fleet: Fleet, redis_client: redis.Redis) -> None:
    agent = fleet.start("web1", "--lease", "2")
    redis_client.rpush(keys.host_orders("web1"), *[os.urandom(200) for _ in range(14)])
    redis_client.expire(keys.host_orders("web1"), 60)
    redis_client.rpush(keys.host_taken("web1"), *[b"x" * 90] * 1200)
    redis_client.expire(keys.host_taken("web1"), 60)
    assert fleet.run("true")["summary"]["succeeded"] == 1
    assert redis_client.get(keys.host_lease("web1")) is not None
    assert agent.output().count("is not trusted here") == 1
    agent.stop()
    assert not redis_client.exists(keys.host_taken("web1"))


def test_a_forged_answer_is_not_believed(fleet: Fleet, redis_client: redis.Redis) -> None:
    fleet.start("web1")
    line = [sys.executable, "-m", "opsq", "run", "host-batch", "--json", "sleep 1; exit 7"]
    caller = fleet.spawner(line, name="caller", env=fleet.environment(), stderr=subprocess.DEVNULL)
    [(job, _when)] = fleet.wait_for(lambda: redis_client.zrange(keys.JOBS, 0, -1, withscores=True))
    job = job.decode()
    order = Order.parse(fleet.wait_for(lambda: redis_client.lindex(keys.job_order(job), 0))[80:])
    forged = Answer("ended", job, 0, order.nonce, "web1", "x", exit=0, begin=1.0, end=2.0)
    liar = PrivateKey.parse(signing.generate()[0])
    redis_client.xadd(keys.job_answers(job), {"a": signing.seal(liar, signing.ANSWER, forged.to_bytes())})
    redis_client.xadd(keys.job_answers(job), {"a": b"junk", "b": b"x"})
    assert caller.wait() == 1
    assert json.loads(caller.output())["hosts"]["web1"]["exit"] == 7


def test_a_hidden_host_is_named(fleet: Fleet, redis_client: redis.Redis) -> None:
    fleet.start("web1")
    hidden = fleet.start("web2", "--lease", "60")
    fleet.run("true")
    hidden.send(signal.SIGSTOP)
    redis_client.delete(keys.host_lease("web2"), keys.host_facts("web2"))
    redis_client.srem(keys.HOSTS, "web2")
    found = fleet.run("true", code=3)
    hidden.send(signal.SIGCONT)
    assert found["hosts"]["web2"]["state"] == "silent"
    assert found["hosts"]["web1"]["state"] == "succeeded"


def test_another_host_under_a_known_name_is_refused(fleet: Fleet) -> None:
    fleet.start("web1").stop()
    fleet.run("true", code=3)
    assert fleet.json("hosts", "--json")["hosts"][0]["state"] == "stopped"
    (fleet.folder / "web1" / "keys").rename(fleet.folder / "old-keys")
    fleet.start("web1", label="impostor")
    assert fleet.json("hosts", "--json")["hosts"][0]["state"] == "changed"
    for words in (["true"], ["--hosts", "web1", "true"]):
        assert "the key of web1 has changed" in fleet.opsq("run", "host-batch", *words, code=4).stderr
    fleet.opsq("hosts", "forget", "web1")
    fleet.run("true")


# -- the agent's life --------------------------------------------------------------------------------------------------


def test_what_ran_when_the_agent_was_killed_is_lost_and_never_run_again(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.start("web1")
    mark = tmp_path / "mark"
    line = [sys.executable, "-m", "opsq", "run", "host-batch", "--json", f"echo x >> {mark}; sleep 100"]
    caller = fleet.spawner(line, name="caller", env=fleet.environment(), stderr=subprocess.DEVNULL)
    fleet.wait_for(mark.exists, what="the command has begun")
    agent.stop(signal.SIGKILL)
    fleet.start("web1", label="again")
    assert caller.wait() == 1
    told = json.loads(caller.output())["hosts"]["web1"]
    assert (told["state"], told["reason"]) == ("lost", "its agent went away while it ran")
    assert mark.read_text() == "x\n"


def test_what_was_taken_and_not_begun_is_lost_too(fleet: Fleet, redis_client: redis.Redis) -> None:
    fleet.prepare("web1")
    order = Order("run", "aabbccdd0011", 0, "web1", "me", time.time(), time.time() + 60, new_nonce(), argv=("true",))
    value = signing.seal(fleet.ring.operator(), signing.ORDER, order.to_bytes())
    redis_client.rpush(keys.host_taken("web1"), value)
    redis_client.expire(keys.host_taken("web1"), 60)
    fleet.start("web1")
    entries = fleet.wait_for(lambda: redis_client.xrange(keys.job_answers(order.job)))
    answer = Answer.parse(entries[0][1][b"a"][80:])
    assert answer is not None
    assert (answer.state, answer.reason) == ("lost", "its agent went away before it was started")
    fleet.wait_for(lambda: not redis_client.exists(keys.host_taken("web1")))


def test_a_host_that_has_gone_meanwhile_is_not_waited_for_to_the_end(fleet: Fleet, redis_client: redis.Redis) -> None:
    fleet.start("web1", "--lease", "4").stop(signal.SIGKILL)
    begin = time.monotonic()
    found = fleet.run("true", code=3)
    assert time.monotonic() - begin < 40  # an order is valid for 60 s
    assert (found["hosts"]["web1"]["state"], found["hosts"]["web1"]["reason"]) in [
        ("silent", "its agent has gone"),
        ("silent", "it has gone"),
    ]
    assert not redis_client.exists(keys.host_orders("web1"))


def test_an_agent_that_stops_lets_its_commands_end_and_says_good_bye(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.start("web1")
    line = [sys.executable, "-m", "opsq", "run", "host-batch", "--json", f"touch {tmp_path}/begun; sleep 1; exit 5"]
    caller = fleet.spawner(line, name="caller", env=fleet.environment(), stderr=subprocess.DEVNULL)
    fleet.wait_for((tmp_path / "begun").exists, what="the command has begun")
    assert agent.stop() == 0
    assert caller.wait() == 1
    assert json.loads(caller.output())["hosts"]["web1"]["exit"] == 5
    assert [(host["name"], host["state"]) for host in fleet.json("hosts", "--json")["hosts"]] == [("web1", "stopped")]


def test_a_second_agent_of_a_machine_stands_by_and_takes_over(fleet: Fleet) -> None:
    first = fleet.start("web1")
    second = fleet.start("web1", label="second")
    assert "web1 is standing by" in second.output()
    assert "serving" not in second.output()
    first.stop(signal.SIGKILL)
    fleet.wait_for(lambda: "web1 is serving" in second.output(), 10, "the second takes over long before the lease ends")
    fleet.run("true")


def test_another_machine_of_that_name_is_refused(fleet: Fleet, redis_url: str) -> None:
    fleet.start("web1", "--lease", "2")
    environment = {"OPSQ_STATE_DIR": str(fleet.folder / "other"), "OPSQ_BROKER_URL": redis_url}
    line = [sys.executable, "-m", "opsq", "agent", "--name", "web1", "--lease", "2"]
    other = fleet.spawner(line, name="other", env=environment)
    assert other.wait() == 4
    assert "opsq: the name web1 is taken" in other.output()
    fleet.run("true")


def test_more_commands_than_slots_wait_for_their_turn(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start("web1", "--slots", "1")
    line = [sys.executable, "-m", "opsq", "run", "host-batch", f"mkdir {tmp_path}/d && sleep 0.3 && rmdir {tmp_path}/d"]
    callers = [fleet.spawner(line, name=f"caller-{n}", env=fleet.environment()) for n in range(3)]
    assert [caller.wait() for caller in callers] == [0, 0, 0]


def test_an_untrusting_host_says_so_and_the_list_of_hosts_shows_it(fleet: Fleet) -> None:
    fleet.start("web1")
    policy.revoke(fleet.ring_of("web1"), fleet.ring.operator().public, "operator")
    found = fleet.run("true", code=4)
    assert found["hosts"]["web1"]["state"] == "refused"
    assert "was revoked here" in found["hosts"]["web1"]["reason"]
    fleet.wait_for(lambda: fleet.json("hosts", "--json")["hosts"][0]["state"] == "refusing", what="it is shown")
    assert "was revoked here" in fleet.json("hosts", "--json")["hosts"][0]["reason"]


def test_without_a_broker_an_agent_says_what_to_do(fleet: Fleet) -> None:
    environment = {**fleet.environment(), "OPSQ_STATE_DIR": str(fleet.folder / "nothing")}
    del environment["OPSQ_BROKER_URL"]
    done = fleet.opsq("agent", code=3, env=environment)
    assert "no broker configured and none running here" in done.stderr


def test_an_agent_whose_broker_does_not_answer_says_so_to_whoever_typed_it(
    fleet: Fleet, free_port: Callable[[], int]
) -> None:
    done = fleet.opsq("agent", "-b", f"redis://127.0.0.1:{free_port()}", code=3)
    assert "cannot reach Redis" in done.stderr


def test_lost_connections_are_made_anew_on_both_sides(fleet: Fleet, redis_client: redis.Redis, tmp_path: Path) -> None:
    agent = fleet.start("web1")
    line = [sys.executable, "-m", "opsq", "run", "host-batch", "--json", f"touch {tmp_path}/begun; sleep 1; exit 7"]
    caller = fleet.spawner(line, name="caller", env=fleet.environment(), stderr=subprocess.DEVNULL)
    fleet.wait_for((tmp_path / "begun").exists, what="the command has begun")
    redis_client.client_kill_filter(_type="normal", skipme=True)
    assert caller.wait() == 1
    assert json.loads(caller.output())["hosts"]["web1"]["exit"] == 7
    assert fleet.run("true")["summary"]["succeeded"] == 1
    assert agent.alive()


def test_an_agent_serves_a_broker_that_is_joined_while_it_runs(fleet: Fleet, redis_url: str) -> None:
    agent = fleet.start("web1")
    second = redis_url.removesuffix("0") + "1"
    joined.join(fleet.ring_of("web1"), Token("operator", fleet.ring.operator().public, second, False), second)
    agent.send(signal.SIGHUP)
    fleet.wait_for(lambda: f"serving at {second}" in agent.output(), what="it serves the second broker too")
    for url in (redis_url, second):
        fleet.opsq("run", "host-batch", "true", env={**fleet.environment(), "OPSQ_BROKER_URL": url})


# -- keys and joining --------------------------------------------------------------------------------------------------


def test_a_machine_joins_by_a_token_without_any_password_on_a_command_line(
    fleet: Fleet, redis_client: redis.Redis, redis_url: str
) -> None:
    port = redis_url.rpartition(":")[2].partition("/")[0]
    redis_client.execute_command("ACL", "SETUSER", "fleet", "on", ">s3cr3t", "~*", "&*", "+@all")
    try:
        inside = f"redis://fleet:s3cr3t@127.0.0.1:{port}/0"
        outside = f"redis://fleet:s3cr3t@{socket.gethostbyname(socket.gethostname())}:{port}/0"
        refused = fleet.opsq("hosts", "invite", "--broker", inside, code=4)
        assert "cannot invite" in refused.stderr
        line = fleet.opsq("hosts", "invite", "--broker", outside.replace("127.0.1.1", "127.0.0.1.nip"), code=None)
        assert "s3cr3t" not in line.stdout
        token = _token(fleet, inside)
        environment = {**fleet.environment(), "OPSQ_STATE_DIR": str(fleet.folder / "web1")}
        del environment["OPSQ_BROKER_URL"]
        fleet.opsq("join", token, env=environment, code=2)
        done = fleet.opsq("join", token, env=environment, input="wrong\n", code=4)
        assert "refused the login" in done.stderr
        fleet.opsq("join", token, env=environment, input="s3cr3t\n")
        agent = fleet.spawner(
            [sys.executable, "-m", "opsq", "agent", "-l", "info", "--name", "web1"],
            name="agent",
            env={"OPSQ_STATE_DIR": str(fleet.folder / "web1")},
        )
        fleet.wait_for(lambda: " ready." in agent.output(), what="the agent is ready")
        assert "s3cr3t" not in agent.output()
        fleet.run("true")
        agent.stop()
    finally:
        redis_client.execute_command("ACL", "DELUSER", "fleet")


def _token(fleet: Fleet, url: str) -> str:
    """A token as `invite` makes it, for a broker on the loopback address, to which it does not invite."""
    return Token("operator@test", fleet.ring.operator().public, without_password(url)[0], True).text()


def test_keys_are_listed_trusted_and_revoked(fleet: Fleet, tmp_path: Path) -> None:
    alice = PrivateKey.parse(signing.generate()[0]).public
    (tmp_path / "alice.pub").write_text(alice.line("alice@example") + "\n")
    assert [row["role"] for row in fleet.json("keys", "--json")["keys"]] == ["operator", "host"]
    fleet.opsq("keys", "trust", str(tmp_path / "alice.pub"))
    rows = fleet.json("keys", "--json")["keys"]
    assert ("trusted", "alice@example", alice.fingerprint) in [(r["role"], r["name"], r["fingerprint"]) for r in rows]
    fleet.opsq("keys", "revoke", "alice@example", code=2)
    fleet.opsq("keys", "revoke", "alice@example", "--yes")
    assert [row["role"] for row in fleet.json("keys", "--json")["keys"]] == ["operator", "host", "revoked"]
    (tmp_path / "rsa.pub").write_text("ssh-rsa AAAA x\n")
    assert "no ssh-ed25519" in fleet.opsq("keys", "trust", str(tmp_path / "rsa.pub"), code=2).stderr
    told = fleet.json("keys", "fingerprint", "--json")
    assert told["operator"] == fleet.ring.operator().public.fingerprint


def test_up_starts_the_agent_and_a_command_runs_here(shop: Supervised) -> None:
    shop.environment = {"OPSQ_STATE_DIR": None, "HOME": str(shop.folder), "XDG_STATE_HOME": str(shop.folder / "xdg")}
    shop.environment |= {"OPSQ_KEYS_DIR": str(shop.folder / "keys")}
    shop.toml('services = ["redis", "agent"]\n')
    shop.opsq("up")
    assert shop.program("agent")["state"] == "RUNNING"
    done = shop.opsq("run", "host-batch", "hostname; exit 3", code=1)
    assert socket.gethostname() in done.stdout
    refused = shop.opsq("hosts", "invite", code=4)
    assert refused.stderr.splitlines()[0] == (
        "opsq: cannot invite: the broker here is this machine's private Redis, which other machines cannot reach"
    )
    shop.opsq("down")
