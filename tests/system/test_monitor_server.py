"""The monitor as a process: where it listens, who may come in, what it answers, what its buttons do."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from support import certificates, event_source, monitored
from support.monitored import ACCOUNT, Monitored
from support.processes import Spawner
from support.supervised import Supervised

from opsq.broker import task_logs
from opsq.broker.task_logs import LogLine
from opsq.datastore import keys

WaitFor = Callable[..., Any]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def monitor(spawn: Spawner, redis_url: str) -> Callable[..., Monitored]:
    """`monitor(*options, account=...)` starts one on a free port."""

    def start(*options: str, **more: Any) -> Monitored:
        return monitored.start(spawn, redis_url, *options, **more)

    return start


def opsq(spawn: Spawner, url: str, *words: str) -> tuple[int, str]:
    """Exit code and output of a command line that ends."""
    (spawn.folder / "shop.py").write_text(monitored.APP)
    environment = {"OPSQ_BROKER_URL": url, "PYTHONPATH": str(spawn.folder)}
    running = spawn([sys.executable, "-m", "opsq", "-A", "shop", *words], env=environment)
    return running.wait(), running.output()


def hear(redis_client: redis.Redis, page: Monitored, wait_for: WaitFor, *calls: list[dict[str, Any]]) -> None:
    """Publish calls, and wait until the history has the last of them."""
    event_source.publish(redis_client, [each for call in calls for each in call])
    last = calls[-1][0]["uuid"]
    wait_for(lambda: redis_client.hexists(keys.HISTORY, last), what="the history has it")
    time.sleep(0)
    wait_for(lambda: page.ask(f"/api/tasks/{last}").status == 200, what="the page shows it")


# -- where -------------------------------------------------------------------------------------------------------------


def test_the_next_free_port_is_taken_and_said(monitor: Callable[..., Monitored]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 5555))
        taken.listen()
        page = monitor("--address", "127.0.0.2")
    assert int(urllib.parse.urlsplit(page.url).port or 0) > 5555
    assert "port 5555 is taken: this monitor listens on" in page.process.output()
    assert page.ask("/").status == 200


def test_under_up_it_makes_the_state_directory_that_it_is_told(
    monitor: Callable[..., Monitored], tmp_path: Path
) -> None:
    """That of a program of another user is made by whichever of them comes first."""
    state = tmp_path / "of another user"
    page = monitor(OPSQ_PROGRAM="flower", OPSQ_STATE_DIR=str(state))
    assert (state / "run" / "monitor.url").read_text() == page.url


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(spawn: Spawner, redis_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, output = opsq(spawn, redis_url, "monitor", "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "the port is taken" in output
    assert "Traceback" not in output


def test_other_addresses_demand_a_password_and_the_line_to_type_is_said(spawn: Spawner, redis_url: str) -> None:
    code, output = opsq(spawn, redis_url, "monitor", "--address", "0.0.0.0")
    assert code == 2
    assert "hint: opsq monitor --address 0.0.0.0 --basic-auth USER:PASSWORD" in output


def test_a_password_is_in_no_process_list(monitor: Callable[..., Monitored], free_port: Callable[[], int]) -> None:
    page = monitor("--basic_auth=anna:secret", f"--port={free_port()}", "--address=0.0.0.0")
    for process in [psutil.Process(page.process.pid), *psutil.Process(page.process.pid).children(recursive=True)]:
        assert "secret" not in " ".join(process.cmdline())
    assert "secret" not in page.process.output()
    page.url = page.url.replace("0.0.0.0", "127.0.0.1")
    assert page.ask("/").status == 401
    assert page.ask("/", account=ACCOUNT).status == 200


def test_flower_is_another_word_for_it(
    spawn: Spawner, redis_url: str, free_port: Callable[[], int], wait_for: WaitFor
) -> None:
    (spawn.folder / "shop.py").write_text(monitored.APP)
    port = free_port()
    argv = [sys.executable, "-m", "opsq", "-A", "shop", "flower", f"--port={port}", "--url_prefix=flower"]
    argv += ["--persistent=True", "--auto_refresh", "--max_tasks=5000"]
    running = spawn(argv, env={"OPSQ_BROKER_URL": redis_url, "PYTHONPATH": str(spawn.folder)})
    page = Monitored(f"http://127.0.0.1:{port}/", running)

    def answers() -> bool:
        try:
            return page.ask("/healthcheck").status == 200
        except OSError:
            return False

    wait_for(answers, what="it answers")
    assert "--persistent has no effect: the history is kept in Redis" in running.output()
    assert page.ask("/api/overview").json()["monitor"]["history_cap"] == 5000
    for path in ("/", "/flower/", "/flower"):
        assert 'href="/flower/tasks"' in page.ask(path).text


def test_without_a_broker_it_ends_with_one_line(spawn: Spawner, free_port: Callable[[], int]) -> None:
    code, output = opsq(spawn, f"redis://127.0.0.1:{free_port()}/0", "monitor", "--port", str(free_port()))
    assert code == 3
    assert "cannot reach Redis" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_also_with_an_open_page(monitor: Callable[..., Monitored], number: int) -> None:
    page = monitor()
    where = urllib.parse.urlsplit(page.url)
    stream = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    stream.request("GET", "/live")
    answer = stream.getresponse()
    assert answer.getheader("Content-Type", "").startswith("text/event-stream")
    assert answer.readline().startswith(b"retry")
    begun = time.monotonic()
    assert page.process.stop(number) == 0
    assert time.monotonic() - begun < 4
    stream.close()


def test_a_changed_password_holds_after_a_reload(
    spawn: Spawner, monitor: Callable[..., Monitored], wait_for: WaitFor
) -> None:
    file = spawn.folder / "opsq.toml"
    file.write_text('[monitor]\nbasic_auth = "anna:old"\n')
    page = monitor()
    assert page.ask("/", account="anna:old").status == 200
    file.write_text('[monitor]\nbasic_auth = ["anna:new", "bert:word"]\n')
    page.process.send(signal.SIGHUP)
    wait_for(lambda: "read again who may come in" in page.process.output(), what="the reload")
    assert [page.ask("/", account=each).status for each in ("anna:old", "anna:new", "bert:word")] == [401, 200, 200]
    file.write_text("[monitor]\n")
    page.process.send(signal.SIGHUP)
    wait_for(lambda: "the old ones stay" in page.process.output(), what="the refusal")
    assert page.ask("/", account="").status == 401


def test_up_starts_it_and_says_where_the_page_is(shop: Supervised) -> None:
    shop.toml('services = ["redis", "monitor"]\n')
    said = shop.opsq("up").stderr
    found = re.search(r"^page: (http://127\.0\.0\.1:\d+/)$", said, re.MULTILINE)
    assert found, said
    page = Monitored(found[1])
    programs = page.ask("/api/overview").json()["programs"]
    assert [(each["name"], each["state"]) for each in programs] == [("redis", "RUNNING"), ("monitor", "RUNNING")]
    assert 'opsq_program_up{program="monitor"} 1' in page.ask("/metrics").text
    shop.opsq("down")


# -- what it shows -----------------------------------------------------------------------------------------------------


def test_every_page_is_served_with_headers_that_protect_it(monitor: Callable[..., Monitored]) -> None:
    page = monitor()
    for path in ("/", "/tasks", "/schedule", "/hosts", "/dead", "/api", "/metrics", "/healthz", "/nothing", "/task/x"):
        headers = page.ask(path).headers
        assert "script-src 'self';" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/", "/tasks"):
        text = page.ask(path).text
        assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=|https?://", text)


def test_a_hostile_name_is_only_text(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    page = monitor()
    evil = "<script>alert(1)</script>"
    call = event_source.call(
        evil, "task-failed", task_id="'\"><b>", args=f"('{evil}',)", kwargs=evil, queue=evil, worker=evil, eta=evil
    )
    call[-1] |= {"exception": evil, "traceback": evil, "hostname": evil}
    redis_client.sadd(keys.QUEUES, evil)
    hear(redis_client, page, wait_for, call, event_source.call("proj.add", task_id="after"))
    for path in (
        "/",
        "/tasks",
        f"/task/{urllib.parse.quote(call[0]['uuid'], safe='')}",
        f"/tasks?q={urllib.parse.quote(evil)}",
    ):
        answer = page.ask(path)
        assert answer.status == 200
        assert evil not in answer.text
        assert "&lt;script&gt;" in answer.text
        assert "<b>" not in answer.text


def test_the_history_is_there_after_a_restart(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    first = monitor(name="first")
    hear(redis_client, first, wait_for, event_source.call("proj.before", task_id="t1"))
    first.process.send(signal.SIGKILL)
    first.process.wait()
    assert "proj.before" in monitor(name="second").ask("/tasks").text


def test_a_task_that_only_seems_to_run_is_told_from_one_that_does(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    page = monitor()
    long_ago = event_source.call("proj.lost", "none", task_id="lost", at=time.time() - 100)
    hear(redis_client, page, wait_for, long_ago, event_source.call("proj.runs", "none", task_id="runs"))
    assert page.ask("/api/tasks/lost").json()["note"] == "its end was not heard of"
    assert page.ask("/api/tasks/runs").json()["note"] is None


def test_https_is_served_with_a_certificate(monitor: Callable[..., Monitored], spawn: Spawner, redis_url: str) -> None:
    certificate, key = certificates.self_signed(spawn.folder)
    page = monitor(f"--certfile={certificate}", f"--keyfile={key}", account=ACCOUNT)
    assert page.url.startswith("https://")
    page.trust(certificate)
    assert page.ask("/").status == 200
    assert "Secure" in page.ask("/").headers["Set-Cookie"]
    code, output = opsq(spawn, redis_url, "monitor", f"--certfile={certificate}")
    assert (code, "both --certfile and --keyfile" in output) == (2, True)
    code, output = opsq(spawn, redis_url, "monitor", f"--certfile={key}", f"--keyfile={key}")
    assert (code, "cannot use" in output) == (2, True)


def test_metrics_are_what_prometheus_reads(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, spawn: Spawner, redis_url: str
) -> None:
    code, _ = opsq(spawn, redis_url, "run", "task", "shop.add", "[1, 2]", "--ignore-result")
    assert code in (0, 2)
    redis_client.lpush("celery", b"x")
    redis_client.sadd(keys.QUEUES, "celery", 'odd"\\\nqueue')
    answer = monitor().ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {family.name: family for family in text_string_to_metric_families(answer.text)}
    depths = {each.labels["queue"]: each.value for each in found["opsq_queue_depth"].samples}
    assert depths["celery"] >= 1
    assert depths['odd"\\\nqueue'] == 0
    for name in (
        "opsq_dead_letters",
        "opsq_tasks",
        "opsq_task_runtime_seconds",
        "opsq_workers",
        "opsq_queue_consumers",
    ):
        assert name in found


def test_json_answers_and_says_what_there_is(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    page = monitor()
    begin = time.time() - 10
    hear(redis_client, page, wait_for, *(event_source.call(task_id=f"t{n}", at=begin + n) for n in range(5)))
    for path in page.ask("/api").json()["api"]:
        if path[-1].islower():
            assert page.ask(path).status == 200, path
    first = page.ask("/api/tasks?limit=2").json()
    assert [each["id"] for each in first["tasks"]] == ["t4", "t3"]
    query = urllib.parse.urlencode({"limit": 2, "before": first["older"]})
    assert [each["id"] for each in page.ask(f"/api/tasks?{query}").json()["tasks"]] == ["t2", "t1"]
    assert page.ask("/api/tasks/t1").json()["result"] == "5"
    assert page.ask("/api/tasks/none").json()["error"]["what"]
    assert page.ask("/api/tasks?since=x").status == 400


def test_the_page_of_a_task_has_its_log(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    page = monitor()
    hear(redis_client, page, wait_for, event_source.call(task_id="logged"))
    line = LogLine(1_700_000_000.5, "INFO", "<b>half</b> done")
    task_logs.keep(redis_client, "", {"logged": line.encode()}, 1_000_000)
    wait_for(lambda: page.ask("/api/tasks/logged").json()["log"], what="it is read anew")
    assert page.ask("/api/tasks/logged").json()["log"] == [asdict(line)]
    assert "&lt;b&gt;half&lt;/b&gt; done" in page.ask("/task/logged").text


def test_it_says_whether_it_works_without_a_password_and_nothing_else(monitor: Callable[..., Monitored]) -> None:
    page = monitor(account=ACCOUNT)
    page.account = ""
    assert page.ask("/healthz").json() == {"ok": True}
    for path in ("/", "/api/overview", "/metrics", "/live", "/static/monitor.css", "/healthz/../tasks", "/nothing"):
        assert page.ask(path).status == 401


def test_without_a_password_other_host_names_are_not_answered(monitor: Callable[..., Monitored]) -> None:
    page = monitor()
    assert page.ask("/", Host="evil.example").status == 421
    assert page.ask("/", Host="localhost:5555").status == 200


def test_pages_say_that_redis_is_away_and_come_back(
    spawn: Spawner, wait_for: WaitFor, free_port: Callable[[], int]
) -> None:
    from support import redis_server

    port = free_port()
    with redis_server.running(port) as server:
        page = monitored.start(spawn, server.url())
        assert page.ask("/").status == 200
    wait_for(lambda: page.ask("/healthz").status == 503, what="the loss is noticed")
    answer = wait_for(lambda: (found := page.ask("/tasks")).status == 503 and found, what="the page says so")
    assert "cannot reach Redis" in answer.text
    wait_for(lambda: "error" in page.ask("/api/queues").json(), what="the JSON says so")
    with redis_server.running(port):
        wait_for(lambda: page.ask("/healthz").status == 200, 15, "it hears again")
        assert page.ask("/").status == 200
    assert "Traceback" not in page.process.output()


# -- what buttons do ---------------------------------------------------------------------------------------------------


def test_a_queue_is_paused_and_resumed(monitor: Callable[..., Monitored], redis_client: redis.Redis) -> None:
    redis_client.sadd(keys.QUEUES, "celery")
    page = monitor(account=ACCOUNT)
    answer = page.act("queue/pause", {"queue": "celery"})
    assert (answer.status, answer.headers["Location"]) == (303, "/?done=paused")
    assert redis_client.exists(keys.paused("celery"))
    assert "Paused:" in page.ask("/?done=paused").text
    assert page.act("queue/resume", {"queue": "celery"}).status == 303
    assert not redis_client.exists(keys.paused("celery"))
    assert page.act("queue/pause", {"queue": "no such queue"}).status == 400


def test_a_dead_letter_is_requeued_and_another_dropped(
    monitor: Callable[..., Monitored], redis_client: redis.Redis
) -> None:
    for number in ("1", "2"):
        letter = f'{{"task": "shop.add", "reason": "no", "time": {number}, "message": "m{number}", "list": "celery"}}'
        redis_client.hset(keys.dead("celery"), number, letter)
        redis_client.zadd(keys.dead_index("celery"), {number: int(number)})
    redis_client.sadd(keys.QUEUES, "celery")
    page = monitor(account=ACCOUNT)
    assert page.ask("/dead").text.count(">Requeue<") == 2
    assert page.act("dead/requeue", {"id": "1", "queue": "celery"}).status == 303
    assert redis_client.lrange("celery", 0, -1) == [b"m1"]
    assert page.act("dead/drop", {"id": "2", "queue": "celery"}).status == 303
    assert redis_client.hlen(keys.dead("celery")) == 0
    assert page.act("dead/drop", {"id": "2"}).status == 400
    redis_client.delete("celery")


def test_a_task_is_sent_again(monitor: Callable[..., Monitored], redis_client: redis.Redis, wait_for: WaitFor) -> None:
    page = monitor(account=ACCOUNT)
    calls = (
        event_source.call("shop.add", "task-failed", task_id="t1", args="(2, 3)", queue="mail"),
        event_source.call("shop.add", "task-failed", task_id="t2", args="(<object>,)"),
    )
    hear(redis_client, page, wait_for, *calls)
    assert "Send again" in page.ask("/task/t1").text
    assert "Send again" not in page.ask("/task/t2").text
    answer = page.act("task/retry", {"id": "t1"})
    assert answer.status == 303
    assert answer.headers["Location"].startswith("/task/")
    assert redis_client.llen("mail") == 1
    assert page.act("task/retry", {"id": "t2"}).status == 400
    redis_client.delete("mail")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Cookie": ""},
        {"Origin": ""},
        {"Content_Type": "text/plain"},
    ],
)
def test_requests_that_other_sites_forge_are_refused(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, headers: dict[str, str]
) -> None:
    redis_client.sadd(keys.QUEUES, "celery")
    page = monitor(account=ACCOUNT)
    assert page.act("queue/pause", {"queue": "celery"}, **headers).status in (403, 415)
    assert page.act("queue/pause", {"queue": "celery", "token": "0" * 64}).status == 403
    assert page.ask("/do/queue/pause").status == 405
    assert not redis_client.exists(keys.paused("celery"))


def test_cookies_are_sent_to_nobody_else(monitor: Callable[..., Monitored]) -> None:
    cookie = monitor("--url-prefix=ops", account=ACCOUNT).ask("/").headers["Set-Cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/ops"))


@pytest.mark.parametrize(("options", "account"), [([], ""), (["--read-only"], ACCOUNT)])
def test_without_a_password_or_read_only_nothing_acts(
    monitor: Callable[..., Monitored], redis_client: redis.Redis, options: list[str], account: str
) -> None:
    redis_client.sadd(keys.QUEUES, "celery")
    page = monitor(*options, account=account)
    assert '<form method="post"' not in page.ask("/").text
    assert page.act("queue/pause", {"queue": "celery"}).status == 403
    assert not redis_client.exists(keys.paused("celery"))


def test_large_requests_are_refused(monitor: Callable[..., Monitored]) -> None:
    page = monitor(account=ACCOUNT)
    assert page.act("queue/pause", {"queue": "x" * 50_000}).status == 413
    assert page.ask("/tasks?q=" + "x" * 20_000).status == 414
    assert page.ask("/").status == 200


def test_a_file_that_makes_no_sense_is_one_line(spawn: Spawner, redis_url: str) -> None:
    for text, word in (('port = "x"', "monitor.port"), ("prot = 1", "'prot' is no key"), ('basic_auth = "x"', "USER:")):
        Path(spawn.folder / "opsq.toml").write_text(f"[monitor]\n{text}\n")
        code, output = opsq(spawn, redis_url, "monitor")
        assert code == 2
        assert word in output
        assert "Traceback" not in output
