"""Files are written whole or not at all, and are on the disk when that is said."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hgscale import files
from hgscale.errors import ConfigError, RunError


class Recorder:
    """What is asked of the disk, in order: ("fsync", name of the file or folder) and ("replace", from, to)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, ...]] = []
        fsync, replace = os.fsync, os.replace

        def fsync_(handle: int) -> None:
            self.calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
            fsync(handle)

        def replace_(source: Path, target: Path) -> None:
            self.calls.append(("replace", Path(source).name, Path(target).name))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", fsync_)
        monkeypatch.setattr(os, "replace", replace_)


def refuse(number: int) -> Callable[..., None]:
    def refuse_(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse_


def test_a_file_is_synced_then_renamed_then_its_folder_is_synced(tmp_path, monkeypatch):
    disk = Recorder(monkeypatch)
    files.write_text(tmp_path / "a.txt", "ä")
    half = f".a.txt.{os.uname().nodename}-{os.getpid()}.part"
    assert disk.calls == [("fsync", half), ("replace", half, "a.txt"), ("fsync", tmp_path.name)]
    assert (tmp_path / "a.txt").read_bytes() == "ä".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folders_above_a_file_are_made_and_each_is_synced_into_its_parent(tmp_path, monkeypatch):
    disk = Recorder(monkeypatch)
    files.write_bytes(tmp_path / "a" / "b" / "c", b"")
    synced = [call[1] for call in disk.calls if call[0] == "fsync"]
    assert synced == [tmp_path.name, "a", f".c.{os.uname().nodename}-{os.getpid()}.part", "b"]


def test_a_note_that_need_not_last_is_whole_and_not_synced(tmp_path, monkeypatch):
    disk = Recorder(monkeypatch)
    files.write_json(tmp_path / "a.json", {"x": 1}, durable=False)
    assert disk.calls == [("replace", f".a.json.{os.uname().nodename}-{os.getpid()}.part", "a.json")]
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_is_one_line_and_leaves_what_was_there(tmp_path, monkeypatch, call, number):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    monkeypatch.setattr(os, call, refuse(number))
    with pytest.raises(RunError) as refusal:
        files.write_json(path, {"x": 2}, "make room")
    assert str(refusal.value) == f"{path}: cannot be written ({os.strerror(number)}); make room"
    assert json.loads(path.read_text()) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/a: cannot be written \(File exists\); make room, and run the same"):
        files.write_text(tmp_path / "file" / "a", "")


def test_what_is_no_json_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


def test_a_block_that_fails_changes_nothing(tmp_path):
    path, folder = tmp_path / "a", tmp_path / "b"
    files.write_text(path, "old")
    folder.mkdir()
    (folder / "old").touch()

    def fail_in_file() -> None:
        with files.writing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    def fail_in_folder() -> None:
        with files.writing_folder(folder) as half:
            (half / "half").touch()
            raise KeyboardInterrupt

    for fail in (fail_in_file, fail_in_folder):
        with pytest.raises(KeyboardInterrupt):
            fail()
    assert path.read_text() == "old"
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["a", "b", "b/old"]


def test_a_folder_takes_the_place_of_another_once_all_in_it_is_synced(tmp_path, monkeypatch):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "old").touch()
    disk = Recorder(monkeypatch)
    with files.writing_folder(folder) as half:
        (half / "in").mkdir()
        (half / "in" / "new").write_text("new")
    temporary = f".b.{os.uname().nodename}-{os.getpid()}.part"
    assert disk.calls[:3] == [("fsync", temporary), ("fsync", "new"), ("fsync", "in")]
    assert disk.calls[-2:] == [("replace", temporary, "b"), ("fsync", tmp_path.name)]
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["b", "b/in", "b/in/new"]


def test_a_folder_that_another_process_has_made_stays_where_it_is_not_to_be_replaced(tmp_path):
    folder = tmp_path / "b"
    with files.writing_folder(folder, replace=False) as mine:
        (mine / "mine").touch()
        with files.writing_folder(folder.with_name("c")) as theirs:
            (theirs / "theirs").touch()
        folder.with_name("c").rename(folder)  # another is faster
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["b", "b/theirs"]
    with files.writing_folder(tmp_path / "d", replace=False) as mine:
        (mine / "mine").touch()
    assert (tmp_path / "d" / "mine").exists()


def test_a_folder_whose_rename_is_refused_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "old").touch()
    replace = os.replace

    def refuse_new(source: Path, target: Path) -> None:
        if Path(source).name == f".b.{os.uname().nodename}-{os.getpid()}.part":
            refuse(errno.ENOSPC)()
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(RunError, match="No space left"), files.writing_folder(folder):
        pass
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["b", "b/old"]


def test_a_file_system_that_cannot_sync_folders_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    files.sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="error"):
        files.sync_directory(tmp_path)


def test_a_held_directory_refuses_another_process_until_it_is_let_go(tmp_path):
    hold = (
        "import sys; from pathlib import Path; from hgscale.files import held; from hgscale.errors import ConfigError\n"
        f"with held(Path({str(tmp_path / 'run')!r}), ConfigError, 'held by another'): print('held', flush=True)"
    )

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", hold], capture_output=True, text=True, check=False)

    with files.held(tmp_path / "run", ConfigError, "busy"):
        assert "ConfigError: held by another" in other().stderr
    assert other().stdout == "held\n"


def test_a_directory_that_cannot_be_held_is_refused_in_the_words_of_the_caller(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run"
    with pytest.raises(ConfigError, match="no: File exists"), files.held(path, lambda r: ConfigError(f"no: {r}"), ""):
        pass


def test_storage_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refuse(errno.ENOLCK))
    with files.held(tmp_path, ConfigError, "busy"):
        assert (tmp_path / "lock").exists()


def test_what_killed_writers_left_is_swept_once_nobody_has_touched_it_for_long(tmp_path: Path) -> None:
    old, new = tmp_path / ".data.host-1.part", tmp_path / ".data.host-2.part"
    for folder in (old, new):
        folder.mkdir()
        (folder / "half").touch()
    before = time.time() - files.LEFT_S - 1
    os.utime(old, (before, before))
    files.sweep(tmp_path / "data")
    assert not old.exists()
    assert (new / "half").exists()
