"""What lies in deploy/ and what `opsq generate` prints: each held by the tool that will read it.

OPSQ_TEST_STORE=1 writes those files of deploy/ anew that are generated.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from support import supervisord_venv
from support.processes import Spawner
from support.supervised import Supervised, python_program

from opsq.cli.main import cli
from opsq.config import toml_file
from opsq.monitor import metrics
from opsq.supervisor import service_files
from opsq.supervisor.service_files import Project

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = Project(opsq="/srv/shop/.venv/bin/opsq", folder="/srv/shop", user="opsq", app="shop")
OPSQ = Path(sys.executable).with_name("opsq")
SLEEPS = "import time; time.sleep(1000)"


def generated() -> dict[str, str]:
    systemd = {
        **service_files.files("systemd", EXAMPLE, ()),
        **service_files.files("systemd", EXAMPLE, service_files.NAMES),
    }
    whole, alone = (service_files.files("supervisord", EXAMPLE, names) for names in ((), service_files.NAMES))
    return {
        **{f"systemd/{name}": text for name, text in systemd.items()},
        "supervisor/opsq.conf": whole["opsq.conf"],
        "supervisor/opsq-alone.conf": alone["opsq.conf"],
    }


@pytest.mark.parametrize("name", sorted(generated()))
def test_a_stored_unit_is_what_generate_says_now(name: str) -> None:
    path, text = DEPLOY / name, generated()[name]
    if os.environ.get("OPSQ_TEST_STORE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "stale: write it anew with OPSQ_TEST_STORE=1, and look at the difference"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(shop: Supervised) -> None:
    shop.opsq("generate", "systemd", "--output", str(shop.folder), "--user", "root")
    shop.opsq("-A", "proj", "generate", "systemd", *service_files.NAMES, "-o", str(shop.folder), "--user", "root")
    units = [str(path) for path in sorted(shop.folder.glob("*.service"))]
    assert [Path(unit).name for unit in units] == [
        "opsq-agent.service",
        "opsq-beat.service",
        "opsq-monitor.service",
        "opsq-worker@.service",
        "opsq.service",
    ]
    worker = (shop.folder / "opsq-worker@.service").read_text()
    assert re.search(r"ExecStart=\S+opsq -A proj worker -l info -Q %i -n %i@%%h\n", worker)
    # In a folder of its own: what this machine's other units say is not our matter.
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{shop.folder}:/usr/lib/systemd/system:/lib/systemd/system"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_the_real_supervisord_runs_the_sections(spawn: Spawner, shop: Supervised, redis_url: str) -> None:
    """The project as a whole, and a worker alone: RUNNING, and an orderly stop by INT to the whole group."""
    shop.toml("services = []\n" + python_program("web", SLEEPS))
    sections = shop.opsq("generate", "supervisord").stdout + shop.opsq("generate", "supervisord", "worker").stdout
    here = shop.folder
    (here / "supervisord.conf").write_text(
        f"[unix_http_server]\nfile={here}/s.sock\n[supervisord]\nnodaemon=true\nlogfile=NONE\npidfile={here}/s.pid\n"
        f"childlogdir={here}\nuser=root\n[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl=unix://{here}/s.sock\n{sections}"
    )
    if os.geteuid() != 0:
        text = (here / "supervisord.conf").read_text()
        (here / "supervisord.conf").write_text(text.replace("user=root\n", ""))
    conf = ["-c", str(here / "supervisord.conf")]
    environment = {"OPSQ_BROKER_URL": redis_url, "OPSQ_STATE_DIR": None}
    real = spawn([supervisord_venv.bin() / "supervisord", *conf], cwd=here, env=environment, name="real")

    def states() -> dict[str, str]:
        control = [supervisord_venv.bin() / "supervisorctl", *conf, "status"]
        told = subprocess.run(control, capture_output=True, text=True, timeout=30).stdout
        return {words[0]: words[1] for line in told.splitlines() if len(words := line.split()) > 1}

    shop.wait_for(lambda: states() == {"opsq": "RUNNING", "opsq-worker": "RUNNING"}, 40, "both run")
    assert shop.has("web", state="RUNNING")
    assert real.stop() == 0
    assert "exited: opsq (exit status 0; expected)" in real.output() or "stopped: opsq (exit status 0)" in real.output()
    assert "stopped: opsq-worker (exit status 0)" in real.output()
    assert shop.leftovers() == []


LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed")
def test_logrotate_understands_its_file(tmp_path: Path) -> None:
    copy = tmp_path / "opsq"
    copy.write_text((DEPLOY / "logrotate" / "opsq").read_text())
    copy.chmod(0o644)
    told = subprocess.run(
        [str(LOGROTATE), "-d", "-s", str(tmp_path / "state"), str(copy)], capture_output=True, text=True, timeout=60
    )
    assert (told.returncode, "error" in told.stderr.lower()) == (0, False), told.stderr


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed")
def test_a_log_that_logrotate_moves_away_loses_no_line(shop: Supervised, tmp_path: Path) -> None:
    log = tmp_path / "moved" / "web.log"
    log.parent.mkdir()
    code = "import time\nfor n in range(10**9):\n    print(n, flush=True); time.sleep(0.001)"
    more = f"stdout_logfile = '{log}'\nlog_max_bytes = 0\nstartsecs = 0"
    shop.toml(python_program("web", code, more=more))
    shop.opsq("up")
    text = (DEPLOY / "logrotate" / "opsq").read_text().partition("/var/log/opsq-programs")[2]
    text = f"{log.parent}{text}".replace("/var/lib/opsq/run", str(shop.state.run)).replace("    compress\n", "")
    rules = tmp_path / "rules"
    rules.write_text(text)
    rules.chmod(0o644)
    for _ in range(3):
        shop.wait_for(lambda: log.exists() and log.stat().st_size > 500)
        subprocess.run([str(LOGROTATE), "-f", "-s", str(tmp_path / "s"), str(rules)], check=True, timeout=60)
    shop.wait_for(lambda: log.exists() and log.stat().st_size > 500)
    shop.opsq("down")
    parts = sorted(log.parent.glob("web.log.*"), key=lambda path: -int(path.suffix[1:]))
    numbers = [int(line) for path in [*parts, log] for line in path.read_text().split()]
    assert len(parts) == 3
    assert numbers == list(range(len(numbers)))


def metric_names() -> set[str]:
    families = [value for value in vars(metrics).values() if isinstance(value, metrics.Family)]
    families += metrics.QUEUE_GAUGES.values()
    return {f"{family.name}{end}" for family in families for end in ("", "_sum", "_count")}


def test_alerts_are_about_metrics_that_exist() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "opsq-alerts.yml").read_text())["groups"][0]["rules"]
    assert len(rules) > 5
    for rule in rules:
        assert set(re.findall(r"opsq_\w+", rule["expr"])) <= metric_names(), rule["alert"]
        assert rule["annotations"]["summary"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_scrape_and_alerts() -> None:
    folder = DEPLOY / "prometheus"
    subprocess.run(["promtool", "check", "config", folder / "prometheus.yml"], check=True, timeout=60)


def test_the_compose_file_starts_what_opsq_has() -> None:
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    assert services["opsq"]["command"][0] == "up"
    assert (DEPLOY / "docker" / services["opsq"]["build"]["context"] / "pyproject.toml").exists()
    assert toml_file.load(DEPLOY / "docker" / "opsq.toml").monitor == {"address": "0.0.0.0"}
    for volume in services["redis"]["volumes"]:
        source = volume.partition(":")[0]
        assert not source.startswith(".") or (DEPLOY / "docker" / source).exists()


def test_redis_accepts_its_file(spawn: Spawner, tmp_path: Path, free_port: Callable[[], int], wait_for: Any) -> None:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    port = str(free_port())
    running = spawn([server, DEPLOY / "redis.conf", "--port", port, "--dir", str(tmp_path)], name="redis")
    wait_for(lambda: "Ready to accept connections" in running.output(), 20)


@pytest.mark.parametrize("name", sorted(service_files.NAMES))
def test_units_name_commands_and_options_that_exist(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {each for param in command.params for each in param.opts}
    (start,) = re.findall(r"ExecStart=(.*)", service_files.systemd_alone(EXAMPLE, name))
    words = start.partition(f" {name} ")[2].split()
    assert {word for word in words if word.startswith("-")} <= known
