"""Units for systemd and sections for supervisord: of a whole project (`opsq up`), and of each of our processes alone.

The files in deploy/ are made by this too, with the names of an example.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Where units look for what must not stand in them: OPSQ_BROKER_URL with its password, for example.
SECRETS = "/etc/opsq.env"


@dataclass(frozen=True, slots=True)
class Project:
    """Who runs it and where. `state_dir`: None if that is found by itself."""

    opsq: str
    folder: str
    user: str
    app: str | None = None
    state_dir: str | None = None

    @property
    def start(self) -> str:
        """The command up to its flags for all commands."""
        return shlex.join([self.opsq, *(["-A", self.app] if self.app else [])])


def systemd_up(project: Project) -> str:
    """The unit of a whole project."""
    kept = f"Environment=OPSQ_STATE_DIR={project.state_dir}\n" if project.state_dir else ""
    return f"""\
# One project under systemd: `opsq up --foreground` is the main process, systemd starts it again after a reboot or
# should it ever die. Made by `opsq generate systemd`. To install it:
#   opsq generate systemd --output /etc/systemd/system && systemctl daemon-reload && systemctl enable --now opsq

[Unit]
Description=opsq: programs and workers of {project.folder}
After=network-online.target
Wants=network-online.target

[Service]
# Ready when every program that should run is ready. READY=1 comes from the daemon, not from the main process.
Type=notify
NotifyAccess=all
User={project.user}
WorkingDirectory={project.folder}
ExecStart={_unit_word(project.start)} up --foreground --plain
ExecReload=/bin/kill -HUP $MAINPID
# Secrets, if any: OPSQ_BROKER_URL=redis://:PASSWORD@HOST/0, mode 0600.
EnvironmentFile=-{SECRETS}
{kept}
# A stop lets workers finish what they run; what takes longer than its `stopwaitsecs` is killed by opsq itself, so
# systemd only has to wait a little longer than the longest of these (60 s for workers unless changed).
TimeoutStopSec=90
# TERM goes to the main process only, which stops the programs in their order; what is left at the end is killed.
# With `KillMode=process` programs would outlive even a kill -9 of the main process, until the next start adopts them.
KillMode=mixed
# Programs' cgroups belong to opsq.
Delegate=yes
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


#: What none of worker, beat and monitor needs. A task that needs more: `systemctl edit`, and take the line back.
_HARDENING = """\
# What it never needs. A task that does: `systemctl edit`, with the opposite line.
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=full
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077
"""
_OF_THE_AGENT = """\
# Commands that operators send run with all of this. Only what no command may do is forbidden; what shall be possible
# beyond that is a matter of the user and of the agent's policy.
ProtectKernelModules=yes
ProtectClock=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077
"""


@dataclass(frozen=True, slots=True)
class _Alone:
    """One of our processes alone. `stop_s`: how long it may take to end, seconds; `of_app`: it needs `-A`."""

    what: str
    words: str
    stop_s: int
    hardening: str = _HARDENING
    of_app: bool = True


_ALONE: Mapping[str, _Alone] = {
    # One unit for each queue: systemctl enable --now opsq-worker@mail
    "worker": _Alone("worker of the queue %i", "worker -l info -Q %i -n %i@%%h", 300),
    "beat": _Alone("schedule", "beat -l info", 30),
    "monitor": _Alone("web page and metrics", "monitor -l info", 30),
    "agent": _Alone("commands from operators", "agent -l info", 60, _OF_THE_AGENT, of_app=False),
}
NAMES = tuple(_ALONE)


def unit_name(name: str) -> str:
    """The file of a process's own unit."""
    return f"opsq-{name}@.service" if name == "worker" else f"opsq-{name}.service"


def systemd_alone(project: Project, name: str) -> str:
    """The unit of one of our processes alone."""
    alone = _ALONE[name]
    start = project.start if alone.of_app else shlex.join([project.opsq])
    return f"""\
# Made by `opsq generate systemd {name}`.
[Unit]
Description=opsq: {alone.what}
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
User={project.user}
WorkingDirectory={project.folder}
ExecStart={_unit_word(start)} {alone.words}
ExecReload=/bin/kill -HUP $MAINPID
# OPSQ_BROKER_URL=redis://:PASSWORD@HOST/0, mode 0600.
EnvironmentFile=-{SECRETS}
StateDirectory=opsq
Environment=OPSQ_STATE_DIR={project.state_dir or "/var/lib/opsq"}
# TERM to the main process is a warm stop; what runs may go on so long.
KillMode=mixed
TimeoutStopSec={alone.stop_s}
Restart=always
RestartSec=1
{alone.hardening}
[Install]
WantedBy=multi-user.target
"""


def supervisord_up(project: Project) -> str:
    """The section of a whole project."""
    return _section(project, "opsq", f"{project.start} up --foreground --plain", 90)


def supervisord_alone(project: Project, name: str) -> str:
    """The section of one of our processes alone."""
    alone = _ALONE[name]
    start = project.start if alone.of_app else shlex.join([project.opsq])
    words = "worker -l info -n worker@%%h" if name == "worker" else alone.words
    return _section(project, f"opsq-{name}", f"{start} {words}", alone.stop_s)


def _section(project: Project, name: str, command: str, stop_s: int) -> str:
    kept = f'environment=OPSQ_STATE_DIR="{project.state_dir}"\n' if project.state_dir else ""
    return f"""\
[program:{name}]
command={command}
directory={project.folder}
user={project.user}
{kept}; It runs when it has lived so long; a broker that is away for a moment is waited for by itself.
startsecs=5
; INT is a warm stop: what runs may go on so long. Children ignore it, so the whole group may get it.
stopsignal=INT
stopwaitsecs={stop_s}
stopasgroup=true
killasgroup=true
autorestart=true
redirect_stderr=true
"""


def _unit_word(command: str) -> str:
    """A command as it stands in a unit, where `%` and `$` have a meaning."""
    return command.replace("%", "%%").replace("$", "$$")


KINDS: Mapping[str, tuple[Callable[[Project], str], Callable[[Project, str], str]]] = {
    "systemd": (systemd_up, systemd_alone),
    "supervisord": (supervisord_up, supervisord_alone),
}


def files(kind: str, project: Project, names: tuple[str, ...]) -> dict[str, str]:
    """File name -> text; without names the whole project."""
    whole, alone = KINDS[kind]
    if kind == "supervisord":
        texts = [alone(project, name) for name in names] or [whole(project)]
        return {"opsq.conf": "\n".join(texts)}
    return {unit_name(name): alone(project, name) for name in names} or {"opsq.service": whole(project)}
