"""All checks, in the order in which they are reported."""

from __future__ import annotations

from opsq.cli.doctor import local, schedule, server, work
from opsq.cli.doctor.finding import Check

#: Looked at whether the broker answers or not.
CHECKS: tuple[Check, ...] = (
    Check("state directory", "it can be written, by this user alone, and has room", local.state_directory),
    Check("pidfiles", "each names a process that runs", local.pidfiles),
    Check("monitor", "nobody reaches it from outside without a password", local.monitor),
    Check("schedule zone", "hours of the schedule have a time zone", schedule.zone),
    Check("schedule minutes", "no entry fires in every minute of an hour by mistake", schedule.minutes),
)
NEEDS_BROKER: tuple[Check, ...] = (
    Check("broker version", "Redis 6.2 or newer, or Valkey", server.version),
    Check("eviction", "a full broker refuses, it throws nothing away", server.eviction),
    Check("persistence", "what was sent survives a restart of the broker", server.persistence),
    Check("memory", "the broker has room for a burst", server.memory),
    Check("latency", "the broker answers within 10 ms", server.latency),
    Check("clocks", "the broker's clock is that of this host", server.clock),
    Check("notices", "the broker tells workers when a queue changes", server.notices),
    Check("consumers", "a worker consumes each queue in which something waits", work.consumers),
    Check("paused queues", "no queue is paused", work.paused),
    Check("task names", "workers know the tasks that wait", work.unknown_tasks),
    Check("in flight", "what is in flight has somebody who takes it over", work.orphans),
    Check("versions", "all workers run one version of opsq", work.versions),
    Check("Celery's leftovers", "nothing lies in Celery's unacked", work.celery_unacked),
    Check("dead letters", "nobody has failed for good", work.dead),
)
