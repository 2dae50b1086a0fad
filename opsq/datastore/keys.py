"""Every Redis key that opsq reads or writes, Celery's and its own, with its time to live or its cap, in one table.

A key of ours lives under `opsq:`, after the global key prefix (`global_keyprefix`). The keys of one queue carry its
name in braces, so that they share a slot of Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Between a queue's name and its priority step, unless the settings say otherwise (wire section 3.2).
PRIORITY_SEPARATOR = "\x06\x16"

#: The queues that any publisher or worker has ever used here (set). SCAN is never used to find queues.
QUEUES = "opsq:queues"
#: The workers that live: worker id -> end of its lease, server time in ms (sorted set).
WORKERS = "opsq:workers"

#: The limits of tasks and queues: `task:<name>` or `queue:<name>` -> what it has (hash of JSON).
LIMITS = "opsq:limits"
#: Rates for the whole cluster that were set by command: task -> rate as it was typed (hash).
RATE_LIMITS = "opsq:rate-limits"

#: The hosts whose agents were ever seen here (set).
HOSTS = "opsq:hosts"
#: The jobs of `run host-batch` by time: job id -> Unix seconds (sorted set).
JOBS = "opsq:jobs"

#: Milliseconds without renewal after which a host counts as gone.
HOST_LEASE_MS = 15_000
#: Seconds that orders wait at most: longer than any order is valid (see `opsq/hosts/order.py`).
HOST_ORDERS_S = 3_660
#: Seconds that a host's last facts are kept.
HOST_FACTS_S = 30 * 86_400
#: Jobs kept, and seconds that a job and what its commands wrote are kept.
JOBS_CAP = 1_000
JOB_S = 7 * 86_400
JOB_OUTPUT_S = 86_400

#: When kombu's processes (5.7) may take the bindings of an exchange away: exchange -> server time in ms (sorted set).
BINDING_DEADLINES = "_kombu.binding_deadlines"
#: Seconds that a reply to a remote command waits for who asked.
REPLIES_S = 60
#: Milliseconds that bindings for such replies are kept after the last one came (as kombu does).
REPLY_BINDING_MS = 3_600_000

#: Revoked ids, and stamps (JSON: [header, value]): each -> until when it is remembered, server time in ms (sorted set).
REVOKED = "opsq:revoked"
#: Revocations that are remembered, as many as Celery's workers do; those that would be forgotten first go first.
REVOKED_CAP = 50_000
#: Seconds they are remembered, and after the last message was due that lay in a delayed set then. Celery forgets after
#: three hours, and then runs what has waited longer.
REVOKED_S = 86_400

#: Dead letters kept for each queue; the oldest go first.
DEAD_CAP = 100_000
#: Seconds that what was purged lives at most, should its purger die.
PURGED_S = 3_600
#: Seconds a dead letter is kept.
DEAD_AGE_S = 90 * 86_400
#: Seconds that a consumer whose messages were taken for lost may take their dead letters back.
TAKEN_S = 86_400
#: Seconds the counts of an hour are kept after they were last written.
STATS_AGE_S = 26 * 3600
#: Totals (a task in a state) of a queue; what comes after that is counted under the task name "(other)".
TOTALS_CAP = 2000
#: Days of the profile of tasks that are shown, and seconds a day's is kept.
PROFILE_DAYS = 7
PROFILE_AGE_S = (PROFILE_DAYS + 1) * 86_400

#: What befell messages whose holder was lost: most of a queue, and for how long they are kept (seconds).
LOST_CAP = 1_000
LOST_AGE_S = 7 * 86_400

#: kombu's store of messages that Celery's workers have taken and not acknowledged, its index, and its mutex.
UNACKED, UNACKED_INDEX, UNACKED_MUTEX = "unacked", "unacked_index", "unacked_mutex"

#: The monitor's history: task id -> record (hash), and two indexes by last change (sorted sets).
HISTORY = "opsq:history"
HISTORY_INDEX = "opsq:history-index"
#: Those that failed, were retried, revoked or rejected: successes do not push them out.
HISTORY_TROUBLE = "opsq:history-trouble"
#: Tasks that were seen and not kept, by minute (hash).
HISTORY_SKIPPED = "opsq:history-skipped"
#: Tasks kept in each of the two indexes, and for how long (seconds), unless the settings say otherwise.
HISTORY_CAP = 10_000
HISTORY_AGE_S = 7 * 86_400
HISTORY_CHAIN_CAP = 200
HISTORY_SKIPPED_TTL_S = 3_600
#: How the queues stood, latest first (list of JSON), for the monitor's charts.
MONITOR_SAMPLES = "opsq:monitor-samples"
MONITOR_SAMPLES_CAP = 360
MONITOR_SAMPLES_TTL_S = 86_400

#: Log lines of tasks: by id when each logged last (sorted set, ms), and what they take (hash, "#" = together).
TASK_LOGS = "opsq:task-logs"
TASK_LOG_SIZES = "opsq:task-log-sizes"
#: How long they are kept (seconds), the most of one task (bytes), the longest line (characters).
TASK_LOG_S = 86_400
TASK_LOG_BYTES = 64_000
TASK_LOG_LINE = 4_000

#: The apps whose beat has kept a schedule here (set).
SCHEDULES = "opsq:schedules"
#: Seconds an operator's order "run this entry now" waits for a beat.
ORDER_AGE_S = 60

#: The chords that somebody looks after: group id -> when to look next, ms (sorted set, among the results).
CHORDS = "opsq:chords"
#: Seconds that a mark says that a chord's body was sent.
CHORD_SENT_S = 86_400

#: The call of a task of Django's own interface is known so much longer than its result (seconds), and so long where
#: results are kept for ever.
DJANGO_RUN_S = 86_400
DJANGO_TASK_S = 90 * 86_400


@dataclass(frozen=True, slots=True)
class KeyFact:
    """One row of the table: which keys, what they hold, and what bounds them."""

    pattern: str
    holds: str
    bound: str
    needs_ttl: bool = False


TABLE: tuple[KeyFact, ...] = (
    KeyFact("<queue>", "waiting messages (Celery's list)", "ends when empty"),
    KeyFact("<queue>\\x06\\x16<3|6|9>", "waiting messages of lower priority (Celery's lists)", "ends when empty"),
    KeyFact("_kombu.binding.<exchange>", "Celery's bindings", "one member a queue"),
    KeyFact("_kombu.binding_permanent.<exchange>", "Celery's bindings without expiry", "one member a queue"),
    KeyFact("_kombu.binding_deadlines", "when Celery's bindings may go", "one member an exchange"),
    KeyFact("<id>.reply.<exchange>.pidbox", "replies to a remote command", f"{REPLIES_S} s", needs_ttl=True),
    KeyFact("celery-task-meta-<id>", "a result", "result_expires", needs_ttl=True),
    KeyFact("unacked", "messages that Celery's workers hold (kombu's)", "ends when empty"),
    KeyFact("unacked_index", "when they were delivered (kombu's)", "ends when empty"),
    KeyFact("unacked_mutex", "a Celery process restores them (kombu's)", "300 s", needs_ttl=True),
    KeyFact("celery-taskset-meta-<group>", "the results of a group (Celery's)", "result_expires", needs_ttl=True),
    KeyFact("celery-taskset-meta-<group>.<j|t|s|d|c>", "a chord's parts and counters (Celery's)", "as results", True),
    KeyFact("opsq:chords", "chords whose body was not sent yet", "removed when sent, failed or expired"),
    KeyFact("opsq:chord:<group>", "the body of a chord, and when it was heard of last", "as its parts", needs_ttl=True),
    KeyFact("opsq:chord-sent:<group>:<run>", "exists when the body was sent", f"{CHORD_SENT_S // 3600} hours", True),
    KeyFact("opsq:queues", "names of the queues ever used", "one member a queue"),
    KeyFact("opsq:workers", "live workers and the ends of their leases", "removed by the reaper"),
    KeyFact("opsq:worker:<id>", "what a worker runs", "three leases", needs_ttl=True),
    KeyFact("opsq:consumers:{<queue>}", "consumers of a queue and the ends of their leases", "removed by the reaper"),
    KeyFact("opsq:inflight:{<queue>}:<consumer>", "messages that a consumer holds", "ends when empty"),
    KeyFact("opsq:delayed:{<queue>}", "messages with a due time (score in ms)", "ends when empty"),
    KeyFact("opsq:unique:<key>", "the id of a unique message", "unique_for, or the end of its task", needs_ttl=True),
    KeyFact("opsq:debounced:{<queue>}:<key>", "which debounced message waits", "debounce + unique_for", needs_ttl=True),
    KeyFact("opsq:purged:{<queue>}:<token>", "what was just purged", "an hour", needs_ttl=True),
    KeyFact("opsq:dead:{<queue>}", "dead letters by id", f"{DEAD_CAP} letters, {DEAD_AGE_S // 86_400} days"),
    KeyFact("opsq:dead-index:{<queue>}", "ids of the dead letters by time", "as the dead letters"),
    KeyFact("opsq:taken:{<queue>}:<consumer>", "dead letters that it may take back", "a day", needs_ttl=True),
    KeyFact("opsq:lost:{<queue>}", "messages whose holder was lost", f"{LOST_CAP}, {LOST_AGE_S // 86_400} days", True),
    KeyFact("opsq:revoked", "ids and stamps of revoked tasks", f"{REVOKED_CAP}, a day", needs_ttl=True),
    KeyFact("opsq:history", "latest tasks (the monitor's records)", f"{HISTORY_CAP} of either kind, 7 days", True),
    KeyFact("opsq:history-index", "their ids by last change", "as the records", True),
    KeyFact("opsq:history-trouble", "ids of those that failed, by last change", "as the records", True),
    KeyFact("opsq:history-chain:<root>", "ids of what a task has sent", f"{HISTORY_CHAIN_CAP} ids, 7 days", True),
    KeyFact("opsq:history-skipped", "tasks counted and not kept, by minute", "an hour", True),
    KeyFact("opsq:monitor-samples", "how the queues stood", f"{MONITOR_SAMPLES_CAP} notes, a day", True),
    KeyFact("opsq:stats:{<queue>}:<hour>", "what came of how many messages, by the minute", "26 hours", needs_ttl=True),
    KeyFact("opsq:totals:{<queue>}", "what came of how many messages of each task, ever", f"{TOTALS_CAP} totals"),
    KeyFact("opsq:profile:{<queue>}:<day>", "how long runs of a task took, what they cost", "8 days", needs_ttl=True),
    KeyFact("opsq:task-log:<id>", "what a task logged, its latest lines", "64 kB, a day", needs_ttl=True),
    KeyFact("opsq:task-logs", "the tasks of which lines are kept, by their last one", "a day", needs_ttl=True),
    KeyFact("opsq:task-log-sizes", "what the lines of each task take", "task_log_max_bytes, a day", needs_ttl=True),
    KeyFact("opsq:django-task:<id>", "a call of django.tasks, who has begun it", "a day longer than results", True),
    KeyFact("opsq:limited:{<queue>}:<lane>", "messages that wait for a limit (lists by priority)", "ends when empty"),
    KeyFact("opsq:lanes:{<queue>}", "lanes in which messages wait, and when to look (ms)", "one member a lane"),
    KeyFact("opsq:lane-facts:{<queue>}", "their limits", "as the lanes"),
    KeyFact("opsq:passes:{<queue>}:<consumer>", "what the messages of a consumer hold of limits", "7 days", True),
    KeyFact("opsq:rate:<limit>", "when the next start is due by a rate (us)", "the rate", needs_ttl=True),
    KeyFact("opsq:places:<limit>", "who runs within a limit of concurrency; who waits", "7 days", needs_ttl=True),
    KeyFact("opsq:circuit:<task>", "failures in a row; since when it is open; who waits", "7 days", needs_ttl=True),
    KeyFact("opsq:limits", "the limits of tasks and queues, as workers have them (JSON)", "one field a limited task"),
    KeyFact("opsq:rate-limits", "rates for the whole cluster that were set by command", "one field a task"),
    KeyFact("opsq:paused:{<queue>}", "exists while the queue is paused", "until resumed"),
    KeyFact("opsq:schedules", "the apps that have a schedule", "one member an app"),
    KeyFact("opsq:schedule:{<app>}:entries", "what is known of each entry (JSON)", "one field an entry"),
    KeyFact("opsq:schedule:{<app>}:due", "the last due time of each entry that was served (ms)", "one field an entry"),
    KeyFact("opsq:schedule:{<app>}:added", "entries added by command (JSON)", "until removed"),
    KeyFact("opsq:schedule:{<app>}:paused", "names of the paused entries", "until resumed"),
    KeyFact("opsq:schedule:{<app>}:orders", "entries to run now", f"{ORDER_AGE_S} s", needs_ttl=True),
    KeyFact("opsq:schedule:{<app>}:sent", "the last message of entries that must not overlap", "one field an entry"),
    KeyFact("opsq:schedule:{<app>}:lease", "which beat ticks", "the lease of a beat", needs_ttl=True),
    KeyFact("opsq:hosts", "names of hosts", "one member a host; removed when its facts have gone"),
    KeyFact("opsq:host:{<host>}:orders", "sealed orders for a host", f"{HOST_ORDERS_S} s", needs_ttl=True),
    KeyFact("opsq:host:{<host>}:taken", "orders in its agent's hand", f"{HOST_ORDERS_S} s", needs_ttl=True),
    KeyFact("opsq:host:{<host>}:lease", "which agent serves it", f"{HOST_LEASE_MS // 1000} s", needs_ttl=True),
    KeyFact("opsq:host:{<host>}:facts", "what it says of itself", f"{HOST_FACTS_S // 86_400} days", needs_ttl=True),
    KeyFact("opsq:job:{<job>}:order", "the sealed orders of a job", f"{JOB_S // 86_400} days", needs_ttl=True),
    KeyFact("opsq:job:{<job>}:answers", "sealed answers of hosts", f"{JOB_S // 86_400} days", needs_ttl=True),
    KeyFact("opsq:job:{<job>}:summary", "how it ended", f"{JOB_S // 86_400} days", needs_ttl=True),
    KeyFact("opsq:job:{<job>}:out:<sha256>", "an output, once", f"{JOB_OUTPUT_S} s", needs_ttl=True),
    KeyFact("opsq:jobs", "ids of jobs by time", f"{JOBS_CAP} jobs, {JOB_S // 86_400} days"),
)


def prefix_of(transport_options: Mapping[str, Any] | None) -> str:
    """What all keys and channels begin with, as transport options of a broker or a result backend say."""
    return str((transport_options or {}).get("global_keyprefix") or "")


def as_pattern(name: str) -> str:
    """A name as the pattern, of SCAN or PSUBSCRIBE, that fits it alone."""
    return "".join(f"\\{each}" if each in "*?[]\\^" else each for each in name)


def result(task_id: str) -> str:
    """A task's result; also the channel on which it is announced."""
    return f"celery-task-meta-{task_id}"


def group_result(group_id: str) -> str:
    """The results of a group that was saved; with `.j`, `.t`, `.s`, `.d`, `.c` the state of a chord."""
    return f"celery-taskset-meta-{group_id}"


def chord(group_id: str) -> str:
    """Hash: `facts` of a chord (JSON: body, lineage), `at`: when it was heard of last (ms), `run`: names its run."""
    return f"opsq:chord:{group_id}"


def chord_sent(group_id: str, run: str) -> str:
    """String: the body of a chord was sent (at the broker)."""
    return f"opsq:chord-sent:{group_id}:{run}"


def binding(exchange: str) -> str:
    """Celery's set of the bindings of an exchange."""
    return f"_kombu.binding.{exchange}"


def binding_permanent(exchange: str) -> str:
    """Celery's (5.7) set of the bindings that do not expire."""
    return f"_kombu.binding_permanent.{exchange}"


def binding_member(routing_key: str, queue: str, separator: str = PRIORITY_SEPARATOR, pattern: str = "") -> str:
    """A binding as kombu writes it: routing key, pattern (of topics), queue."""
    return f"{routing_key}{separator}{pattern}{separator}{queue}"


def inflight(queue: str, consumer: str) -> str:
    """Hash: field (a growing number) -> message, of all messages of a queue that a consumer holds."""
    return f"opsq:inflight:{{{queue}}}:{consumer}"


def consumers(queue: str) -> str:
    """Sorted set: consumer -> end of its lease (ms of the server's clock)."""
    return f"opsq:consumers:{{{queue}}}"


def purged(queue: str, token: str) -> str:
    """What names of lists and sets begin with that were put aside to be thrown away."""
    return f"opsq:purged:{{{queue}}}:{token}:"


def delayed(queue: str) -> str:
    """Sorted set: `<priority suffix>|<message>` -> due time (ms)."""
    return f"opsq:delayed:{{{queue}}}"


def unique(claim: str) -> str:
    """String: the id of the unique message that has claimed this."""
    return f"opsq:unique:{claim}"


def debounced(queue: str, claim: str) -> str:
    """String: `<due ms>|<delivery tag>|<id>` of the debounced message that waits in the delayed set of its queue."""
    return f"opsq:debounced:{{{queue}}}:{claim}"


def dead(queue: str) -> str:
    """Hash: id -> dead letter (JSON)."""
    return f"opsq:dead:{{{queue}}}"


def dead_index(queue: str) -> str:
    """Sorted set: id of a dead letter -> when it died (Unix seconds)."""
    return f"opsq:dead-index:{{{queue}}}"


def lost(queue: str) -> str:
    """List (JSON): what befell messages whose holder was lost, the latest first."""
    return f"opsq:lost:{{{queue}}}"


def taken(queue: str, consumer: str) -> str:
    """Hash: field of the in-flight store -> where the dead letter is that a peer has made of the message (JSON)."""
    return f"opsq:taken:{{{queue}}}:{consumer}"


def paused(queue: str) -> str:
    """String; while it exists nothing is leased from the queue."""
    return f"opsq:paused:{{{queue}}}"


def lanes(queue: str) -> str:
    """Sorted set: lane (messages of a queue that are under the same limits) -> when to look at it (ms)."""
    return f"opsq:lanes:{{{queue}}}"


def lane_facts(queue: str) -> str:
    """Hash: `=<lane>` -> its limits and lists (JSON), `+<lane>` -> what is on its way back, `#` -> messages in all."""
    return f"opsq:lane-facts:{{{queue}}}"


def limited(queue: str, lane: str) -> str:
    """List: messages that wait for their limits; after it the suffix of their priority."""
    return f"opsq:limited:{{{queue}}}:{lane}"


def passes(queue: str, consumer: str) -> str:
    """Hash: number of a message that has passed its limits -> what it holds of them (JSON)."""
    return f"opsq:passes:{{{queue}}}:{consumer}"


def rate(limit: str) -> str:
    """String: when the next start is due by the rate (us of the server's clock); `@<worker>`: of one worker alone."""
    return f"opsq:rate:{limit}"


def places(limit: str) -> str:
    """Sorted set: `<number>@<store>` of a message that runs -> since when (ms); `:waiting`: the lanes that wait."""
    return f"opsq:places:{limit}"


def circuit(task: str) -> str:
    """Hash: failures in a row, and once it is open `until` (ms), `opens`, `probe`; `:waiting`: the lanes that wait."""
    return f"opsq:circuit:{task}"


def stats(queue: str) -> str:
    """Hash: `<minute of the hour>:<state>` -> how many (`<minute>:us`: microseconds they took); after it `:<hour>`."""
    return f"opsq:stats:{{{queue}}}"


def totals(queue: str) -> str:
    """Hash: `n:<state>:<task>` -> how many, `us:<state>:<task>` -> microseconds they took, `#` -> how many fields n;
    `taken` and `moved` (given back, or for later) -> messages; `known` -> how many of them are missing, as an operator
    has seen.
    """
    return f"opsq:totals:{{{queue}}}"


def profile(queue: str) -> str:
    """Hash: `<what>:<task>` -> n: runs, cpu: microseconds, kib: growth, a number: runs in this bucket of durations.

    After it `:<day>`.
    """
    return f"opsq:profile:{{{queue}}}"


def task_log(task_id: str) -> str:
    """String: JSON arrays of time, level and message, a line each; also the channel on which new ones are told."""
    return f"opsq:task-log:{task_id}"


def django_task(task_id: str) -> str:
    """Hash: `call` -> what was called (JSON), a time (Unix seconds) -> the worker that began to run it then."""
    return f"opsq:django-task:{task_id}"


def worker(worker_id: str) -> str:
    """String (JSON): what a worker is and what it runs."""
    return f"opsq:worker:{worker_id}"


def history_chain(root_id: str) -> str:
    """Sorted set: ids of the tasks that a task and its followers have sent -> when they were received."""
    return f"opsq:history-chain:{root_id}"


def host_orders(host: str) -> str:
    """List: sealed orders for a host, the oldest first."""
    return f"opsq:host:{{{host}}}:orders"


def host_taken(host: str) -> str:
    """List: the orders that the host's agent holds."""
    return f"opsq:host:{{{host}}}:taken"


def host_lease(host: str) -> str:
    """String: `<machine id>/<instance>` of the agent that serves the host."""
    return f"opsq:host:{{{host}}}:lease"


def host_facts(host: str) -> str:
    """String: what the host says of itself, sealed by its key."""
    return f"opsq:host:{{{host}}}:facts"


def job_order(job: str) -> str:
    """List: the sealed orders of a job, as they were sent."""
    return f"opsq:job:{{{job}}}:order"


def job_answers(job: str) -> str:
    """Stream: sealed answers (field `a`)."""
    return f"opsq:job:{{{job}}}:answers"


def job_summary(job: str) -> str:
    """String (JSON): how the job ended, in counts."""
    return f"opsq:job:{{{job}}}:summary"


def job_output(job: str, digest: str) -> str:
    """String: what a command wrote, by its SHA-256."""
    return f"opsq:job:{{{job}}}:out:{digest}"


def schedule(app: str, part: str) -> str:
    """A key of an app's schedule; `part`: entries, due, added, paused, orders, sent or lease."""
    return f"opsq:schedule:{{{app}}}:{part}"


def schedule_channel(app: str) -> str:
    """The channel on which beats are told that something in the schedule was changed, or that the lease is free."""
    return f"opsq:schedule:{{{app}}}"
