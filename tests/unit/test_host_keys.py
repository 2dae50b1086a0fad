"""The key directory, the tokens of those who join, and how results are judged and folded."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.exceptions import OpsqError, RefusedError, UsageError
from opsq.hosts import joined
from opsq.hosts.facts import fixed_facts, host_name, machine_id, opened, sealed_facts
from opsq.hosts.fold import fold_results
from opsq.hosts.job import HostResult, Job
from opsq.hosts.joined import Token
from opsq.hosts.keyring import KeyRing
from opsq.hosts.order import Answer, Order, Output, new_nonce
from opsq.protocol.signing import PublicKey
from opsq.runtime.statedir import keys_directory


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    ring = KeyRing(tmp_path / "keys")
    ring.ensure()
    return ring


def test_whoever_comes_first_makes_the_keys_and_nobody_makes_them_twice(tmp_path: Path) -> None:
    def make(_number: int) -> bytes:
        ring = KeyRing(tmp_path / "keys")
        ring.ensure()
        return ring.host().public.raw + ring.operator().public.raw

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(24)))) == 1


def test_keys_are_for_their_owner_alone(ring: KeyRing) -> None:
    assert stat.S_IMODE(ring.root.stat().st_mode) == 0o700
    for path in ring.root.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    (ring.root / "host").chmod(0o644)
    with pytest.raises(RefusedError, match="others may read it"):
        ring.host()


def test_a_broken_key_is_named(ring: KeyRing) -> None:
    (ring.root / "operator").write_text("nonsense")
    with pytest.raises(OpsqError, match="operator"):
        ring.operator()


def test_the_key_directory_is_the_users_unless_a_directory_is_named(tmp_path: Path) -> None:
    assert keys_directory({}).name == "keys"
    assert keys_directory({}) != keys_directory({"OPSQ_STATE_DIR": str(tmp_path)})
    assert keys_directory({"OPSQ_STATE_DIR": str(tmp_path)}) == tmp_path.resolve() / "keys"
    both = {"OPSQ_STATE_DIR": str(tmp_path), "OPSQ_KEYS_DIR": str(tmp_path / "k")}
    assert keys_directory(both) == tmp_path.resolve() / "k"


def test_ssh_agent_signs_when_only_the_public_key_lies_here(
    ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        lines = subprocess.run(
            ["ssh-agent", "-s", "-a", tmp_path / "sock"], capture_output=True, text=True, check=True, timeout=20
        ).stdout
    except FileNotFoundError:
        pytest.skip("ssh-agent is not installed")
    pid = int(lines.split("SSH_AGENT_PID=")[1].split(";")[0])
    before = ring.operator()
    environment = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "sock")}
    try:
        subprocess.run(["ssh-add", "-q", ring.root / "operator"], env=environment, check=True, timeout=20)
        (ring.root / "operator").unlink()
        code = (
            "import sys; from pathlib import Path; from opsq.hosts.keyring import KeyRing\n"
            "signer = KeyRing(Path(sys.argv[1])).operator()\n"
            "print(signer.public.verifies(signer.sign(b'x'), b'x'), type(signer).__name__)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, ring.root], env=environment, capture_output=True, text=True, timeout=20
        )
        assert done.stdout == "True AgentKey\n", done
    finally:
        os.kill(pid, 15)
    assert KeyRing(ring.root).operator().public == before.public
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(RefusedError, match="ssh-agent"):
        KeyRing(ring.root).operator().sign(b"x")


# -- joining -----------------------------------------------------------------------------------------------------------

KEY = PublicKey(bytes(range(32)))


def test_a_token_is_read_as_it_was_written_and_holds_no_secret() -> None:
    token = joined.invite(KEY, "me@here", "redis://user:s3cr3t@redis.example:6379/2", with_secret=False)
    assert Token.parse(token.text()) == token
    assert token.needs_password
    assert "s3cr3t" not in token.broker
    assert Token.parse(token.text()).url("s3cr3t/@:") == "redis://user:s3cr3t%2F%40%3A@redis.example:6379/2"
    whole = joined.invite(KEY, "me@here", "redis://:s3cr3t@redis.example", with_secret=True)
    assert Token.parse(whole.text()).url(None) == "redis://:s3cr3t@redis.example"


@given(st.data())
def test_a_damaged_token_is_refused(data: st.DataObject) -> None:
    text = joined.invite(KEY, "me", "redis://redis.example/0", with_secret=False).text()
    place = data.draw(st.integers(0, len(text) - 2))
    damaged = data.draw(st.sampled_from([text[:place], text[:place] + "!" + text[place + 1 :], text[place + 1 :]]))
    with pytest.raises(UsageError, match="token"):
        Token.parse(damaged)


@pytest.mark.parametrize(
    "url",
    [
        "redis+socket:///run/redis.sock",
        "unix:///run/redis.sock",
        "redis://localhost:6379",
        "redis://127.0.0.2/0",
        "redis://[::1]/0",
        "redis://0.0.0.0/0",
        "redis:///0",
    ],
)
def test_nobody_is_invited_to_a_broker_that_only_this_machine_reaches(url: str) -> None:
    with pytest.raises(RefusedError, match="cannot invite"):
        joined.invite(KEY, "me", url, with_secret=False)


def test_a_token_for_several_servers_holds_no_password_of_any() -> None:
    token = joined.invite(KEY, "me", "sentinel://:s3@a.example/2?master_name=m;sentinel://b.example", with_secret=False)
    assert token.broker == "sentinel://a.example/2?master_name=m;sentinel://b.example"
    assert token.needs_password
    assert token.url("s3").startswith("sentinel://:s3@a.example/2?")
    for url in ("redis://:one@a.example;redis://:two@b.example", "sentinel://a.example?sentinel_password=s3"):
        with pytest.raises(RefusedError, match="several passwords"):
            joined.invite(KEY, "me", url, with_secret=False)
    with pytest.raises(RefusedError, match="this machine's own"):
        joined.invite(KEY, "me", "redis://a.example;redis://localhost", with_secret=True)


def test_a_joined_broker_is_kept_once(ring: KeyRing) -> None:
    token = joined.invite(KEY, "me@here", "redis://:a@redis.example/0", with_secret=False)
    for password in ("a", "b"):
        joined.join(ring, token, token.url(password))
    assert joined.brokers(ring) == ["redis://:b@redis.example/0"]
    assert stat.S_IMODE(ring.brokers.stat().st_mode) == 0o600


# -- facts -------------------------------------------------------------------------------------------------------------


def test_facts_are_believed_only_under_their_own_seal(ring: KeyRing, tmp_path: Path) -> None:
    other = KeyRing(tmp_path / "other")
    other.ensure()
    key, stranger = ring.host(), other.host()
    value = sealed_facts(key, fixed_facts("web1", key.public, ["eu"]))
    assert opened("web1", value, None) is not None
    assert opened("web1", value, key.public) is not None
    assert opened("web2", value, None) is None
    assert opened("web1", value, stranger.public) is None
    assert opened("web1", value[:-3] + b"x" + value[-2:], None) is None
    assert opened("web1", sealed_facts(stranger, fixed_facts("web1", key.public, [])), None) is None
    assert opened("web1", None, None) is None


def test_another_host_key_is_another_machine(tmp_path: Path) -> None:
    assert machine_id(KEY) != machine_id(PublicKey(bytes(32)))
    assert machine_id(KEY, tmp_path / "none") == machine_id(KEY, tmp_path / "none")


def test_a_host_has_a_name_that_can_be_a_key() -> None:
    assert host_name("web-1.example") == "web-1.example"
    for wrong in ("", "a b", "../x", "x{y}", "-x"):
        with pytest.raises(UsageError):
            host_name(wrong)


# -- results -----------------------------------------------------------------------------------------------------------


def job_of(*names: str) -> Job:
    order = Order("run", "aabbccdd", 0, ",".join(names), "me", 0.0, 0.0, new_nonce(), argv=("true",))
    return Job.of([(order, names)], [])


def answer(job: Job, host: str, state: str = "ended", **told: object) -> Answer:
    return Answer(state, job.id, 0, job.nonces[host], host, "i", **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "state", "code"),
    [
        ({"exit": 0}, "succeeded", 0),
        ({"exit": 3}, "failed", 1),
        ({"signal": 9}, "failed", 1),
        ({"signal": 15, "reason": "timeout"}, "timeout", 1),
        ({"exit": 0, "reason": "cancelled"}, "cancelled", 1),
        ({"signal": 15, "reason": "stopping"}, "lost", 1),
        ({"state": "refused", "reason": "no"}, "refused", 4),
        ({"state": "refused", "reason": "cancelled"}, "cancelled", 1),
        ({"state": "lost", "reason": "x"}, "lost", 1),
    ],
)
def test_an_answer_is_judged(told: dict[str, object], state: str, code: int) -> None:
    job = job_of("web1", "web2")
    job.take(answer(job, "web2", exit=0))
    job.take(answer(job, "web1", **told))  # type: ignore[arg-type]
    assert job.is_over
    assert (job.results["web1"].state, job.exit_code()) == (state, code)


def test_silence_is_to_blame_only_where_nothing_failed() -> None:
    job = job_of("web1", "web2", "web3")
    job.take(answer(job, "web1", exit=0))
    job.settle(["web2", "web3"], "silent", "")
    assert job.exit_code() == 3
    job = job_of("web1", "web2")
    job.take(answer(job, "web1", exit=1))
    job.settle(["web2"], "silent", "")
    assert job.exit_code() == 1


def test_only_the_first_end_counts_and_only_for_this_order() -> None:
    job = job_of("web1")
    assert not job.take(Answer("ended", job.id, 0, new_nonce(), "web1", "i", exit=0))
    assert not job.take(Answer("ended", "ffffffff", 0, job.nonces["web1"], "web1", "i", exit=0))
    assert not job.take(Answer("ended", job.id, 0, job.nonces["web1"], "web9", "i", exit=0))
    assert job.take(answer(job, "web1", "accepted", begin=1.0))
    assert job.results["web1"].state == "running"
    assert job.take(answer(job, "web1", exit=5))
    assert not job.take(answer(job, "web1", "lost", reason="late"))
    assert job.results["web1"].exit == 5


RESULTS = st.builds(
    HostResult,
    name=st.from_regex(r"web[0-9]{1,2}", fullmatch=True),
    state=st.sampled_from(["succeeded", "failed", "silent"]),
    exit=st.sampled_from([None, 0, 1]),
    out=st.sampled_from([None, Output(1, 1, "a" * 64), Output(1, 1, "b" * 64)]),
)


@given(st.lists(RESULTS, unique_by=lambda result: result.name))
def test_folding_keeps_every_host_once_with_what_happened_to_it(results: list[HostResult]) -> None:
    told = {(name, group.state, group.exit, group.out) for group in fold_results(results) for name in group.hosts}
    assert told == {(result.name, result.state, result.exit, result.out) for result in results}
    groups = fold_results(results)
    assert len({(group.state, group.exit, group.out) for group in groups}) == len(groups)
