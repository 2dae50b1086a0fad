"""The private Redis and our own programs: what `opsq up` starts, and what survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import redis
from support.supervised import Supervised, python_program

from opsq.exceptions import OpsqError
from opsq.runtime import redis_server
from opsq.runtime.process import is_alive, send_signal, wait_end
from opsq.runtime.statedir import private_redis_url

TASKS = "from opsq import Celery\napp = Celery('tasks')\n@app.task\ndef send(msg): return msg\n"
USER = "from tasks import send\nprint(send.delay('666').get(timeout=20))\n"


def connected(shop: Supervised) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(shop.state.redis_socket))


def test_without_app_and_broker_a_redis_and_a_worker_with_our_own_app_run(shop: Supervised) -> None:
    shop.toml("services = ['redis', 'worker']\n[worker]\nconcurrency = 1\n")
    said = shop.opsq("up").stderr
    assert "\nrunning: redis, worker (app opsq.app.own)\n" in said
    assert shop.opsq("run", "task", "opsq.ping", "--wait").stdout.strip().endswith('"pong"')
    assert "already up" in shop.opsq("up").stderr
    shop.opsq("down")
    assert shop.leftovers() == []


def test_a_task_of_a_project_runs_and_another_app_is_refused(shop: Supervised) -> None:
    (shop.folder / "tasks.py").write_text(TASKS)
    (shop.folder / "other.py").write_text(TASKS)
    (shop.folder / "user.py").write_text(USER)
    shop.toml("services = ['redis', 'worker']\n[worker]\nconcurrency = 1\n")
    assert "running: redis, worker (app tasks)" in shop.opsq("-A", "tasks", "up").stderr
    environment = {"OPSQ_STATE_DIR": None}
    user = shop.spawner([sys.executable, "user.py"], cwd=shop.folder, env=environment)
    assert user.wait() == 0
    assert user.output() == "666\n"
    refused = shop.opsq("-A", "other", "up", code=2).stderr
    assert "cannot start other here: tasks runs here" in refused
    again = shop.opsq("up").stderr
    assert again.startswith("already up\nrunning: redis, worker (app tasks)\n"), "who names no app means what runs"
    shop.opsq("down")


def test_a_django_project_needs_no_flag(shop: Supervised) -> None:
    (shop.folder / "manage.py").write_text("os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\n")
    (shop.folder / "site1").mkdir()
    (shop.folder / "site1" / "__init__.py").write_text("")
    (shop.folder / "site1" / "celery.py").write_text(TASKS)
    shop.toml("services = ['redis', 'worker']\n[worker]\nconcurrency = 1\n")
    assert "running: redis, worker (app site1)" in shop.opsq("up").stderr
    assert shop.opsq("run", "task", "site1.celery.send", '["x"]', "--wait").stdout.endswith('"x"\n')
    shop.opsq("down")


def test_a_folder_with_an_app_is_hinted_at(shop: Supervised) -> None:
    (shop.folder / "tasks.py").write_text(TASKS)
    said = shop.opsq("--state-dir", str(shop.state.root), "up", "redis").stderr
    assert "no app named; this folder has tasks.py: `opsq -A tasks up`" in said
    assert "running: redis\n" in said


def test_what_redis_accepted_survives_its_sudden_death(shop: Supervised) -> None:
    shop.toml("services = ['redis']")
    shop.opsq("up")
    for round in range(3):
        with connected(shop) as client:
            for number in range(200):
                client.rpush("numbers", round * 200 + number)
        shop.replaced("redis", shop.kill("redis"))
        shop.until("redis", ready=True, restarts=round + 1)
    with connected(shop) as client:
        assert client.lrange("numbers", 0, -1) == [b"%d" % number for number in range(600)]
        settings = client.config_get("append*", "maxmemory-policy", "save", "no-appendfsync-on-rewrite", "port")
    assert settings["appendfsync"] == "always"
    assert settings["appendonly"] == "yes"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    assert settings["no-appendfsync-on-rewrite"] == "no"
    assert settings["port"] == "0"
    assert shop.state.redis_socket.stat().st_mode & 0o777 == 0o600
    shop.opsq("down")
    shop.opsq("up")
    with connected(shop) as client:
        assert client.llen("numbers") == 600


def test_everysec_is_a_choice(shop: Supervised) -> None:
    shop.toml("services = ['redis']\n[redis]\nappendfsync = 'everysec'\n")
    shop.opsq("up")
    with connected(shop) as client:
        assert client.config_get("appendfsync")["appendfsync"] == "everysec"


def test_a_redis_that_still_runs_is_never_doubled(shop: Supervised) -> None:
    shop.toml("services = ['redis']")
    shop.opsq("up")
    old = shop.process("redis")
    with connected(shop) as client:
        client.set("kept", "1")
    send_signal(shop.process("daemon"), signal.SIGSTOP)  # so that it cannot act on the keeper's end
    for process in [shop.process(name) for name in ("keeper", "daemon", "scribe")]:
        send_signal(process, signal.SIGKILL)
        assert wait_end(process, 10)
    for path in shop.state.run.glob("*.*"):  # not even its pidfile is left
        if path.name != "redis.sock":
            path.unlink()
    shop.opsq("up")
    assert shop.process("redis") == old
    with connected(shop) as client:
        assert client.get("kept") == b"1"
    shop.opsq("down")
    assert not is_alive(old)


def test_with_a_broker_named_there_is_no_private_redis(shop: Supervised, redis_url: str) -> None:
    needs = 'depends_on = { redis = "ready" }\nstartsecs = 0'
    code = "import os, time; print(os.environ.get('OPSQ_BROKER_URL')); time.sleep(1000)"
    top = f"services = ['worker']\nbroker_url = '{redis_url}'\n[worker]\nconcurrency = 1\n"
    shop.toml(top + python_program("web", code, more=needs))
    shop.opsq("up")
    assert set(shop.programs()) == {"worker", "web"}
    shop.wait_for(lambda: shop.log("web") == b"None\n")
    assert private_redis_url(shop.state) is None
    assert not shop.state.redis.exists()
    shop.opsq("down")


def test_flags_of_up_reach_the_programs_but_no_command_line(shop: Supervised, redis_url: str) -> None:
    code = "import os, time; print(os.environ['OPSQ_BROKER_URL'], os.environ['OPSQ_RESULT_BACKEND']); time.sleep(1000)"
    shop.toml("services = ['worker']\n[worker]\nconcurrency = 1\n" + python_program("web", code, more="startsecs = 0"))
    shop.environment["OPSQ_APP"] = "opsq.app.own"
    shop.opsq("-b", redis_url, "--result-backend", f"{redis_url[:-1]}1", "up")
    assert set(shop.programs()) == {"worker", "web"}
    shop.wait_for(lambda: shop.log("web") == f"{redis_url} {redis_url[:-1]}1\n".encode())
    assert shop.copies("redis://") == 0
    shop.opsq("down")


def test_programs_learn_of_the_private_redis_by_their_environment(shop: Supervised) -> None:
    code = "import os, time; print(os.environ.get('OPSQ_BROKER_URL')); time.sleep(1000)"
    shop.toml("services = ['redis']\n" + python_program("web", code, more="startsecs = 0"))
    shop.opsq("up")
    shop.wait_for(lambda: shop.log("web") == f"redis+socket://{shop.state.redis_socket}\n".encode())
    plan = json.loads((shop.state.run / "state.json").read_text().splitlines()[0])
    assert not any("redis+socket" in word for each in plan["programs"] for word in each["command"])


def test_a_broker_of_another_kind_is_refused_in_a_sentence(shop: Supervised) -> None:
    shop.toml("broker_url = 'amqp://guest@localhost//'")
    said = shop.opsq("up", code=2).stderr
    assert "as broker: opsq's broker is Redis" in said


def test_redis_is_stopped_last(shop: Supervised) -> None:
    shop.toml("[worker]\nconcurrency = 1\n")
    shop.opsq("up")
    shop.opsq("down")
    last_of_redis = (shop.state.log / "redis.log").stat().st_mtime_ns
    assert last_of_redis >= (shop.state.log / "worker.log").stat().st_mtime_ns


def test_a_server_that_is_too_old_or_missing_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("sh")
    assert real
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.path.dirname(real)}")
    found = redis_server.find_server()
    assert found != old
    monkeypatch.setattr(redis_server, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpsqError) as error:
        redis_server.find_server()
    assert "is 5.0" in error.value.why
    assert "6.2 or newer" in error.value.hint


def test_status_shows_what_waits(shop: Supervised) -> None:
    (shop.folder / "tasks.py").write_text(TASKS)
    shop.toml("app = 'tasks'\nservices = ['redis']")
    shop.opsq("up")
    code = "from tasks import send\nfor n in range(3): send.delay('x')"
    assert shop.spawner([sys.executable, "-c", code], cwd=shop.folder, env=shop.environment).wait() == 0
    (queue,) = json.loads(shop.opsq("status", "--json").stdout)["queues"]
    assert (queue["name"], queue["waiting"], queue["consumers"]) == ("celery", 3, 0)
    assert "celery" in shop.opsq("status").stdout
    shop.opsq("down")


def test_status_without_supervisor_looks_at_the_broker(shop: Supervised, redis_url: str) -> None:
    shop.environment["OPSQ_BROKER_URL"] = redis_url
    told = shop.opsq("status", "--json")
    assert json.loads(told.stdout) == {"supervisor": None, "app": None, "programs": [], "queues": [], "hosts": {}}
    assert "no supervisor runs here" in told.stderr
    shop.environment["OPSQ_BROKER_URL"] = "redis://localhost:1/0"
    assert "no supervisor runs here" in shop.opsq("status", code=3).stderr


def test_a_killed_worker_is_back_by_itself_and_works(shop: Supervised) -> None:
    shop.toml("[worker]\nconcurrency = 1\n")
    shop.opsq("up")
    for kills in range(1, 3):
        shop.replaced("worker", shop.kill("worker"))
        shop.until("worker", state="RUNNING", ready=True, restarts=kills)
    assert shop.opsq("run", "task", "opsq.ping", "--wait", "--timeout", "20").stdout.strip().endswith('"pong"')
    shop.opsq("down")
