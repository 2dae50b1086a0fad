"""Where the broker is and where results go: the order of places, and refusals of all that is not Redis."""

from __future__ import annotations

import ssl

import pytest

from opsq.config.broker import PRIVATE, Found, configured_broker, resolve_broker, resolve_results
from opsq.config.settings import Settings
from opsq.datastore.connection import parse_url
from opsq.datastore.url import masked
from opsq.exceptions import BrokerError, ImproperlyConfigured


def conf(**values: object) -> Settings:
    settings = Settings()
    settings.update(values)
    return settings


def nowhere() -> str | None:
    return None


def results(settings: Settings, broker: Found | None = None) -> Found:
    return resolve_results(settings, lambda: broker or resolve_broker(settings, nowhere))


def test_what_is_configured_comes_before_the_private_redis() -> None:
    found = resolve_broker(conf(broker_url="redis://a/1"), lambda: "redis+socket:///private")
    assert found == Found("redis://a/1", "set in code")


def test_without_configuration_the_private_redis_is_taken() -> None:
    assert resolve_broker(conf(), lambda: "redis+socket:///private") == Found("redis+socket:///private", PRIVATE)


def test_without_any_broker_the_error_says_what_to_do() -> None:
    with pytest.raises(BrokerError, match="no broker configured and none running here") as caught:
        resolve_broker(conf(), nowhere)
    assert "opsq up" in caught.value.hint


@pytest.mark.parametrize("name", ["broker_write_url", "broker_read_url"])
def test_a_url_for_reading_or_writing_alone_is_a_broker_too(name: str) -> None:
    assert configured_broker(conf(**{name: "redis://a"})).url == "redis://a"


def test_two_brokers_are_refused_unless_one_is_named_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    two = conf(broker_read_url="redis://a", broker_write_url="redis://b")
    with pytest.raises(ImproperlyConfigured, match="broker_write_url and broker_read_url"):
        configured_broker(two)
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://c")
    assert configured_broker(two).url == "redis://c"
    assert configured_broker(conf(broker_url="redis://a", broker_read_url="redis://a")).url == "redis://c"


def test_the_oldest_form_with_parts() -> None:
    parts = conf(broker_transport="redis", broker_host="h", broker_password="p@w", broker_vhost="3")
    assert configured_broker(parts).url == "redis://:p%40w@h:6379/3"
    assert configured_broker(conf(broker_host="redis://h/2")).url == "redis://h/2"
    with pytest.raises(ImproperlyConfigured, match="amqp"):
        configured_broker(conf(broker_host="rabbit"))


def test_several_servers_stay_several() -> None:
    assert configured_broker(conf(broker_url="redis://a; redis://b;")).url == "redis://a;redis://b"
    assert configured_broker(conf(broker_url=["redis://c", "redis://d"])).url == "redis://c;redis://d"
    with pytest.raises(ImproperlyConfigured, match="amqp"):
        configured_broker(conf(broker_url="redis://a;amqp://b"))
    both = conf(broker_url="redis://a;redis://b", broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE})
    assert configured_broker(both).url == "rediss://a?ssl_cert_reqs=none;rediss://b?ssl_cert_reqs=none"


def test_sentinels_get_the_name_of_their_master_and_their_own_login_from_the_options() -> None:
    options = {"master_name": "m", "sentinel_kwargs": {"password": "p&w"}}
    found = configured_broker(conf(broker_url="sentinel://:x@a/2;sentinel://b", broker_transport_options=options)).url
    assert found == "sentinel://:x@a/2?master_name=m&sentinel_password=p%26w;sentinel://b"
    assert masked(found) == "sentinel://:**@a/2?master_name=m&sentinel_password=**;sentinel://b"
    secure = conf(result_backend="sentinel://a", redis_backend_use_ssl={"ssl_ca_certs": "ca"})
    secure.update(result_backend_transport_options={"master_name": "m"})
    where = parse_url(str(results(secure).url))
    assert where.arguments["ssl_ca_certs"] == "ca"
    assert where.address == "m (of the Sentinels a:26379)"


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:secret@h//",
        "sqs://",
        "filesystem://",
        "mongodb://h/db",
        "localhost",
        7,
    ],
)
def test_any_other_broker_is_refused_in_one_sentence(url: object) -> None:
    with pytest.raises(ImproperlyConfigured, match="opsq's broker is Redis") as caught:
        resolve_broker(conf(broker_url=url), lambda: "redis+socket:///private")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "broker_url" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "rpc://",
        "amqp://",
        "mongodb://h/db",
        "db+postgresql://u:secret@h/db",
        "sqla+sqlite:///x",
        "cache+memcached://h",
        "file:///x",
    ],
)
def test_any_other_result_store_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="in Redis, in Django's database, or not at all") as caught:
        results(conf(broker_url="redis://a", result_backend=url))
    assert "secret" not in str(caught.value)
    assert "result_backend" in caught.value.hint


def test_a_program_that_names_neither_keeps_results_in_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSQ_BROKER_URL", "redis://env/1")
    assert results(conf()).url == "redis://env/1"


def test_a_program_that_names_a_broker_but_no_backend_has_none() -> None:
    assert results(conf(broker_url="redis://a")).url is None
    assert results(conf(broker_transport="redis", broker_host="h")).url is None


@pytest.mark.parametrize("value", [None, "", "disabled"])
def test_results_can_be_switched_off(value: str | None) -> None:
    assert results(conf(result_backend=value), Found("redis://a", "x")).url is None


def test_the_environment_names_a_backend_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://env/2")
    assert results(conf(broker_url="redis://a")) == Found("redis://env/2", "environment CELERY_RESULT_BACKEND")


def test_the_backend_named_redis_is_put_together_from_its_parts() -> None:
    assert results(conf(result_backend="redis")).url == "redis://localhost:6379/0"
    parts = conf(
        result_backend="redis", redis_host="h", redis_port=7, redis_db=2, redis_password="p", redis_username="u"
    )
    assert results(parts).url == "redis://u:p@h:7/2"


def test_tls_settings_become_part_of_the_url() -> None:
    tls = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_ca_certs": "/ca.pem"}
    assert configured_broker(conf(broker_url="redis://h/1", broker_use_ssl=True)).url == "rediss://h/1"
    url = configured_broker(conf(broker_url="rediss://h/1", broker_use_ssl=tls)).url
    assert url == "rediss://h/1?ssl_cert_reqs=none&ssl_ca_certs=%2Fca.pem"
    assert results(conf(result_backend="redis://h", redis_backend_use_ssl=True)).url == "rediss://h"
