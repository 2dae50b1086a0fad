"""Five hosts with networks of their own: a cable is pulled, and the order that was under way is never run late."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import key_audit, namespaces
from support.fleet import Fleet
from support.namespaces import Network
from support.processes import Spawner

from opsq.datastore import keys

HOSTS = ("host1", "host2", "host3", "host4", "host5")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    try:
        with namespaces.network(tmp_path, HOSTS) as made:
            yield made
    except namespaces.NotPossible as error:
        pytest.skip(f"no namespaces can be made here: {error}")


def test_a_host_that_was_cut_off_is_named_in_time_and_never_runs_the_order(
    network: Network, tmp_path: Path, spawn: Spawner, wait_for: Callable[..., Any]
) -> None:
    fleet = Fleet(tmp_path, spawn, namespaces.URL, wait_for)
    hub = {"wrap": network.on("hub")}
    for host in HOSTS:
        fleet.prepare(host)
        environment = {"OPSQ_STATE_DIR": str(tmp_path / host), "OPSQ_BROKER_URL": namespaces.URL}
        line = [*network.on(host), sys.executable, "-m", "opsq", "agent", "-l", "info", "--lease", "6"]
        fleet.agents[host] = spawn(line, name=host, env=environment)
    for agent in fleet.agents.values():
        wait_for(lambda agent=agent: " ready." in agent.output(), 60, f"{agent.name} is ready")

    found = fleet.run("hostname", **hub)
    assert {name: told["stdout"] for name, told in found["hosts"].items()} == {host: f"{host}\n" for host in HOSTS}

    network.cut("host3")
    begin = time.monotonic()
    found = fleet.run("--timeout", "2", f"touch {tmp_path}/ran-$(hostname)", code=3, **hub)
    assert time.monotonic() - begin < 20
    assert found["hosts"]["host3"]["state"] == "silent"
    assert found["summary"] | {"total": 5, "succeeded": 4, "silent": 1} == found["summary"]

    network.join("host3")
    with network.client() as client:
        order = client.lindex(keys.job_order(found["job"]), 0)
        client.rpush(keys.host_orders("host3"), order)  # as if Redis had kept it back until now
        client.expire(keys.host_orders("host3"), 60)
        wait_for(
            lambda: "expired" in fleet.agents["host3"].output() or "is lost" in fleet.agents["host3"].output(),
            60,
            "the order is refused when the host is back",
        )
        wait_for(lambda: fleet.run("--timeout", "15", "true", code=None, **hub)["summary"]["succeeded"] == 5, 60)
        assert sorted(path.name for path in tmp_path.glob("ran-*")) == [
            f"ran-{host}" for host in HOSTS if host != "host3"
        ]
        assert not key_audit.problems(client)
