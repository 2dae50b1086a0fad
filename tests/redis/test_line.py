"""The connection whose bytes opsq moves itself: it never waits longer than it may, whoever holds the time-out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
from support import redis_server
from support.redis_server import RedisServer

from opsq.datastore.line import Line
from opsq.datastore.trouble import RedisConnectionError, RedisTimeoutError


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server.running() as server:
        yield server


def test_a_server_that_only_goes_silent_is_given_up_in_time(server: RedisServer) -> None:
    line = Line(server.url(), reply_s=0.3)
    assert line.ask("PING") == b"PONG"
    server.process.send_signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(RedisTimeoutError, match="no answer in time"):
            line.ask("PING")
        assert 0.25 < time.monotonic() - begin < 3
        with pytest.raises(RedisTimeoutError, match="takes nothing"):
            line.send(("SET", "x", b"x" * 50_000_000))
    finally:
        server.process.send_signal(signal.SIGCONT)
    line.close()


def test_who_reads_sees_that_another_thread_has_hung_up(server: RedisServer) -> None:
    line = Line(server.url(), reply_s=20)
    line.connect()
    threading.Timer(0.1, line.hang_up).start()
    begin = time.monotonic()
    with pytest.raises(RedisConnectionError):
        line.receive()
    assert time.monotonic() - begin < 10
    line.close()


def test_what_is_sent_unasked_keeps_its_place_among_the_answers(server: RedisServer) -> None:
    line = Line(server.url())
    line.on_push = line.keep
    line.send(("SUBSCRIBE", "c"), ("GET", "k"), ("PUBLISH", "c", "later"))
    while sum(1 for _ in line._replies) < 4:
        line.read()
    kinds = [reply[0] if isinstance(reply, list) else reply for reply in line.drain()]
    assert kinds[:2] == [b"subscribe", None]
    assert sorted(map(str, kinds[2:])) == ["1", "b'message'"]
    line.close()
