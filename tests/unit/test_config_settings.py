"""Settings: names, layers, sources, and what counts as a mistake."""

from __future__ import annotations

import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

from opsq.config import sources, toml_file
from opsq.config.names import BY_NAME, BY_OLD_NAME, canonical, meant
from opsq.config.option import Option, parse_bool
from opsq.config.settings import Settings
from opsq.exceptions import ImproperlyConfigured, NotConfigured


def from_object(source: Any, namespace: str | None = None) -> Settings:
    return Settings(lambda: [sources.from_object(source, namespace)], namespace)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("task_acks_late", "task_acks_late"),
        ("CELERY_ACKS_LATE", "task_acks_late"),
        ("BROKER_URL", "broker_url"),
        ("CELERYD_CONCURRENCY", "worker_concurrency"),
        ("CELERY_TASK_RESULT_EXPIRES", "result_expires"),
        ("CELERYBEAT_SCHEDULE", "beat_schedule"),
        ("TASK_ACKS_LATE", None),
        ("re", None),
    ],
)
def test_a_setting_has_a_new_and_an_old_name(name: str, setting: str | None) -> None:
    assert canonical(name) == setting


def test_every_setting_of_celery_is_there_once() -> None:
    assert len([option for option in BY_NAME.values() if option.old]) == 214
    assert len(BY_OLD_NAME) == 214 + 1  # Django's TIME_ZONE


def test_a_setting_works_if_and_only_if_the_code_asks_for_it() -> None:
    package = Path(sources.__file__).parents[1]
    text = "".join(file.read_text() for file in package.rglob("*.py") if file.parent.name != "options")
    # An attribute of tasks that changes nothing; what `inspect stats` tells of the broker.
    only_handed_on = {"task_retry_on_worker_lost", "broker_heartbeat"}
    for name, option in BY_NAME.items():
        asked = re.search(rf"""(conf|settings)\.{name}\b|["']{name}["']""", text) is not None
        assert (asked and name not in only_handed_on) == (option.standing == "works"), name


def test_values_are_read_and_written_under_all_names() -> None:
    conf = Settings()
    conf.CELERY_TASK_SERIALIZER = "yaml"
    conf["BROKER_URL"] = "redis://a"
    assert conf.task_serializer == conf["CELERY_TASK_SERIALIZER"] == "yaml"
    assert conf.broker_url == conf.get("BROKER_URL") == "redis://a"
    assert "BROKER_URL" in conf


def test_a_default_comes_from_the_table_and_a_mutable_one_is_the_apps_own() -> None:
    one, other = Settings(), Settings()
    one.beat_schedule["x"] = 1
    assert one.beat_schedule == {"x": 1}
    assert other.beat_schedule == {}
    assert one.task_default_queue == "celery"
    assert one.source_of("task_default_queue") == "default"


def test_exchange_and_routing_key_follow_the_queue() -> None:
    conf = Settings()
    conf.task_default_queue = "mail"
    assert (conf.task_default_exchange, conf.task_default_routing_key) == ("mail", "mail")
    conf.task_default_routing_key = "key"
    assert conf.task_default_routing_key == "key"


def test_what_the_program_sets_wins_over_its_object_even_when_set_before() -> None:
    conf = from_object({"task_acks_late": True, "task_serializer": "yaml"})
    conf.task_serializer = "msgpack"
    assert conf.task_serializer == "msgpack"
    assert conf.task_acks_late is True
    assert conf.source_of("task_serializer") == "set in code"
    assert conf.source_of("task_acks_late") == "a dict"


def test_flags_win_over_the_environment_and_that_over_code(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = Settings()
    conf.broker_url = "redis://code"
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://celery")
    assert conf.broker_url == "redis://celery"
    monkeypatch.setenv("OPSQ_BROKER_URL", "redis://opsq")
    assert (conf.broker_url, conf.source_of("broker_url")) == ("redis://opsq", "environment OPSQ_BROKER_URL")
    conf.put_flag("broker_url", "redis://flag", "-b")
    assert (conf.broker_url, conf.source_of("broker_url")) == ("redis://flag", "-b")


def test_a_configuration_object_is_read_when_a_value_is_first_asked_for() -> None:
    reads: list[int] = []

    def load() -> list[sources.Layer]:
        reads.append(1)
        return [sources.Layer("x", {"task_acks_late": True})]

    conf = Settings(load)
    conf.task_serializer = "json"
    conf.update(task_track_started=True)
    assert reads == []
    assert conf.task_acks_late is True
    assert conf.task_track_started is True
    assert reads == [1]


def test_a_configuration_that_cannot_be_read_is_tried_again() -> None:
    answers: list[Any] = [ImproperlyConfigured("no"), [sources.Layer("x", {"task_acks_late": True})]]

    def load() -> list[sources.Layer]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    conf = Settings(load)
    with pytest.raises(ImproperlyConfigured):
        _ = conf.task_acks_late
    assert conf.task_acks_late is True


def test_a_namespace_means_only_names_with_it_and_old_ones() -> None:
    class DjangoSettings:
        CELERY_TASK_SERIALIZER = "yaml"
        CELERY_WORKER_CONCURRENCY = 3
        CELERY_ACKS_LATE = True
        TIME_ZONE = "Europe/Berlin"
        DEBUG = True

    conf = from_object(DjangoSettings, "CELERY")
    assert conf.task_serializer == "yaml"
    assert conf.worker_concurrency == conf.CELERY_WORKER_CONCURRENCY == 3
    assert conf.task_acks_late is True
    assert conf.timezone == "Europe/Berlin"
    assert "DEBUG" not in conf


def test_names_with_the_namespace_win_over_others_and_all_over_djangos_time_zone() -> None:
    given = {"TIME_ZONE": "Asia/Tokyo", "BROKER_URL": "redis://old", "CELERY_BROKER_URL": "redis://namespace"}
    given |= {"CELERY_TIMEZONE": "Europe/Berlin"}
    for order in (given, dict(reversed(given.items()))):
        conf = from_object(order, "CELERY")
        assert (conf.broker_url, conf.timezone) == ("redis://namespace", "Europe/Berlin")


@pytest.mark.parametrize(
    ("one", "other", "namespace"),
    [
        ({"task_serializer": "json"}, {"CELERY_TASK_SERIALIZER": "yaml"}, None),
        ({"CELERYD_CONCURRENCY": 1}, {"worker_concurrency": 2}, None),
        ({"CELERYD_CONCURRENCY": 1}, {"CELERY_WORKER_CONCURRENCY": 2}, "CELERY"),
        ({"task_acks_late": True}, {"CELERY_ACKS_LATE": 1}, None),
    ],
)
def test_two_names_with_different_values_are_an_error_that_names_both(
    one: dict[str, Any], other: dict[str, Any], namespace: str | None, tmp_path: Path
) -> None:
    names = rf"{next(iter(one))} and {next(iter(other))} are names of one setting"
    with pytest.raises(ImproperlyConfigured, match=names):
        sources.from_object({**one, **other}, namespace)
    if namespace is None:
        with pytest.raises(ImproperlyConfigured, match=names):
            Settings().update({**one, **other})
        text = "".join(
            f"{name} = {str(value).lower() if value is True else repr(value)}\n"
            for name, value in {**one, **other}.items()
        )
        (tmp_path / "opsq.toml").write_text(text)
        with pytest.raises(ImproperlyConfigured, match=f"opsq.toml: {names}"):
            sources.from_project(tmp_path)


def test_two_names_with_one_value_are_no_error() -> None:
    assert from_object({"task_serializer": "yaml", "CELERY_TASK_SERIALIZER": "yaml"}).task_serializer == "yaml"


@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - {"broker_url", "result_backend"}))
def test_each_setting_is_taken_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {bool: ("yes", True), int: ("3", 3), float: ("2.5", 2.5), bytes: ("x", b"x"), dict: ('{"a": 1}', {"a": 1})}
    texts |= {list: ("a, b", ["a", "b"]), tuple: ("a,b", ("a", "b")), object: ("[1]", [1]), str: ("x", "x")}
    text, value = texts[BY_NAME[name].type]
    conf = from_object({name: "in code"})
    monkeypatch.setenv(f"CELERY_{name.upper()}", text)
    assert conf[name] == value
    assert conf.source_of(name) == f"environment CELERY_{name.upper()}"
    conf.put_flag(name, "flag", "--flag")
    assert conf[name] == "flag"


def test_of_two_variables_that_of_opsq_wins_and_an_empty_one_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_TASK_SERIALIZER", "yaml")
    monkeypatch.setenv("OPSQ_TASK_SERIALIZER", "msgpack")
    monkeypatch.setenv("CELERY_TIMEZONE", "")
    conf = Settings()
    assert (conf.task_serializer, conf.timezone) == ("msgpack", None)


def test_celerys_variable_for_the_file_of_beat_is_no_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BEAT_SCHEDULE", "/var/run/celerybeat-schedule")
    assert Settings().beat_schedule == {}


def test_a_variable_that_cannot_be_read_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_TRANSPORT_OPTIONS", "[1]")
    with pytest.raises(ImproperlyConfigured, match=r"CELERY_BROKER_TRANSPORT_OPTIONS: .*it is no JSON object"):
        _ = Settings().task_serializer


def test_a_value_of_any_kind_is_json_or_a_text_but_no_broken_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, value in (('{"a": "q"}', {"a": "q"}), ("proj.routes.by_name", "proj.routes.by_name"), ("4", 4)):
        monkeypatch.setenv("CELERY_TASK_ROUTES", text)
        assert Settings().task_routes == value
    monkeypatch.setenv("CELERY_TASK_ROUTES", '{"a"')
    with pytest.raises(ImproperlyConfigured, match="CELERY_TASK_ROUTES: task_routes: "):
        _ = Settings().task_routes


def test_a_configuration_may_be_yaml(tmp_path: Path) -> None:
    file = tmp_path / "celeryconfig.yaml"
    file.write_text(
        "task_acks_late: true\nCELERYD_CONCURRENCY: 3\nbroker_transport_options:\n  visibility_timeout: 9\n"
    )
    conf = from_object(str(file))
    assert (conf.task_acks_late, conf.worker_concurrency) == (True, 3)
    assert conf.broker_transport_options == {"visibility_timeout": 9}
    assert conf.source_of("task_acks_late") == str(file)


@pytest.mark.parametrize(
    ("text", "why"),
    [("- a\n", "it is no mapping of names"), ("a: [", "not valid YAML"), ("!!python/object:x.Y {}", "YAML")],
)
def test_yaml_that_is_no_configuration_is_one_clear_line(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "celeryconfig.yml"
    file.write_text(text)
    with pytest.raises(ImproperlyConfigured, match=why) as told:
        from_object(str(file)).load()
    assert "\n" not in told.value.what + told.value.why


def test_a_projects_file_may_be_yaml(tmp_path: Path) -> None:
    (tmp_path / "opsq.yaml").write_text("app: proj\nbroker_url: redis://h\nworker:\n  queues: [mail]\n")
    found = toml_file.find(tmp_path / "below")
    assert found is not None
    assert found.name == "opsq.yaml"
    file = toml_file.load(found)
    assert (file.app, file.broker_url, file.worker) == ("proj", "redis://h", {"queues": ["mail"]})
    (tmp_path / "opsq.yaml").write_text("broker_ulr: redis://h\n")
    with pytest.raises(ImproperlyConfigured, match="'broker_ulr' is no setting"):
        toml_file.load(found)


def test_old_and_new_names_may_be_mixed() -> None:
    conf = from_object({"CELERY_ACKS_LATE": True, "task_serializer": "yaml", "CELERYD_CONCURRENCY": 2})
    assert (conf.task_acks_late, conf.task_serializer, conf.worker_concurrency) == (True, "yaml", 2)


def test_other_names_are_kept_and_ignored_without_a_word() -> None:
    module = types.ModuleType("celeryconfig")
    vars(module).update(re=__import__("re"), LOG_CONFIG={"a": 1}, REDIS_HOST="h", task_acks_late=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conf = from_object(module)
        assert conf.task_acks_late is True
        assert conf.LOG_CONFIG == {"a": 1}
        assert conf["REDIS_HOST"] == "h"
        assert conf.redis_host is None


def test_a_mistyped_name_is_told() -> None:
    with pytest.warns(NotConfigured, match="'task_serialiser' is no setting, did you mean 'task_serializer'"):
        sources.from_object({"task_serialiser": "json"})
    with pytest.warns(NotConfigured, match="worker_prefetch_multiplier"):
        Settings().update(worker_prefetch_multipler=1)


@pytest.mark.parametrize(
    ("name", "known"),
    [("broker_ulr", "broker_url"), ("CELERY_ACK_LATE", "CELERY_ACKS_LATE"), ("re", None), ("LOG_CONFIG", None)],
)
def test_what_a_name_was_meant_to_be(name: str, known: str | None) -> None:
    assert meant(name) == known


def test_a_name_that_is_nowhere_is_an_error() -> None:
    conf = Settings()
    with pytest.raises(AttributeError, match="there is no setting 'nothing'"):
        _ = conf.nothing
    with pytest.raises(KeyError):
        conf["nothing"]
    assert conf.get("nothing", 3) == 3


def test_changed_values_and_their_number() -> None:
    conf = from_object({"task_acks_late": True, "MY_OWN": 1})
    conf.task_serializer = "yaml"
    assert conf.changed() == {"task_acks_late": True, "MY_OWN": 1, "task_serializer": "yaml"}
    assert len(conf) == len(BY_NAME) + 1
    assert dict(conf)["MY_OWN"] == 1


def test_a_changed_value_can_be_taken_back() -> None:
    conf = from_object({"task_acks_late": True})
    conf.task_acks_late = False
    del conf["task_acks_late"]
    assert conf.task_acks_late is True


def test_defaults_of_the_program_count_less_than_its_configuration() -> None:
    conf = from_object({"task_acks_late": True})
    conf.add_layer(sources.Layer("defaults", {"task_acks_late": False, "task_serializer": "yaml"}))
    assert (conf.task_acks_late, conf.task_serializer) == (True, "yaml")


def test_the_version_grows_with_each_change() -> None:
    conf = Settings()
    before = conf.version
    conf.task_acks_late = True
    assert conf.version > before


def test_a_module_is_found_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf_of_mine.py").write_text("task_acks_late = True\nclass Later:\n    task_acks_late = False\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert from_object("conf_of_mine").task_acks_late is True
    assert from_object("conf_of_mine:Later").task_acks_late is False
    assert from_object("conf_of_mine.Later").task_acks_late is False


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module_here", "No module named 'no_such_module_here'"),
        ("os.path.nothing_there", "has no attribute 'nothing_there'"),
    ],
)
def test_a_configuration_that_is_not_there_is_one_clear_line(name: str, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        sources.from_object(name)


def test_opsq_toml_counts_less_than_code(tmp_path: Path) -> None:
    (tmp_path / "opsq.toml").write_text('task_serializer = "yaml"\ntask_acks_late = true\n')
    layer = sources.from_project(tmp_path)
    assert layer is not None
    conf = Settings(lambda: [sources.from_object({"task_serializer": "json"}), layer])
    assert (conf.task_serializer, conf.task_acks_late) == ("json", True)
    assert conf.source_of("task_acks_late") == str(tmp_path / "opsq.toml")
    assert conf.set_by_program("task_serializer")
    assert not conf.set_by_program("task_acks_late")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "3", 3),
        (float, "0.5", 0.5),
        (bool, "yes", True),
        (bool, "0", False),
        (list, "a, b", ["a", "b"]),
        (tuple, '["a"]', ("a",)),
        (dict, '{"a": 1}', {"a": 1}),
        (bytes, "x", b"x"),
        (object, "auto", "auto"),
        (str, "x", "x"),
    ],
)
def test_a_text_becomes_a_value_of_the_settings_type(kind: type, text: str, value: Any) -> None:
    assert Option("x", kind, None, "", "works", "").parse(text) == value


def test_a_text_that_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(ValueError, match="neither yes nor no"):
        parse_bool("maybe")
