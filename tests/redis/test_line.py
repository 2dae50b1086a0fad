"""The connection whose bytes opsq moves itself: it never waits longer than it may, whoever holds the time-out."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import redis_server
from support.redis_server import RedisServer

from opsq.datastore.line import Line
from opsq.datastore.trouble import AuthenticationError, RedisConnectionError, RedisTimeoutError


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


def test_a_silent_server_is_given_up_however_many_signals_come(server: RedisServer) -> None:
    came = []

    def come(*_: object) -> None:
        came.append(1)
        assert len(came) < 300, "no signal begins the wait anew"

    line = Line(server.url(), reply_s=0.3)
    assert line.ask("PING") == b"PONG"
    server.process.send_signal(signal.SIGSTOP)
    before = signal.signal(signal.SIGALRM, come)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with pytest.raises(RedisTimeoutError, match="no answer in time"):
            line.ask("PING")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        server.process.send_signal(signal.SIGCONT)
    assert came
    line.close()


def test_a_large_command_may_take_longer_than_an_answer_as_long_as_it_is_taken() -> None:
    """A server that takes some of it again and again is not silent."""
    size = 24_000_000

    def take() -> None:
        with listener.accept()[0] as client:
            client.recv(1000)
            client.sendall(b"%0\r\n")
            while not over.wait(0.05) and client.recv(1_000_000):
                pass

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take)
        thread.start()
        line = Line(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", reply_s=0.5)
        line.connect()
        begin = time.monotonic()
        line.send(("SET", "x", b"x" * size))
        assert time.monotonic() - begin > 0.5
        over.set()
        line.close()
        thread.join()


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_server_that_is_no_redis_is_told_as_such(protocol: int) -> None:
    """Be it the answer to a command, or to the greeting before it, which the third protocol has."""

    def answer() -> None:
        with listener.accept()[0] as client:
            client.recv(1000)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        line = Line(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", protocol=protocol)
        with pytest.raises(RedisConnectionError, match="what answers there is no Redis"):
            line.ask("PING")
        line.close()
        thread.join()


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


def test_a_process_that_lets_go_of_the_line_it_was_forked_with_does_not_end_it(server: RedisServer) -> None:
    line = Line(server.url())
    line.connect()
    pid = os.fork()
    if pid == 0:
        line.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert line.ask("PING") == b"PONG"
    line.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_password_without_a_user_and_a_user_with_both_are_let_in(server: RedisServer, protocol: int) -> None:
    with server.client() as admin:
        admin.config_set("requirepass", "s@cret")
        admin.execute_command("ACL", "SETUSER", "bo", "on", ">other", "~*", "+@all")
    for login, who in ((":s%40cret", b"default"), ("bo:other", b"bo")):
        line = Line(f"redis://{login}@127.0.0.1:{server.port}/3", protocol=protocol)
        assert line.ask("ACL", "WHOAMI") == who
        assert b"db=3" in line.ask("CLIENT", "INFO")
        line.close()
    with pytest.raises(AuthenticationError):
        Line(f"redis://:wrong@127.0.0.1:{server.port}/0", protocol=protocol).connect()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of its timers in /proc")
def test_the_kernel_looks_soon_whether_a_silent_server_is_still_there(server: RedisServer) -> None:
    line = Line(server.url())
    line.ask("PING")
    socket_number = os.readlink(f"/proc/self/fd/{line.fileno()}")[len("socket:[") : -1]
    entries = [entry.split() for entry in Path("/proc/net/tcp").read_text().splitlines()]
    [timer] = [words[5] for words in entries if words[9] == socket_number]
    kind, _, jiffies = timer.partition(":")
    assert kind == "02", "the timer of keepalive runs"
    assert int(jiffies, 16) / os.sysconf("SC_CLK_TCK") <= 5
    line.close()
