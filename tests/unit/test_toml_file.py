"""`opsq.toml`: where it is found, what it may say; where the state directory is."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsq.config import toml_file
from opsq.exceptions import ImproperlyConfigured, OpsqError
from opsq.runtime import statedir
from opsq.runtime.statedir import StateDir
from opsq.supervisor import compose


def written(folder: Path, text: str, name: str = "opsq.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_nearest_file_upwards_is_the_one(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert toml_file.find(deep) is None
    far = written(tmp_path, "")
    assert toml_file.find(deep) == far
    written(tmp_path / "a", "[project]\nname = 'x'", "pyproject.toml")
    assert toml_file.find(deep) == far
    near = written(tmp_path / "a", "[tool.opsq]\napp = 'x'", "pyproject.toml")
    assert toml_file.find(deep) == near
    assert toml_file.load(near).app == "x"


def test_a_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "")
    other = written(tmp_path, "app = 'y'", "other.toml")
    monkeypatch.setenv("OPSQ_CONFIG", str(other))
    assert toml_file.find(tmp_path) == other
    monkeypatch.setenv("OPSQ_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(ImproperlyConfigured, match="no such file"):
        toml_file.load(toml_file.find(tmp_path) or tmp_path)


def test_what_it_says_is_sorted_by_meaning(tmp_path: Path) -> None:
    file = toml_file.load(
        written(
            tmp_path,
            "app = 'shop'\nbroker_url = 'redis://h/1'\ntask_acks_late = true\nservices = ['worker']\n"
            "[worker]\nconcurrency = 4\n[redis]\nappendfsync = 'no'\n[programs.web]\ncommand = 'web'\n",
        )
    )
    assert (file.app, file.broker_url, file.services) == ("shop", "redis://h/1", ("worker",))
    assert file.settings == {"broker_url": "redis://h/1", "task_acks_late": True}
    assert (file.worker, file.redis) == ({"concurrency": 4}, {"appendfsync": "no"})
    assert file.programs == {"web": {"command": "web"}}


def test_old_names_of_settings_are_known_too(tmp_path: Path) -> None:
    file = toml_file.load(written(tmp_path, "BROKER_URL = 'redis://h/1'"))
    assert file.broker_url == "redis://h/1"


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("task_ack_late = true", "'task_ack_late' is no setting", "did you mean task_acks_late"),
        ("[programms.web]\ncommand = 'x'", "'programms' is no setting", "did you mean programs?"),
        ("app = 3", "'app' must be text", ""),
        ("worker = 3", "'worker' must be a table", ""),
        ("programs.web = 3", "'programs.web' must be a table", ""),
        ("[programs.web]\nstopsignl = 'TERM'", "'stopsignl' is no key of [programs.web]", "did you mean stopsignal"),
        ("[redis]\nappendsync = 'no'", "'appendsync' is no key of [redis]", "did you mean appendfsync?"),
        ("services = ['workers']", "'workers' is no service", "did you mean worker?"),
        ("app = 'x' oops", "not valid TOML", ""),
    ],
)
def test_a_mistake_names_the_key_and_the_nearest_right_one(tmp_path: Path, text: str, why: str, hint: str) -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        toml_file.load(written(tmp_path, text))
    assert why in error.value.why
    assert hint in error.value.hint
    assert str(tmp_path / "opsq.toml") in str(error.value)


# --- the state directory ----------------------------------------------------------------------------------------------


def test_where_the_state_directory_is(tmp_path: Path) -> None:
    folder = tmp_path.resolve() / "shop"
    folder.mkdir()
    assert statedir.find("/x/y", {"OPSQ_STATE_DIR": "/z"}, folder).root == Path("/x/y")
    assert statedir.find(None, {"OPSQ_STATE_DIR": "/z"}, folder).root == Path("/z")
    unnamed = statedir.find(None, {}, folder).root
    assert unnamed.name.startswith("shop-")
    assert unnamed != statedir.find(None, {}, tmp_path).root
    written(folder, "")
    assert statedir.find(None, {}, folder).root == folder / ".opsq"


def test_it_is_made_for_this_user_alone(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "deep" / ".opsq")
    state.create()
    state.create()
    for folder in (state.root, state.run, state.log, state.slots):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (state.root / ".gitignore").read_text() == "*\n"


def test_a_place_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsqError) as error:
        StateDir(tmp_path / "file" / "x").create()
    assert "cannot write the state directory" in str(error.value)
    assert "--state-dir" in error.value.hint


def test_sockets_fit_into_their_108_bytes(tmp_path: Path) -> None:
    near, far = StateDir(tmp_path), StateDir(tmp_path / ("x" * 100))
    assert near.control_socket == tmp_path / "run" / "control.sock"
    assert len(str(far.control_socket)) < 108
    assert far.control_socket.parent == far.redis_socket.parent != near.control_socket.parent
    assert statedir.private_redis_url(near) is None


# --- what `up` makes of it --------------------------------------------------------------------------------------------


def place(folder: Path, text: str, app: str | None = None) -> compose.Place:
    return compose.Place(StateDir(folder / ".opsq"), folder, toml_file.load(written(folder, text)), app)


def test_which_of_our_own_programs_are_wanted(tmp_path: Path) -> None:
    programs = "[programs.web]\ncommand = 'web'\n"
    assert place(tmp_path, "").services == toml_file.SERVICES
    assert place(tmp_path, programs).services == ()
    assert place(tmp_path, programs, "shop").services == toml_file.SERVICES
    assert place(tmp_path, f"services = ['worker']\n{programs}").services == ("worker",)
    assert place(tmp_path, "services = []", "shop").services == ()


def test_a_file_that_makes_an_app_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from celery import Celery\napp = Celery()\n")
    (tmp_path / "b.py").write_text("from opsq import shared_task\n")
    assert compose.file_with_app(tmp_path) is None
    (tmp_path / "c.py").write_text("from opsq import Celery\n\napp: Celery = Celery(\n    'c',\n)\n")
    assert compose.file_with_app(tmp_path) == "c.py"
