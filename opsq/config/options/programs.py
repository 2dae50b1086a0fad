"""What a `[programs.NAME]` table may say: supervisord's words where it has them."""

from __future__ import annotations

from opsq.config.option import WORKS, Option

# fmt: off
PROGRAM_OPTIONS: tuple[Option, ...] = (
    Option("command", list, None, "", WORKS,
           "The program and its arguments, as a list or as one line that is split as a shell would"),
    Option("directory", str, None, "", WORKS, "Where it is started; default: the folder of opsq.toml"),
    Option("environment", dict, {}, "", WORKS, "Variables added to the environment"),
    Option("user", str, None, "", WORKS, "The user it runs as (only root can choose)"),
    Option("umask", str, None, "", WORKS, "Octal mode mask, as text: \"022\""),
    Option("group", str, None, "", WORKS, "A name that start, stop, restart and signal take for several programs"),
    Option("autostart", bool, True, "", WORKS, "Start it with `opsq up`"),
    Option("autorestart", object, "unexpected", "", WORKS,
           "true: after every exit; \"unexpected\": after exit codes not in `exitcodes`; false: never"),
    Option("exitcodes", list, [0], "", WORKS, "Exit codes that are expected"),
    Option("startsecs", float, 1.0, "", WORKS, "How long it has to run to count as started, s"),
    Option("startretries", int, 3, "", WORKS, "How often a failed start is tried again before FATAL"),
    Option("stopsignal", str, "TERM", "", WORKS, "The signal that asks it to stop"),
    Option("stopwaitsecs", float, 10.0, "", WORKS, "How long it may take to stop before all of it is killed, s"),
    Option("stopasgroup", bool, False, "", WORKS, "Send `stopsignal` to its whole process group"),
    Option("reloadsignal", str, None, "", WORKS,
           "The signal by which `opsq reload` has it read its code and settings again; default: none is sent"),
    Option("killasgroup", bool, True, "", WORKS,
           "What it started ends with it; false: only the main process is killed"),
    Option("priority", int, 999, "", WORKS, "Lower ones are started first and stopped last"),
    Option("depends_on", dict, {}, "", WORKS,
           "Programs that must be \"started\" or \"ready\" first: { redis = \"ready\" }"),
    Option("ready", str, "running", "", WORKS,
           "\"running\": ready once started; \"notify\": ready when it says so (sd_notify)"),
    Option("stdout_logfile", str, None, "", WORKS,
           "Where its output goes; default: log/NAME.log in the state directory; \"none\" = nowhere"),
    Option("stderr_logfile", str, None, "", WORKS,
           "Where its errors go; default: where its output goes; \"auto\": log/NAME.stderr.log"),
    Option("log_max_bytes", int, 50_000_000, "", WORKS, "Size at which its log is rotated; 0 = never"),
    Option("log_backups", int, 10, "", WORKS, "How many rotated logs are kept"),
    Option("stderr_log_max_bytes", int, None, "", WORKS, "The same for `stderr_logfile`; default: log_max_bytes"),
    Option("stderr_log_backups", int, None, "", WORKS, "The same for `stderr_logfile`; default: log_backups"),
    Option("numprocs", int, 1, "", WORKS, "How many of it run, as one group"),
    Option("numprocs_start", int, 0, "", WORKS, "The number of the first one"),
    Option("process_name", str, "%(program_name)s", "", WORKS,
           "What each is called; with %(process_num)d or %(process_num)02d in it where there are several"),
)
REDIS_OPTIONS: tuple[Option, ...] = (
    Option("appendfsync", str, "always", "", WORKS,
           "When the private Redis syncs its file: \"always\" loses nothing, \"everysec\" and \"no\" are faster"),
)
# fmt: on
