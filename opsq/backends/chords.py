"""Chords and groups among the results: how many parts there are, which have ended, who may send the body.

Keys, order and times are Celery's (wire section 4.4), so that the parts of one chord may run in workers of both. Ours
is only what is needed so that no chord is forgotten: the set of those that somebody has to look after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from opsq import states
from opsq.backends.base import Format, as_exception
from opsq.broker import gathering
from opsq.broker.broker import LUA
from opsq.datastore import keys
from opsq.datastore.connection import client, errors
from opsq.datastore.lines import Lines
from opsq.datastore.scripts import Script
from opsq.datastore.server_time import in_ms
from opsq.exceptions import ChordError
from opsq.protocol import failure, jsontypes, shared_key
from opsq.utils.ids import new_task_id

FUNCTIONS = LUA / "chord_functions.lua"
_PART = Script(LUA / "chord_part.lua", FUNCTIONS)
LOOK = Script(LUA / "chord_look.lua", FUNCTIONS)
_DONE = Script(LUA / "chord_done.lua")
_TAKE = Script(LUA / "chord_take.lua")

#: A counter that is missing for so long after the last part is lost: Celery's clients set it with the last message.
COUNTER_LOST_S = 300
#: How long others know that a chord is done, and how soon an incomplete one is looked at again (seconds).
DONE_S = 300
LOOK_AGAIN_S = 60
#: Chords that are looked at in one step.
LOOK_AT = 100


#: What signed facts are about.
_ABOUT = b"chord"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a chord besides its parts: the body's signature, and the task that told it last.

    `run` names this run of it, should it be sent again under the same name.
    """

    body: Mapping[str, Any]
    root_id: str | None
    parent_id: str | None
    run: str


class Chords:
    """The chords of one app."""

    def __init__(
        self,
        url: str,
        wanted: Format,
        key_prefix: str = "",
        ordered: bool = True,
        ttl_s: int | None = None,
        join_s: float = 3.0,
    ) -> None:
        """`ttl_s`: how long their state is kept, 0 = for ever, None = as long as results; `join_s`: how long results of
        nested groups may take."""
        self.url, self.format, self.key_prefix = url, wanted, key_prefix
        self._lines = Lines(url)
        self.ordered, self.join_s = ordered, join_s
        self.ttl_s = wanted.ttl_s if ttl_s is None else ttl_s
        #: Whose are the bodies that this process may send; for how long (seconds).
        self.token, self.claim_s = new_task_id(), max(5, int(join_s * 2))

    @classmethod
    def of(cls, url: str, wanted: Format, key_prefix: str, conf: Mapping[str, Any]) -> Self:
        """As the settings of an app say."""
        expires = conf["result_chord_expires"]
        ttl_s = None if expires is None else int(expires)
        ordered = bool((conf["result_backend_transport_options"] or {}).get("result_chord_ordered", True))
        return cls(url, wanted, key_prefix, ordered, ttl_s, float(conf["result_chord_join_timeout"] or 5.0))

    def key(self, group_id: str) -> str:
        """Where a group is saved; a chord's state is beside it."""
        return self.key_prefix + keys.group_result(group_id)

    # -- the sender -------------------------------------------------------------------------------------------------

    def set_size(self, group_id: str, size: int, body: Mapping[str, Any]) -> None:
        """Say how many parts there are; before any of them is sent."""
        key, held = self.key(group_id), gathering.current()
        if held is not None and held.records is not None:
            held.records.append((f"{key}.s", self.ttl_s, str(size).encode()))
            return
        ours = self.key_prefix + keys.chord(group_id)
        with errors(self.url):
            pipe = client(self.url).pipeline(transaction=True)
            pipe.delete(f"{key}.c")
            pipe.set(f"{key}.s", size, ex=self.ttl_s or None)
            pipe.time()
            pipe.hset(ours, "facts", _facts(body, None, None))
            if self.ttl_s:
                pipe.expire(ours, self.ttl_s)
            now = in_ms(pipe.execute()[2])
            pipe.hset(ours, "at", str(now))
            pipe.zadd(self.key_prefix + keys.CHORDS, {group_id: now + LOOK_AGAIN_S * 1000})
            pipe.execute()

    def save(self, group_id: str, stored: Any, ttl_s: int) -> None:
        """Save which results a group has (`as_tuple`)."""
        record = self.key(group_id), ttl_s, self.format.encode({"result": stored})
        held = gathering.current()
        if held is not None and held.records is not None:
            held.records.append(record)
            return
        with errors(self.url):
            client(self.url).set(record[0], record[2], ex=ttl_s or None)

    def keep(self, records: Iterable[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
        """Store those records that are of chords (`set_size`, `save`) where they are counted; the other ones."""
        start = self.key("")
        given = list(records)
        own = [record for record in given if record[0].startswith(start)]
        if not own:
            return given
        with errors(self.url):
            pipe = client(self.url).pipeline(transaction=True)
            for key, ttl_s, data in own:
                pipe.set(key, data, ex=ttl_s or None)
            pipe.execute()
        return [record for record in given if not record[0].startswith(start)]

    def restore(self, group_id: str) -> Any:
        """What was saved of a group, or None."""
        with errors(self.url):
            data: Any = client(self.url).get(self.key(group_id))
        return None if data is None else self.format.decode_plain(data)["result"]

    def delete(self, group_id: str) -> None:
        """Remove what was saved of a group."""
        with errors(self.url):
            client(self.url).delete(self.key(group_id))

    def grow(self, group_id: str) -> None:
        """One part more than was said."""
        with errors(self.url):
            pipe = client(self.url).pipeline(transaction=True)
            pipe.incr(f"{self.key(group_id)}.t")
            if self.ttl_s:
                pipe.expire(f"{self.key(group_id)}.t", self.ttl_s)
            pipe.execute()

    # -- the parts --------------------------------------------------------------------------------------------------

    def member(self, task_id: str, state: str, value: Any) -> bytes:
        """A part as it is kept until the others are there. Raises EncodeError."""
        if isinstance(value, BaseException):
            value = value if self.format.serializer == "pickle" else failure.to_data(value)
        return self.format.encode([1, task_id, state, value])

    def part(self, part: Any, claim: bool = True) -> tuple[Any, ...]:
        """The arguments that count a part (`execution.outcome.ChordPart`); `claim`: if it is the last one, the body is
        ours to send, else it is left to a reaper."""
        place = "+inf" if part.index is None else part.index
        facts = _facts(part.body, part.root_id, part.task_id) if part.body is not None else b""
        group_id = part.group_id
        return (
            *(self.key(group_id), f"{part.task_id}:{place}", place, part.member, "1" if self.ordered else "0"),
            *(self.ttl_s, self.ttl_s, self.claim_s if claim else 0, self.token),
            *(self.key_prefix + keys.CHORDS, self.key_prefix + keys.chord(group_id), group_id, facts),
        )

    def count(self, parts: Sequence[Sequence[Any]]) -> list[str]:
        """Count parts; the names of those chords that are complete now and whose body is ours to send."""
        words = [word for part in parts for word in part]
        found: list[bytes] = _PART.run(client(self.url), [], words)
        return [name.decode() for name in found]

    # -- the body ---------------------------------------------------------------------------------------------------

    def look(self) -> list[tuple[str, str]]:
        """Chords that nobody looks after, and why: complete, counter (it is lost), old; their bodies are ours now."""
        prefix = self.key_prefix
        words = (prefix + keys.group_result(""), prefix + keys.chord(""), "1" if self.ordered else "0", self.ttl_s)
        times = COUNTER_LOST_S, self.claim_s, self.token, LOOK_AGAIN_S * 1000, LOOK_AT
        found: list[bytes] = LOOK.ask(self._lines.ask, [prefix + keys.CHORDS], [*words, *times])
        return [(name.decode(), why.decode()) for name, why in zip(found[::2], found[1::2], strict=True)]

    def take(self, group_id: str, token: str) -> bool:
        """Make the body ours to send that `look` has found for the process of this token; false when it is sent, or
        somebody else has it by now."""
        with errors(self.url):
            return bool(_TAKE.run(client(self.url), [self.key(group_id)], [token, self.token, self.claim_s]))

    def is_ours(self, group_id: str) -> bool:
        """Whether the body is ours to send, for the whole time from now on."""
        redis, key = client(self.url), f"{self.key(group_id)}.c"
        with errors(self.url):
            return redis.get(key) == self.token.encode() and bool(redis.expire(key, self.claim_s))

    def facts(self, group_id: str) -> Facts | None:
        """What is known of a chord; None when nothing is."""
        with errors(self.url):
            found: Any = client(self.url).hmget(self.key_prefix + keys.chord(group_id), "facts", "run")
        if found[0] is None:
            return None
        told = jsontypes.loads(shared_key.opened(found[0], _ABOUT))
        run = (found[1] or b"none").decode()
        return Facts(told["body"], told.get("root_id"), told.get("parent_id"), run)

    def values(self, group_id: str) -> list[tuple[str, Any]]:
        """Id and value of all parts, in order. Raises ChordError when one has failed."""
        key = f"{self.key(group_id)}.j"
        with errors(self.url):
            redis = client(self.url)
            found: Any = redis.zrange(key, 0, -1) if self.ordered else redis.lrange(key, 0, -1)
        return [self._value(member) for member in found]

    def _value(self, member: bytes) -> tuple[str, Any]:
        _, task_id, state, value = self.format.decode_plain(member)
        if state in states.EXCEPTION_STATES:
            value = as_exception(value)
        if state in states.PROPAGATE_STATES:
            raise ChordError(f"Dependency {task_id} raised {value!r}") from (
                value if isinstance(value, BaseException) else None
            )
        return task_id, value

    def counted(self, group_id: str) -> tuple[int, str]:
        """How many parts have ended, and of how many as far as that is known."""
        key = self.key(group_id)
        with errors(self.url):
            pipe = client(self.url).pipeline(transaction=False)
            (pipe.zcard if self.ordered else pipe.llen)(f"{key}.j")
            pipe.mget(f"{key}.s", f"{key}.t")
            count, (size, more) = pipe.execute()
        return count, "an unknown number" if size is None else str(int(size) + int(more or 0))

    def done(self, group_id: str) -> bool:
        """Its body was sent: forget it. False when it is not ours any more."""
        places = [self.key(group_id), self.key_prefix + keys.CHORDS, self.key_prefix + keys.chord(group_id)]
        with errors(self.url):
            return bool(_DONE.run(client(self.url), places, [self.token, DONE_S, group_id]))


def _facts(body: Mapping[str, Any], root_id: str | None, parent_id: str | None) -> bytes:
    return shared_key.sealed(jsontypes.dumps({"body": body, "root_id": root_id, "parent_id": parent_id}), _ABOUT)
