"""Sign with a key that ssh-agent holds, over its socket (the protocol's two requests that are needed for it)."""

from __future__ import annotations

import os
import socket
import struct

from opsq.exceptions import RefusedError
from opsq.protocol.signing import KEY_TYPE, SIGNATURE_BYTES, PublicKey

_LIST, _KEYS, _SIGN, _SIGNED = 11, 12, 13, 14
_PATIENCE_S = 60.0  # a key may ask its owner for a touch
_LONGEST_ANSWER = 1 << 20


class AgentKey:
    """A signer whose private key never leaves ssh-agent."""

    def __init__(self, public: PublicKey) -> None:
        self.public = public

    def sign(self, data: bytes) -> bytes:
        """The signature over exactly these bytes. Raises RefusedError."""
        request = struct.pack(">B", _SIGN) + _string(self.public.blob) + _string(data) + struct.pack(">I", 0)
        answer = _ask(request)
        signature = answer[-SIGNATURE_BYTES:]
        if answer[:1] != bytes([_SIGNED]) or answer[5:] != _string(KEY_TYPE) + _string(signature):
            raise _refused("it does not sign with this key", f"ssh-add the private key of {self.public.fingerprint}")
        return signature


def holds(public: PublicKey) -> bool:
    """Whether ssh-agent has the private key of a public one. Raises RefusedError when there is no agent."""
    answer = _ask(bytes([_LIST]))
    return answer[:1] == bytes([_KEYS]) and _string(public.blob) in answer


def _ask(request: bytes) -> bytes:
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        raise _refused("SSH_AUTH_SOCK is not set", "start one: eval $(ssh-agent), then ssh-add")
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_PATIENCE_S)
            link.connect(path)
            link.sendall(_string(request))
            (length,) = struct.unpack(">I", _read(link, 4))
            return _read(link, min(length, _LONGEST_ANSWER))
    except (OSError, EOFError) as error:
        raise _refused(str(error) or type(error).__name__, f"it should listen at {path}") from None


def _read(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise EOFError("it closed the connection")
        data += part
    return data


def _refused(why: str, hint: str) -> RefusedError:
    return RefusedError("cannot sign with ssh-agent", why=why, hint=hint)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
