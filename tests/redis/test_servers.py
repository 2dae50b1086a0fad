"""Broker and result URLs as people write them, each against real servers: login, TLS, sockets, several, Sentinels."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from support import redis_server, replicated
from support.redis_server import RedisServer
from support.replicated import MASTER, Certificates, Watched, until

from opsq import App
from opsq.backends import waiting
from opsq.backends.base import Format
from opsq.backends.redis import RedisBackend
from opsq.broker.broker import Broker, Outgoing
from opsq.broker.consumer import Consumer
from opsq.datastore.connection import client, errors, parse_url
from opsq.datastore.line import Line, questions
from opsq.datastore.url import masked
from opsq.exceptions import BrokerError, ImproperlyConfigured, OpsqError, RefusedError
from opsq.worker import first_look

PASSWORD = "p@ss;word/ü"


@pytest.fixture(scope="module")
def locked() -> Iterator[RedisServer]:
    """A server with a password, and a user who may use some keys."""
    with redis_server.running() as server:
        with server.client() as admin:
            admin.acl_setuser("alice", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
            admin.execute_command("ACL", "SETUSER", "alice", "allchannels")
            admin.config_set("requirepass", PASSWORD)
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return replicated.certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_port(certificates: Certificates) -> Iterator[int]:
    """The port of a server that speaks TLS and wants a certificate of its clients."""
    port = redis_server.free_port()
    with redis_server.running() as server:
        with server.client() as admin:
            try:
                admin.config_set("tls-cert-file", str(certificates.certificate))
                admin.config_set("tls-key-file", str(certificates.key))
                admin.config_set("tls-ca-cert-file", str(certificates.authority))
                admin.config_set("tls-port", port)
            except redis.ResponseError as error:
                pytest.skip(f"this server knows no TLS: {error}")
        yield port


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with replicated.watched(tmp_path_factory.mktemp("sentinels")) as found:
        yield found


def goes_all_ways(url: str) -> None:
    """A message and a result go there and back, and every kind of connection finds the same database."""
    broker = Broker(url)
    broker.publish(Outgoing("celery", b"hello"))
    with questions(url) as ask:
        assert ask([("LRANGE", "celery", 0, -1)]) == [[b"hello"]]
    consumer = Consumer(url, ["celery"], "n:00000000:0")
    consumer.connect(track=True)
    assert consumer.tracks
    broker.client.zadd("opsq:consumers:{celery}", {"n:00000000:0": 9e15})
    assert [leased.messages for leased in consumer.turn((), 1).leased] == [[b"hello"]]
    consumer.close()
    backend = RedisBackend(url, Format())
    backend.store("an-id", "SUCCESS", 7)
    assert backend.wait(["an-id"], 10)["an-id"]["result"] == 7
    broker.client.flushdb()


def found_by(**settings: Any) -> str:
    """The broker's URL that an app makes of its settings."""
    app = App("client", set_as_current=False)
    app.conf.update(settings)
    url: str = app.broker.url
    return url


# -- login, databases, sockets -----------------------------------------------------------------------------------------


def test_a_password_and_a_database(locked: RedisServer) -> None:
    url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{locked.port}/2"
    goes_all_ways(found_by(broker_url=url))
    Broker(url).publish(Outgoing("celery", b"x"))
    with locked.client(2, password=PASSWORD) as admin:
        assert admin.llen("celery") == 1
        admin.flushdb()


def test_a_user_of_the_access_list(locked: RedisServer) -> None:
    goes_all_ways(found_by(broker_url=f"redis://alice:secret@127.0.0.1:{locked.port}/1"))


def test_a_socket_with_a_password(locked: RedisServer) -> None:
    login = f":{quote(PASSWORD, safe='')}@"
    goes_all_ways(found_by(broker_url=f"redis+socket://{login}{locked.socket}?virtual_host=3"))
    goes_all_ways(found_by(broker_url=f"unix://{login}{locked.socket}?db=3"))


@pytest.mark.parametrize("login", ["", ":wrong@", "alice:wrong@"])
def test_a_refused_login_is_said_in_one_sentence(locked: RedisServer, login: str) -> None:
    url = f"redis://{login}127.0.0.1:{locked.port}/0"
    with pytest.raises(RefusedError, match=r"refused the login") as caught, errors(url):
        client(url).ping()
    assert "wrong" not in str(caught.value).replace("wrong number", "")
    with pytest.raises(RefusedError, match=r"refused the login"), errors(url):
        Line(url).ask("PING")


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_tls_with_certificates_in_the_url(tls_port: int, certificates: Certificates) -> None:
    words = f"ssl_ca_certs={certificates.authority}&ssl_certfile={certificates.certificate}"
    words += f"&ssl_keyfile={certificates.key}"
    goes_all_ways(f"rediss://127.0.0.1:{tls_port}/1?ssl_cert_reqs=CERT_REQUIRED&{words}")
    goes_all_ways(f"rediss://127.0.0.1:{tls_port}/1?{words}&ssl_cert_reqs=none")


def test_tls_by_celerys_settings(tls_port: int, certificates: Certificates) -> None:
    wanted = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_ca_certs": str(certificates.authority),
        "ssl_certfile": str(certificates.certificate),
        "ssl_keyfile": str(certificates.key),
    }
    goes_all_ways(found_by(broker_url=f"redis://127.0.0.1:{tls_port}/0", broker_use_ssl=wanted))
    several = f"redis://127.0.0.1:{redis_server.free_port()};redis://127.0.0.1:{tls_port}"
    goes_all_ways(found_by(broker_url=several, broker_use_ssl=wanted))


def test_an_unknown_authority_is_not_trusted(tls_port: int, certificates: Certificates) -> None:
    url = f"rediss://127.0.0.1:{tls_port}/0?ssl_certfile={certificates.certificate}&ssl_keyfile={certificates.key}"
    with pytest.raises(BrokerError, match="certificate") as caught, errors(url):
        client(url).ping()
    assert "\n" not in str(caught.value)


# -- several -----------------------------------------------------------------------------------------------------------


def test_of_several_the_first_that_is_a_living_master_is_taken() -> None:
    with replicated.pair() as (master, replica):
        dead = redis_server.free_port()
        url = f"redis://127.0.0.1:{dead};redis://127.0.0.1:{replica.port};redis://127.0.0.1:{master.port}"
        goes_all_ways(found_by(broker_url=url))
        goes_all_ways(found_by(broker_url=url.split(";")))


def test_when_one_becomes_a_replica_publishing_and_waiting_go_on_at_the_other() -> None:
    with replicated.pair() as (old, new):
        url = f"redis://127.0.0.1:{old.port};redis://127.0.0.1:{new.port}"
        broker, backend = Broker(url), RedisBackend(url, Format())
        broker.publish(Outgoing("celery", b"1"))
        backend.store("first", "SUCCESS", 1)
        waits = threading.Thread(target=lambda: backend.wait(["second"], 20), daemon=True)
        waits.start()
        with old.client() as one, new.client() as other:
            until(lambda: other.llen("celery") == 1, "the replica has the message")
            other.replicaof("NO", "ONE")
            replicated.follow(old, new)
            broker.publish(Outgoing("celery", b"2"))
            backend.store("second", "SUCCESS", 2)
            assert other.lrange("celery", 0, -1) == [b"2", b"1"]
            assert one.role()[0] == b"slave"
        waits.join(20)
        assert not waits.is_alive()


def test_results_on_a_server_that_may_part_from_the_broker_are_not_left_to_the_turn(redis_server: RedisServer) -> None:
    fixed, moving = redis_server.url(1), f"{redis_server.url(1)};{redis_server.url(1)}"
    assert first_look.results(fixed, RedisBackend(redis_server.url(2), Format())).database == 2
    assert first_look.results(moving, RedisBackend(moving, Format())).database == 1
    assert first_look.results(moving, RedisBackend(fixed, Format())).database is None


def test_all_that_were_tried_are_named_and_no_password_is() -> None:
    first, second = redis_server.free_port(), redis_server.free_port()
    url = f"redis://:secret@127.0.0.1:{first};redis://:other@127.0.0.1:{second}"
    for way in (lambda: client(url).ping(), lambda: Line(url).ask("PING")):
        with pytest.raises(BrokerError) as caught, errors(url):
            way()
        told = str(caught.value)
        assert f"127.0.0.1:{first}: connection refused" in told
        assert f"127.0.0.1:{second}: connection refused" in told
        assert "secret" not in told
        assert "\n" not in told
    assert masked(url) == f"redis://:**@127.0.0.1:{first};redis://:**@127.0.0.1:{second}"


def test_several_that_cannot_be_copies_of_one_are_refused() -> None:
    for url in ("redis://a/0;redis://b/1", "redis://a;rediss://b", "redis://a;amqp://b", "sentinel://a;redis://b"):
        with pytest.raises(ImproperlyConfigured):
            parse_url(url)


def test_a_lone_replica_says_what_it_is() -> None:
    with replicated.pair() as (_master, replica), pytest.raises(OpsqError, match="read-only replica"):
        Broker(replica.url()).publish(Outgoing("celery", b"x"))


# -- Sentinels ---------------------------------------------------------------------------------------------------------


def test_sentinels_with_the_masters_name_in_a_setting(watched: Watched) -> None:
    url = found_by(broker_url=watched.url(db=2), broker_transport_options={"master_name": MASTER})
    assert parse_url(url).db == 2
    goes_all_ways(url)
    app = App("client", set_as_current=False)
    app.conf.update(result_backend=watched.url(3), result_backend_transport_options={"master_name": MASTER})
    app.conf.update(broker_url=url)
    assert parse_url(app.backend.url).db == 3
    goes_all_ways(app.backend.url)


def test_sentinels_without_the_masters_name_are_refused_with_the_line_to_add(watched: Watched) -> None:
    with pytest.raises(ImproperlyConfigured, match="name of the master") as caught:
        parse_url(found_by(broker_url=watched.url()))
    assert "master_name" in caught.value.hint


def test_a_master_that_they_do_not_know_is_said_by_each(watched: Watched) -> None:
    url = watched.full_url().replace(MASTER, "nobody")
    with pytest.raises(BrokerError, match="does not know nobody") as caught, errors(url):
        client(url).ping()
    for port in watched.sentinels:
        assert f"127.0.0.1:{port}" in str(caught.value)


def test_a_sentinel_that_only_goes_silent_costs_a_moment(watched: Watched) -> None:
    silent = next(iter(watched.sentinels.values()))
    silent.send_signal(signal.SIGSTOP)
    try:
        line = Line(watched.full_url())
        line.connect()
        line.close()
        begin = time.monotonic()
        line.connect()
        assert time.monotonic() - begin < 0.9, "who was silent is asked last"
        line.close()
    finally:
        silent.send_signal(signal.SIGCONT)
        until(lambda: redis.Redis(port=next(iter(watched.sentinels))).ping(), "it is back")


def test_a_server_that_only_goes_silent_is_left_by_who_waits_for_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., Any]
) -> None:
    monkeypatch.setattr(waiting, "QUIET_S", 0.3)
    with replicated.watched(tmp_path) as watched:
        backend = RedisBackend(watched.full_url(), Format())
        backend.store("first", "SUCCESS", 1)
        found: dict[str, Any] = {}
        waits = threading.Thread(target=lambda: found.update(backend.wait(["second"], 60)), daemon=True)
        waits.start()
        with watched.master.client() as master, watched.replica.client() as replica:
            wait_for(lambda: master.pubsub_numsub("celery-task-meta-second")[0][1] == 1, what="it waits")
            until(lambda: replica.exists("celery-task-meta-first"), "the replica has what is stored")
            watched.master.process.send_signal(signal.SIGSTOP)
            try:
                wait_for(lambda: replica.role()[0] == b"master", 20, "the failover")
                wait_for(lambda: replica.pubsub_numsub("celery-task-meta-second")[0][1] == 1, 20, "it waits there")
                client(watched.full_url()).connection_pool.disconnect()
                backend.store("second", "SUCCESS", 2)
                waits.join(20)
            finally:
                watched.master.process.send_signal(signal.SIGCONT)
        assert found["second"]["result"] == 2
