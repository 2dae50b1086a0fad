"""Signed messages by an app's settings: Celery's serializer `auth`, and a key that all programs share."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from opsq.exceptions import ImproperlyConfigured
from opsq.protocol import shared_key

_FILES = ("security_key", "security_certificate", "security_cert_store")


def setup_security(
    app: Any,
    allowed_serializers: Iterable[str] | None = None,  # noqa: ARG001 (Celery's signature: accept_content says it here)
    key: str | None = None,
    key_password: bytes | None = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str = "sha256",
    serializer: str = "json",
) -> None:
    """Have this process sign with `auth` and read nothing else. What is not given is as the settings say.

    Raises ImproperlyConfigured, SecurityError.
    """
    conf = app.conf
    if conf.task_serializer != "auth" or list(conf.accept_content) != ["auth"]:
        raise ImproperlyConfigured(
            "cannot sign messages",
            why=f"task_serializer is {conf.task_serializer!r} and accept_content {list(conf.accept_content)!r}",
            hint="set task_serializer = 'auth' and accept_content = ['auth']: what is not checked need not be signed",
        )
    files = [given or conf[name] for given, name in zip((key, cert, store), _FILES, strict=True)]
    if not all(files):
        missing = " and ".join(name for name, file in zip(_FILES, files, strict=True) if not file)
        raise ImproperlyConfigured("cannot sign messages", why=f"no {missing} is set")
    x509 = importlib.import_module("opsq.protocol.x509")  # only now: it needs the package cryptography
    password = key_password or conf.security_key_password
    x509.register(x509.SignedBodies(files[0], password, files[1], files[2], digest, serializer))


def use_shared_key(conf: Mapping[str, Any]) -> None:
    """Have this process sign as `security_shared_key` says. Raises ImproperlyConfigured."""
    if keys := conf["security_shared_key"]:
        shared_key.use(keys)
