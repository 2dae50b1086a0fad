"""What befell messages whose holder was lost: which, when, where, and what became of them. For people; nothing relies
on it. Who settles for the lost one writes it down; a cap and a time to live bound it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opsq.broker.broker import Broker
from opsq.datastore import keys
from opsq.datastore.connection import client, errors
from opsq.datastore.trouble import RedisError

logger = logging.getLogger("opsq.broker")


@dataclass(frozen=True, slots=True)
class Loss:
    """A message that lost its holder. `holder`: the consumer; `started`: whether it had been, or may have been.

    `fate`: "back" (in its queue again) or "dead"; `time`: Unix seconds.
    """

    id: str
    time: float
    holder: str
    why: str
    started: bool
    fate: str

    @property
    def node(self) -> str:
        """The worker's node name."""
        return self.holder.rsplit(":", 2)[0]


def note(url: str, key_prefix: str, queue: str, losses: Sequence[Loss]) -> None:
    """Write them down. Trouble with it does not matter to the messages."""
    key = key_prefix + keys.lost(queue)
    try:
        pipe = client(url).pipeline(transaction=True)
        pipe.lpush(key, *[json.dumps(asdict(loss)) for loss in losses[-keys.LOST_CAP :]])
        pipe.ltrim(key, 0, keys.LOST_CAP - 1)
        pipe.expire(key, keys.LOST_AGE_S)
        pipe.execute()
    except (RedisError, OSError) as error:
        logger.debug("cannot write down what was lost: %s", error)


def of_task(broker: Broker, queues: Sequence[str], task_id: str) -> list[Loss]:
    """Those of one task, oldest first."""
    with errors(broker.url):
        pipe = broker.client.pipeline(transaction=False)
        for queue in queues:
            pipe.lrange(broker.key(keys.lost(queue)), 0, -1)
        answers: Any = pipe.execute() if queues else ()
    needle = json.dumps(task_id).encode()
    found = [json.loads(raw) for answer in answers for raw in answer if needle in raw]
    losses = [Loss(**told) for told in found if told["id"] == task_id]
    return sorted(losses, key=lambda loss: loss.time)
