"""Whatever interrupts a write or damages a file, a run finds the newest whole checkpoint, or none."""

import json
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hgscale.errors import ConfigError, RunError
from hgscale.train import checkpoint

FACTS: dict[str, Any] = {"fingerprint": "aa11", "world_size": 1, "cursor": 4096, "rng_keys": {"masks": 2**64 - 1}}


def alone() -> None:
    """The barrier of a single worker."""


def saver(text: str) -> Callable[[Path], None]:
    """Saves two files, one of them in a folder, as DeepSpeed does."""

    def save(directory: Path) -> None:
        (directory / "deepspeed").mkdir(exist_ok=True)
        (directory / "engine.json").write_text("{}")
        (directory / "deepspeed" / "state.pt").write_text(text)

    return save


def write(root: Path, step: int, keep: int = 9, facts: dict[str, Any] = FACTS) -> Path:
    checkpoint.write(root, step, facts, saver(f"weights of {step}"), rank=0, barrier=alone, keep=keep)
    return root / f"step-{step:08d}"


def newest_step(root: Path) -> tuple[int | None, list[str]]:
    found, skipped = checkpoint.newest(root, "aa11")
    return (found.step if found else None), skipped


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 10 and 20."""
    write(tmp_path, 10)
    write(tmp_path, 20)
    return tmp_path


def test_what_was_written_is_found_with_its_facts_and_versions(two: Path) -> None:
    found, skipped = checkpoint.newest(two, "aa11")
    assert found is not None
    assert skipped == []
    assert (found.step, found.world_size, found.fingerprint) == (20, 1, "aa11")
    assert {name: found.facts[name] for name in FACTS} == FACTS
    assert {"python", "torch", "deepspeed"} <= found.facts["versions"].keys()
    assert (found.path / "deepspeed" / "state.pt").read_text() == "weights of 20"


def test_the_manifest_holds_the_sha256_and_size_of_every_file(two: Path) -> None:
    files = json.loads((two / "step-00000010" / "manifest.json").read_text())["content"]["files"]
    # `printf 'weights of 10' | sha256sum`
    expected = "ed0f57cce9a8eb0c275e4b0ef0cc66949edc83364cfef5cfa3ec008e4f4e6427"
    assert files["deepspeed/state.pt"] == {"sha256": expected, "size": 13}
    assert sorted(files) == ["deepspeed/state.pt", "engine.json"]


def test_no_folder_means_no_checkpoint(tmp_path: Path) -> None:
    assert newest_step(tmp_path / "none") == (None, [])
    assert checkpoint.sweep(tmp_path / "none") == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def add_beside(path: Path) -> None:
    (path.parent / "one_more.pt").write_text("")


def lose_a_digit(path: Path) -> None:
    path.write_text(path.read_text().replace("4096", "409"))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("deepspeed/state.pt", flip, r"sha256 of deepspeed/state\.pt is \w{8}\.\.\., manifest says \w{8}\.\.\."),
        ("deepspeed/state.pt", truncate, r"deepspeed/state\.pt has 10 bytes, manifest says 13"),
        ("engine.json", Path.unlink, r"engine\.json is missing"),
        ("deepspeed/state.pt", add_beside, r"deepspeed/one_more\.pt is not in the manifest"),
        ("manifest.json", Path.unlink, r"half-written: no manifest"),
        ("manifest.json", truncate, r"manifest\.json cannot be read \(JSONDecodeError: "),
        ("manifest.json", lambda path: path.write_text("[]"), r"manifest\.json cannot be read \(TypeError: "),
        ("manifest.json", lose_a_digit, r"sha256 of manifest\.json is"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_its_reason_and_swept(
    two: Path, name: str, damage: Callable[[Path], object], reason: str
) -> None:
    last = two / "step-00000020"
    damage(last / name)
    step, skipped = newest_step(two)
    assert step == 10
    assert len(skipped) == 1
    assert re.fullmatch(rf".*step-00000020: {reason}.*; the previous one, step 10, is used", skipped[0])
    assert checkpoint.sweep(two) == [last]
    assert newest_step(two) == (10, [])


def test_when_all_are_damaged_the_run_starts_anew(two: Path) -> None:
    for path in two.glob("step-*"):
        (path / "manifest.json").unlink()
    step, skipped = newest_step(two)
    assert step is None
    assert [line.endswith("no manifest; no earlier one, the run starts anew") for line in skipped] == [True, True]


def test_a_renamed_checkpoint_is_none(two: Path) -> None:
    (two / "step-00000020").rename(two / "step-00000030")
    assert newest_step(two)[0] == 10


def test_a_crash_while_saving_leaves_the_previous_one(two: Path) -> None:
    def crash(directory: Path) -> None:
        (directory / "state.pt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(two, 30, FACTS, crash, rank=0, barrier=alone)
    step, skipped = newest_step(two)
    assert step == 20
    assert ".step-00000030.part: half-written: no manifest" in skipped[0]
    assert checkpoint.sweep(two) == [two / ".step-00000030.part"]


def test_a_crash_between_the_rename_and_the_manifest_leaves_the_previous_one(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write(two, 30, keep=1)
    assert (two / "step-00000030" / "deepspeed" / "state.pt").exists()
    step, skipped = newest_step(two)
    assert step == 20
    assert "step-00000030: half-written: no manifest" in skipped[0]
    write(two, 30)  # the resumed run comes here again
    assert newest_step(two) == (30, [])


def test_a_full_disk_is_told_and_leaves_the_previous_one(two: Path) -> None:
    def fill(directory: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"checkpoint of step 30 could not be written: .*No space left.*and run again"):
        checkpoint.write(two, 30, FACTS, fill, rank=0, barrier=alone)
    assert newest_step(two)[0] == 20


def test_facts_that_are_no_json_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write(tmp_path / "new", 10, facts=FACTS | {"cursor": Path("x")})
    assert not (tmp_path / "new").exists()


def test_only_the_newest_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "step-final").mkdir()
    for step in (5, 10, 123_456_789, 20):
        write(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes",
        "step-00000020",
        "step-123456789",
        "step-final",
    ]
    assert checkpoint.sweep(tmp_path) == []


def test_half_written_ones_do_not_count_as_kept(two: Path) -> None:
    (two / "step-00000020" / "manifest.json").unlink()
    write(two, 30, keep=2)
    assert checkpoint.sweep(two) == [two / "step-00000020"]
    assert sorted(path.name for path in two.iterdir()) == ["step-00000010", "step-00000030"]


def test_a_step_written_again_is_replaced(two: Path) -> None:
    checkpoint.write(two, 20, FACTS, saver("other"), rank=0, barrier=alone)
    found, _ = checkpoint.newest(two, "aa11")
    assert found is not None
    assert (found.path / "deepspeed" / "state.pt").read_text() == "other"


def test_a_checkpoint_of_another_fingerprint_is_refused_naming_both(two: Path) -> None:
    with pytest.raises(ConfigError, match=r"step-00000020: .*fingerprint aa11, this one has bb22: .*--run_dir"):
        checkpoint.newest(two, "bb22")


def test_hidden_files_of_the_file_system_do_no_harm(two: Path) -> None:
    (two / "step-00000020" / "deepspeed" / ".nfs0001").write_text("")
    assert newest_step(two) == (20, [])


@pytest.mark.parametrize("place", [".", "..", "step-00000020", "step-00000020/deepspeed/state.pt"])
def test_a_checkpoint_that_every_user_can_write_is_refused_with_the_repair(tmp_path: Path, place: str) -> None:
    root = tmp_path / "run" / "checkpoints"
    write(root, 20)
    path = root / place
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(
        ConfigError, match=r"every user can write it \(mode \d{3}\).*`chmod -R o-w \S+/run` and run"
    ) as told:
        newest_step(root)
    subprocess.run(shlex.split(re.findall("`(.*)`", str(told.value))[0]), check=True)
    assert newest_step(root) == (20, [])


def test_a_sticky_folder_may_be_shared(two: Path) -> None:
    two.chmod(0o1777)
    assert newest_step(two) == (20, [])


def test_a_checkpoint_of_another_user_is_refused(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two / "step-00000020" / "engine.json"
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match=r"belongs to user \d+, and this process to user \d+; .* `chown -R \d+ "):
        newest_step(two)


def test_whatever_the_umask_nobody_else_can_write_a_checkpoint(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "checkpoints", 20)
    finally:
        os.umask(before)
    assert newest_step(tmp_path / "checkpoints") == (20, [])


def convert(source: Path, target: Path) -> None:
    (target / "whole.pt").write_text((source / "deepspeed" / "state.pt").read_text())


def test_the_universal_form_is_found_only_by_another_number_of_workers(two: Path) -> None:
    found, _ = checkpoint.find(two, "aa11", 2)
    assert found is not None
    assert found.path.name == "step-00000020"
    checkpoint.write_universal_form(found, convert)
    for world_size, name in ((1, "step-00000020"), (2, "step-00000020.universal")):
        found, complaints = checkpoint.find(two, "aa11", world_size)
        assert found is not None
        assert (found.path.name, found.step, found.world_size, complaints) == (name, 20, 1, [])
        assert found.facts["cursor"] == 4096


def test_the_universal_form_of_an_overwritten_checkpoint_does_not_count(two: Path) -> None:
    found, _ = checkpoint.newest(two, "aa11")
    assert found is not None
    checkpoint.write_universal_form(found, convert)
    assert checkpoint.sweep(two) == []
    checkpoint.write(two, 20, FACTS, saver("other"), rank=0, barrier=alone)
    found, _ = checkpoint.find(two, "aa11", 2)
    assert found is not None
    assert found.path.name == "step-00000020"
    assert checkpoint.sweep(two) == [two / "step-00000020.universal"]


def test_a_universal_form_goes_with_its_checkpoint(two: Path) -> None:
    found, _ = checkpoint.newest(two, "aa11")
    assert found is not None
    checkpoint.write_universal_form(found, convert)
    write(two, 30, keep=2)
    assert sorted(path.name for path in two.iterdir()) == ["step-00000020", "step-00000020.universal", "step-00000030"]
    write(two, 40, keep=2)
    assert sorted(path.name for path in two.iterdir()) == ["step-00000030", "step-00000040"]


def test_a_full_disk_in_a_conversion_is_told_and_leaves_the_checkpoint(two: Path) -> None:
    def fill(source: Path, target: Path) -> None:
        (target / "half.pt").write_text("half")
        raise OSError(28, "No space left on device")

    found, _ = checkpoint.newest(two, "aa11")
    assert found is not None
    with pytest.raises(
        RunError, match=r"step-00000020: could not be converted .*No space left.*cluster\.num_workers=1"
    ):
        checkpoint.write_universal_form(found, fill)
    assert checkpoint.universal_form(found) is None
    assert newest_step(two) == (20, [])
    assert checkpoint.sweep(two) == [two / ".step-00000020.universal.part"]


def test_every_rank_saves_and_rank_0_commits_once(tmp_path: Path) -> None:
    meet = threading.Barrier(3, timeout=20)
    facts = FACTS | {"world_size": 3}

    def barrier() -> None:
        meet.wait()

    def work(rank: int) -> None:
        def save(directory: Path) -> None:
            (directory / f"rank-{rank}.pt").write_text(f"{rank}")

        for step in (10, 20, 30):
            checkpoint.write(tmp_path, step, facts, save, rank=rank, barrier=barrier, keep=2)

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=20)
    found, skipped = checkpoint.newest(tmp_path, "aa11")
    assert found is not None
    assert (found.step, found.world_size, skipped) == (30, 3, [])
    names = sorted(path.name for path in found.path.iterdir())
    assert names == ["manifest.json", "rank-0.pt", "rank-1.pt", "rank-2.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
