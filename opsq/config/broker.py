"""Where the broker is and where results go: what the settings say, checked, and in which order places are asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

from opsq.config.settings import DEFAULT, Settings
from opsq.config.urls import joined
from opsq.exceptions import BrokerError, ImproperlyConfigured

SCHEMES = ("redis", "rediss", "redis+socket", "unix", "sentinel")
#: Celery's words for no server at all, which its tests use: here a Redis of the process alone.
IN_MEMORY = ("memory", "cache+memory")
PRIVATE = "the private Redis of `opsq up`"
BROKER_URLS = ("broker_url", "broker_write_url", "broker_read_url")
BROKER_SETTINGS = (*BROKER_URLS, "broker_host", "result_backend")
_NO_RESULTS = ("", "disabled")
#: Celery's names for what a Django project has, and the classes that keep results there.
_DATABASE = "opsq.contrib.django.results:DatabaseBackend"
_CACHE = "opsq.contrib.django.results_cache:CacheBackend"
IN_DJANGO = {
    "django-db": _DATABASE,
    "django_celery_results.backends:DatabaseBackend": _DATABASE,
    "django_celery_results.backends.database:DatabaseBackend": _DATABASE,
    "django-cache": _CACHE,
    "django_celery_results.backends:CacheBackend": _CACHE,
    "django_celery_results.backends.cache:CacheBackend": _CACHE,
}


@dataclass(frozen=True, slots=True)
class Found:
    """A place and who named it; no URL: there is none."""

    url: str | None
    source: str


def configured_broker(settings: Settings) -> Found:
    """The broker that flags, environment, code or `opsq.toml` name. Raises ImproperlyConfigured for other kinds."""
    _refuse_two_places(settings)
    for name in BROKER_URLS:
        if settings[name]:
            url = _with_tls(_all_of(settings[name], check_broker_url), settings["broker_use_ssl"])
            url = _with_manners(url, _manners_of_broker(settings))
            return Found(_with_master(url, settings["broker_transport_options"]), settings.source_of(name))
    if settings["broker_host"]:
        url = _with_manners(check_broker_url(_from_parts(settings)), _manners_of_broker(settings))
        return Found(url, settings.source_of("broker_host"))
    return Found(None, DEFAULT)


def _refuse_two_places(settings: Settings) -> None:
    """The program itself may not send to one server and take from another; whoever names one from outside decides."""
    if settings["broker_url"] and settings.source_of("broker_url").startswith(("environment", "-")):
        return
    named = [name for name in BROKER_URLS if settings[name]]
    for one, other in itertools.pairwise(named):
        if settings[one] != settings[other]:
            raise ImproperlyConfigured(
                f"cannot work with {one} and {other}", why="they name different brokers, and opsq has one"
            )


def resolve_broker(settings: Settings, private_redis: Callable[[], str | None]) -> Found:
    """The broker: what is configured, else the private Redis if one answers. Raises BrokerError if there is none."""
    found = configured_broker(settings)
    if found.url is None:
        found = Found(private_redis(), PRIVATE)
    if found.url is None:
        raise BrokerError(
            "no broker configured and none running here", hint="run `opsq up`, or set broker_url (or OPSQ_BROKER_URL)"
        )
    return found


def resolve_results(settings: Settings, broker: Callable[[], Found]) -> Found:
    """Where results go: what is configured; the broker, if the program names neither; else nowhere."""
    url = settings["result_backend"]
    if url is None and not any(settings.set_by_program(name) for name in BROKER_SETTINGS):
        found = broker()
        return Found(found.url, f"as the broker: {found.source}")
    source = settings.source_of("result_backend")
    if url is None or url in _NO_RESULTS:
        return Found(None, source)
    if isinstance(url, str) and url in IN_DJANGO:
        return Found(url, source)
    if url == "redis":
        url = _results_from_parts(settings)
    url = _with_tls(_all_of(url, check_results_url), settings["redis_backend_use_ssl"])
    url = _with_manners(url, _manners_of_results(settings))
    return Found(_with_master(url, settings["result_backend_transport_options"]), source)


def check_broker_url(url: Any) -> str:
    """The URL, if it is one of Redis. Raises ImproperlyConfigured otherwise."""
    if isinstance(url, str) and (_scheme(url) in SCHEMES or is_in_memory(url)):
        return url
    raise ImproperlyConfigured(
        f"cannot use {_shown(url)} as broker",
        why="opsq's broker is Redis",
        hint="set broker_url to redis://HOST:6379/0, or leave it out and run `opsq up`",
    )


def check_results_url(url: Any) -> str:
    """The URL, if results can be kept there. Raises ImproperlyConfigured otherwise."""
    if isinstance(url, str) and (_scheme(url) in SCHEMES or is_in_memory(url) or names_class(url)):
        return url
    raise ImproperlyConfigured(
        f"cannot use {_shown(url)} as result backend",
        why="opsq keeps results in Redis, in Django's database, or not at all",
        hint="set result_backend to redis://HOST:6379/0, to django-db, or to None",
    )


def names_class(url: str | None) -> bool:
    """Whether it is a class of the program's own, `module:Class`."""
    module, colon, name = (url or "").partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def class_of_results(url: str | None) -> str | None:
    """The class (`module:Class`) that keeps results in a place of the program's own; None for a server."""
    return IN_DJANGO.get(url or "") or (url if names_class(url) else None)


def is_in_memory(url: str | None) -> bool:
    """Whether it is one of Celery's words for a place in the memory of the process."""
    return url is not None and _scheme(url) in IN_MEMORY


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def _shown(url: Any) -> str:
    """A URL fit for an error: no user, no password."""
    if not isinstance(url, str):
        return f"a {type(url).__name__}"
    head, mark, tail = url.partition("://")
    return repr(f"{head}{mark}{tail.rpartition('@')[2]}")


def _all_of(value: Any, check: Callable[[Any], str]) -> str:
    """The URLs of a setting, each checked, with `;` between them."""
    several = value.split(";") if isinstance(value, str) else value
    if not isinstance(several, list | tuple):
        return check(value)
    return ";".join(check(each.strip() if isinstance(each, str) else each) for each in several if each) or check("")


def _from_parts(settings: Settings) -> str:
    """Celery's oldest form: host, port, user, password and database apart."""
    host = str(settings["broker_host"])
    if "://" in host:
        return host
    scheme = settings["broker_transport"] or "amqp"
    return f"{scheme}://{_login(settings['broker_user'], settings['broker_password'])}{host}" + (
        f":{settings['broker_port'] or 6379}/{str(settings['broker_vhost'] or 0).strip('/') or 0}"
    )


def _results_from_parts(settings: Settings) -> str:
    """`result_backend = "redis"`: the server is named by the `redis_*` settings."""
    login = _login(settings["redis_username"], settings["redis_password"])
    host, port, db = settings["redis_host"], settings["redis_port"], settings["redis_db"]
    return f"redis://{login}{host or 'localhost'}:{port or 6379}/{db or 0}"


def _login(user: str | None, password: str | None) -> str:
    if not user and not password:
        return ""
    return f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@"


def _manners_of_broker(settings: Settings) -> dict[str, Any]:
    """How connections to the broker behave, as far as anybody says something of it."""
    told = settings["broker_transport_options"]
    known = ("socket_connect_timeout", "client_name")
    manners = {name: told.get(name) for name in known} if isinstance(told, Mapping) else {}
    if manners.get("socket_connect_timeout") is None and settings.source_of("broker_connection_timeout") != DEFAULT:
        manners["socket_connect_timeout"] = settings["broker_connection_timeout"]
    return manners


def _manners_of_results(settings: Settings) -> dict[str, Any]:
    given = [name for name in _MANNERS.values() if settings.source_of(name) != DEFAULT]
    return {word: settings[name] for word, name in _MANNERS.items() if name in given}


#: Words of redis-py for connections, and the settings that say them for results.
_MANNERS = {
    "socket_connect_timeout": "redis_socket_connect_timeout",
    "socket_timeout": "redis_socket_timeout",
    "client_name": "redis_client_name",
}


def _with_manners(urls: str, manners: Mapping[str, Any]) -> str:
    """The URLs with these words in each, as redis-py reads them there; what a URL says itself stays."""
    words = {name: str(value) for name, value in manners.items() if value is not None}
    return ";".join(_with_words(urlsplit(url), _missing(url, words)) for url in urls.split(";")) if words else urls


def _missing(url: str, words: Mapping[str, str]) -> dict[str, str]:
    said = parse_qs(urlsplit(url).query)
    return {name: word for name, word in words.items() if name not in said}


def _with_tls(urls: str, wanted: Any) -> str:
    """The URLs with what `broker_use_ssl` or `redis_backend_use_ssl` says in each."""
    return ";".join(_one_with_tls(url, wanted) for url in urls.split(";")) if wanted else urls


def _one_with_tls(url: str, wanted: Any) -> str:
    if _scheme(url) in ("redis+socket", "unix"):
        return url
    words: dict[str, str] = {}
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        words["ssl"] = "true"
    else:
        parts = parts._replace(scheme="rediss")
    if isinstance(wanted, Mapping):
        words |= {
            name: _tls_word(value) for name, value in wanted.items() if name.startswith("ssl_") and value is not None
        }
    return _with_words(parts, words)


def _with_master(urls: str, options: Any) -> str:
    """URLs of Sentinels with the name of the master they watch and what they themselves want to be told."""
    first, mark, others = urls.partition(";")
    parts = urlsplit(first)
    if parts.scheme != "sentinel" or not isinstance(options, Mapping):
        return urls
    words = {}
    if options.get("master_name") and "master_name=" not in parts.query:
        words["master_name"] = str(options["master_name"])
    for name, value in (options.get("sentinel_kwargs") or {}).items():
        words[f"sentinel_{name}"] = _tls_word(value)
    return _with_words(parts, words) + mark + others


def _with_words(parts: SplitResult, words: Mapping[str, str]) -> str:
    return joined(parts._replace(query="&".join(part for part in (parts.query, urlencode(words)) if part)))


def _tls_word(value: Any) -> str:
    """`ssl.CERT_NONE` as redis-py writes it in a URL; paths and words stay."""
    name = getattr(value, "name", None)
    return str(name).removeprefix("CERT_").lower() if name else str(value)
