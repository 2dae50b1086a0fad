"""An order is obeyed only if all of it is right: each byte that is changed, each check on its own, across restarts."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsq.hosts import policy
from opsq.hosts.checks import Checks, Refused
from opsq.hosts.hostset import HostSet
from opsq.hosts.keyring import KeyRing
from opsq.hosts.nonces import Nonces
from opsq.hosts.order import Answer, Order, Refusal, loads, new_nonce
from opsq.protocol import signing
from opsq.protocol.signing import PrivateKey

NOW = 1_800_000_000.0


class Site:
    """A host with its keys, its memory, and a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.ring, self.now = KeyRing(folder / "keys"), NOW
        self.ring.ensure()
        self.operator = self.ring.operator()
        self.restart()

    def restart(self) -> None:
        self.nonces = Nonces(self.ring.nonces, NOW - 1000)
        self.checks = Checks("web1", policy.Policy(self.ring), self.nonces, lambda: self.now)

    def order(self, **changes: Any) -> Order:
        order = Order("run", "aabbccdd0011", 0, "web[1-3]", "me", NOW, NOW + 60, new_nonce(), argv=("true",))
        return replace(order, **changes)

    def sealed(self, order: Order, key: Any = None, namespace: str = signing.ORDER) -> bytes:
        return signing.seal(key or self.operator, namespace, order.to_bytes())

    def obey(self, value: bytes, redis: float | None = None) -> Order:
        order = self.checks.check(value, self.now if redis is None else redis)
        self.checks.claim(order)
        return order

    def refuses(self, value: bytes, why: str, redis: float | None = None) -> None:
        with pytest.raises(Refused, match=why):
            self.obey(value, redis)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def stranger() -> PrivateKey:
    return PrivateKey.parse(signing.generate()[0])


def test_an_order_is_obeyed_once(site: Site) -> None:
    value = site.sealed(site.order())
    assert site.obey(value).argv == ("true",)
    site.refuses(value, "carried out before")
    site.restart()
    site.refuses(value, "carried out before")


def test_no_changed_byte_and_no_part_of_an_order_is_obeyed(site: Site) -> None:
    value = site.sealed(site.order())
    for place in range(len(value)):
        for flip in (1, 128):
            site.refuses(value[:place] + bytes([value[place] ^ flip]) + value[place + 1 :], ".")
        site.refuses(value[:place], ".")
    site.refuses(value + b" ", "signature is wrong")
    site.obey(value)


def test_no_field_can_be_replaced(site: Site) -> None:
    order = site.order()
    value = site.sealed(order)
    for change in ({"argv": ("false",)}, {"targets": "web1,db1"}, {"exp": NOW + 90}, {"nonce": new_nonce()}):
        site.refuses(value[:80] + replace(order, **change).to_bytes(), "signature is wrong")  # type: ignore[arg-type]


def test_only_a_trusted_key_gives_orders(site: Site) -> None:
    key = stranger()
    value = site.sealed(site.order(), key)
    site.refuses(value, "is not trusted here")
    site.refuses(site.operator.public.id + value[16:], "signature is wrong")
    site.refuses(site.sealed(site.order(), namespace=signing.ANSWER), "signature is wrong")
    policy.trust(site.ring, "alice", key.public)
    site.obey(value)


def test_a_revoked_key_gives_no_orders_at_once(site: Site) -> None:
    key = stranger()
    policy.trust(site.ring, "alice", key.public)
    site.obey(site.sealed(site.order(), key))
    policy.revoke(site.ring, key.public, "alice")
    site.refuses(site.sealed(site.order(), key), "was revoked here")
    policy.revoke(site.ring, site.operator.public, "me")
    site.refuses(site.sealed(site.order()), "was revoked here")
    policy.trust(site.ring, "alice", key.public)
    site.obey(site.sealed(site.order(), key))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"targets": "web[2-9]"}, "not for web1"),
        ({"targets": "web1["}, "not for web1"),
        ({"exp": NOW + 3601}, "valid for longer"),
        ({"iat": NOW - 86_400, "exp": NOW - 86_340}, "older than this host's memory"),
        ({"iat": NOW - 90, "exp": NOW - 30}, "expired 30 s ago"),
        ({"iat": NOW + 61, "exp": NOW + 90}, "not valid yet"),
        ({"v": 2}, "version"),
        ({"kind": "reboot"}, "'kind'"),
        ({"argv": None}, "either argv or shell"),
        ({"shell": "true"}, "either argv or shell"),
        ({"argv": ()}, "'argv'"),
        ({"job": "../x"}, "'job'"),
        ({"output": 2**40}, "'output'"),
        ({"timeout_s": 0}, "'timeout_s'"),
    ],
)
def test_each_check_refuses_by_itself(site: Site, changes: dict[str, Any], why: str) -> None:
    site.refuses(site.sealed(site.order(**changes)), why)


def test_an_unknown_field_is_refused_and_not_ignored(site: Site) -> None:
    told = json.loads(site.order().to_bytes()) | {"user": "nobody"}
    site.refuses(signing.seal(site.operator, signing.ORDER, json.dumps(told).encode()), "'user' is not known here")


@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b'{"v":1,"v":1}', b"\xff", b"[" * 50_000])
def test_signed_nonsense_is_refused(site: Site, body: bytes) -> None:
    site.refuses(signing.seal(site.operator, signing.ORDER, body), "no JSON object")


@pytest.mark.parametrize("size", [0, 1, 79, 80, 256 * 1024 + 1])
def test_what_is_too_small_or_too_large_is_not_even_read(site: Site, size: int) -> None:
    site.refuses(b"x" * size, "bytes is none")


def test_an_order_must_be_valid_by_both_clocks(site: Site) -> None:
    value = site.sealed(site.order())
    site.now = NOW + 600
    site.refuses(value, r"expired 540 s ago by the clock of this host \(clock off by \+600 s", redis=NOW)
    site.now = NOW - 600
    site.refuses(value, r"not valid yet by the clock of this host, by 600 s \(clock off by -600 s", redis=NOW)
    site.now = NOW
    site.refuses(value, r"expired 540 s ago by the clock of Redis", redis=NOW + 600)
    site.obey(value, redis=NOW + 30)


def test_an_order_that_waited_too_long_for_a_slot_is_not_started(site: Site) -> None:
    order = site.checks.check(site.sealed(site.order()), NOW)
    site.now = NOW + 61
    with pytest.raises(Refused, match="while it waited"):
        site.checks.claim(order)


def test_the_same_order_twice_in_hand_is_started_once(site: Site) -> None:
    value = site.sealed(site.order())
    first, second = site.checks.check(value, NOW), site.checks.check(value, NOW)
    site.checks.claim(first)
    with pytest.raises(Refused, match="carried out before"):
        site.checks.claim(second)


# -- the memory of orders ----------------------------------------------------------------------------------------------


def test_two_agents_of_a_host_share_their_memory(site: Site) -> None:
    other = Nonces(site.ring.nonces, NOW)
    assert site.nonces.claim("aa", "j", NOW + 60, NOW)
    assert other.has("aa", NOW)
    assert not other.claim("aa", "j", NOW + 60, NOW)
    assert other.claim("bb", "j", NOW + 60, NOW)
    assert site.nonces.has("bb", NOW)


def test_a_host_that_lost_its_memory_refuses_what_is_older(site: Site) -> None:
    value = site.sealed(site.order(iat=NOW - 30, exp=NOW + 30))
    site.obey(value)
    site.ring.nonces.unlink()
    site.nonces = Nonces(site.ring.nonces, NOW)
    site.checks = Checks("web1", policy.Policy(site.ring), site.nonces, lambda: site.now)
    site.refuses(value, "older than this host's memory")


def test_a_memory_that_is_taken_away_while_the_agent_runs_is_no_way_around(site: Site) -> None:
    value = site.sealed(site.order(iat=NOW - 30, exp=NOW + 30))
    site.obey(value)
    site.ring.nonces.unlink()
    site.refuses(value, "carried out before|older than this host's memory")


def test_a_torn_last_line_is_no_harm(site: Site) -> None:
    assert site.nonces.claim("aa", "j", NOW + 60, NOW)
    with site.ring.nonces.open("ab") as file:
        file.write(b'{"nonce": "cut')
    site.restart()
    assert site.nonces.has("aa", NOW)
    assert site.nonces.claim("bb", "j", NOW + 60, NOW)
    site.restart()
    assert site.nonces.has("bb", NOW)


def test_old_entries_go_and_young_ones_stay(site: Site) -> None:
    site.nonces.claim("old", "j", NOW - 4000, NOW)
    site.nonces.claim("young", "j", NOW, NOW)
    memory = Nonces(site.ring.nonces, NOW)
    assert not memory.has("old", NOW)
    assert memory.has("young", NOW)
    assert "old" not in site.ring.nonces.read_text()


def test_a_memory_that_cannot_be_written_stops_everything(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    order = site.checks.check(site.sealed(site.order()), NOW)
    monkeypatch.setattr("opsq.hosts.nonces.os.fdatasync", full)
    with pytest.raises(Refused, match="cannot write the memory of orders: no space left"):
        site.checks.claim(order)
    monkeypatch.undo()
    site.checks.claim(order)


def test_the_nonce_is_on_disk_before_the_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    import os

    real_write, real_sync = os.write, os.fdatasync

    def write(fd: int, data: bytes) -> int:
        calls.append("write")
        return real_write(fd, data)

    def sync(fd: int) -> None:
        calls.append("sync")
        real_sync(fd)

    monkeypatch.setattr("opsq.hosts.nonces.os.write", write)
    monkeypatch.setattr("opsq.hosts.nonces.os.fdatasync", sync)
    site.obey(site.sealed(site.order()))
    assert calls == ["write", "sync"]


# -- whom to trust -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "is_trusted"),
    [
        ("", True),
        ('namespaces="opsq-order" ', True),
        ('namespaces="git,opsq-order" ', True),
        ('namespaces="git" ', False),
        ("cert-authority ", False),
        ('namespaces="opsq-order",valid-after="20200101",valid-before="20990101Z" ', True),
        ('valid-after="someday" ', False),
        ("strange=$x ", True),
        ('unclosed="x ', False),
    ],
)
def test_allowed_signers_are_read_as_openssh_writes_them(options: str, is_trusted: bool) -> None:
    key = stranger().public
    found = policy.parse_signer(f"alice@example {options}{key.line('c')}")
    assert (found is not None) == is_trusted
    if found:
        assert (found.name, found.key) == ("alice@example", key)


def test_a_key_is_trusted_only_while_it_is_valid(site: Site) -> None:
    key = stranger()
    day = time.strftime("%Y%m%d", time.gmtime(NOW - 86_400))
    site.ring.allowed_signers.write_text(f'old valid-before="{day}Z" {key.public.line()}\n')
    site.refuses(site.sealed(site.order(), key), "not valid any more")


@given(st.text(max_size=60))
def test_no_line_of_trust_breaks_the_reader(line: str) -> None:
    assert policy.parse_signer(line) is None


# -- the two bodies ----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(TEXT, min_size=1).filter(lambda words: words[0] != ""), TEXT)
def test_an_order_is_read_as_it_was_written(argv: list[str], by: str) -> None:
    order = Order("run", "aabbccdd0011", 3, "web[1-3]", by, NOW, NOW + 60, new_nonce(), argv=tuple(argv))
    assert Order.parse(order.to_bytes()) == order


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_body_breaks_the_readers(value: Any) -> None:
    body = json.dumps(value).encode()
    assert Answer.parse(body) is None
    with pytest.raises(Refusal):
        Order.parse(body)


@given(st.sampled_from([f for f in Answer.__dataclass_fields__ if f not in ("v", "reason")]), st.data())
def test_an_answer_with_a_wrong_field_is_none(name: str, data: st.DataObject) -> None:
    answer = Answer("ended", "aabbccdd0011", 0, new_nonce(), "web1", "i", exit=0)
    assert Answer.parse(answer.to_bytes()) == answer
    told = loads(answer.to_bytes())
    assert told is not None
    told[name] = data.draw(st.sampled_from([[], {}, True, "\0", -1, 1e300, {"bytes": 1}]))
    parsed = Answer.parse(json.dumps(told).encode())
    assert parsed is None or name in ("part", "begin", "end", "clock")


def test_one_signature_is_for_250_hosts(site: Site) -> None:
    parts = site.order().in_parts(HostSet(f"web{number}" for number in range(1, 601)))
    assert [part.targets for part in parts] == ["web[1-250]", "web[251-500]", "web[501-600]"]
    assert len({part.nonce for part in parts}) == 3
    assert [part.part for part in parts] == [0, 1, 2]
