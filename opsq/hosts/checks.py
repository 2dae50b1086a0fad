"""What an order must satisfy on a host before it is obeyed, in this order: size, key, signature, JSON, version, life,
begin, end, target, nonce, policy. The nonce is written to disk after all of that, right before the start.

An order must be valid by the host's clock and by Redis' clock: the first keeps a hostile Redis from running it late,
the second a host whose own clock is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from opsq.hosts.nonces import Nonces
from opsq.hosts.order import LARGEST, LONGEST_LIFE_S, SKEW_S, SMALLEST, Order, Refusal, Subject, is_for, subject
from opsq.hosts.policy import Policy
from opsq.protocol import signing
from opsq.protocol.signing import Sealed

#: Apart from this, a difference between two clocks is not worth a word (seconds).
_CLOCKS_AGREE_S = 1.0


class Refused(Refusal):
    """An order is refused. `subject`: which one it claims to be; `forged`: nobody who is trusted has made it so."""

    def __init__(self, reason: str, about: Subject | None, forged: bool = False) -> None:
        super().__init__(reason)
        self.subject, self.forged = about, forged


class Checks:
    """The checks of one host."""

    def __init__(self, host: str, policy: Policy, nonces: Nonces, now: Callable[[], float]) -> None:
        """`now`: the host's clock (Unix seconds)."""
        self._host, self._policy, self._nonces, self._now = host, policy, nonces, now

    def check(self, value: bytes, redis_now: float) -> Order:
        """The order, if it is to be obeyed. `redis_now`: Redis TIME (Unix seconds). Raises Refused."""
        body = self._signed_body(value)
        try:
            order = Order.parse(body)
            self._check_times(order, redis_now)
            if not is_for(order, self._host):
                raise Refusal(f"it is not for {self._host}")
            if self._nonces.has(order.nonce, self._now()):
                raise Refusal("it was carried out before")
            if objection := self._policy.objection(value[: signing.KEY_ID_BYTES], self._now()):
                raise Refusal(objection)
        except Refusal as refusal:
            raise Refused(refusal.reason, subject(body)) from None
        except OSError as error:
            raise Refused(journal_trouble(error), subject(body)) from None
        return order

    def claim(self, order: Order) -> None:
        """The last step before the start: it may have waited, so the time again, then the nonce to disk."""
        about = Subject(order.job, order.part, order.nonce)
        now = self._now()
        if now > order.exp:
            raise Refused(f"it expired {now - order.exp:.0f} s ago while it waited for a free slot", about)
        try:
            if not self._nonces.claim(order.nonce, order.job, order.exp, now):
                raise Refused("it was carried out before", about)
        except OSError as error:
            raise Refused(journal_trouble(error), about) from None

    def started_before(self, about: Subject) -> bool:
        """Whether an order has reached the journal."""
        try:
            return self._nonces.has(about.nonce, self._now())
        except OSError:
            return True

    def _signed_body(self, value: bytes) -> bytes:
        """The body, if somebody who is trusted has signed it."""
        parts = Sealed.split(value) if SMALLEST <= len(value) <= LARGEST else None
        if parts is None:
            raise Refused(f"an order of {len(value)} bytes is none", None, forged=True)
        key = self._policy.key_of(parts.key_id)
        if key is None:
            why = "was revoked" if self._policy.is_revoked(parts.key_id) else "is not trusted"
            raise Refused(f"the operator's key {parts.key_id.hex()} {why} here", subject(parts.body), forged=True)
        if not parts.is_by(key, signing.ORDER):
            raise Refused("the signature is wrong", subject(parts.body), forged=True)
        return parts.body

    def _check_times(self, order: Order, redis_now: float) -> None:
        now = self._now()
        if order.exp - order.iat > LONGEST_LIFE_S:
            raise Refusal(f"it is valid for longer than {LONGEST_LIFE_S:.0f} s")
        if order.iat < self._nonces.born():
            raise Refusal("it is older than this host's memory of orders")
        off = now - redis_now
        clock = f" (clock off by {off:+.0f} s against Redis)" if abs(off) > _CLOCKS_AGREE_S else ""
        for whose, moment in (("this host", now), ("Redis", redis_now)):
            if moment < order.iat - SKEW_S:
                raise Refusal(f"it is not valid yet by the clock of {whose}, by {order.iat - moment:.0f} s{clock}")
        for whose, moment in (("this host", now), ("Redis", redis_now)):
            if moment > order.exp:
                raise Refusal(f"it expired {moment - order.exp:.0f} s ago by the clock of {whose}{clock}")


def journal_trouble(error: OSError) -> str:
    """Why no order can be carried out without its memory."""
    return f"cannot write the memory of orders: {(error.strerror or str(error)).lower()}"
