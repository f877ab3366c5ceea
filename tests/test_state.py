"""The state folder: private, met by all processes of a user, refused when it is not ours."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from meshkit.errors import ConfigError
from meshkit.state import private_dir, state_dir


def test_the_variable_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHKIT_STATE_DIR", str(tmp_path / "deep" / "state"))
    assert state_dir() == tmp_path / "deep" / "state"
    assert stat.S_IMODE(state_dir().stat().st_mode) == 0o700


def test_without_it_all_processes_of_a_user_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHKIT_STATE_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert state_dir() == tmp_path / f"meshkit-{os.getuid()}"


def test_its_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_dir(tmp_path / "state")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_making_it_twice_is_no_error(tmp_path: Path) -> None:
    private_dir(tmp_path / "state")
    private_dir(tmp_path / "state")


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        private_dir(path)
    message = str(caught.value)
    assert message.startswith(f"state folder {path} can't be used: ")
    assert message.endswith("; set MESHKIT_STATE_DIR to a folder you own")
    assert "\n" not in message
    return message


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    assert "File exists" in refused(tmp_path / "state")


def test_a_file_in_its_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(tmp_path / "file" / "state")


def test_a_link_that_somebody_could_have_laid_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "target")
    assert "it is not a folder of this user" in refused(tmp_path / "state")


def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    if os.getuid() == 0:
        os.chown(folder, 65534, -1)
    else:
        folder = Path("/")  # root's
    assert "it is not a folder of this user" in refused(folder)
