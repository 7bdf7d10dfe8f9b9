"""The log of a training: what is written is read, once, through crashes and rewinds."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from hgscale.errors import DataError, RunError
from hgscale.train.runlog import Offset, RunLog, read_all, read_new


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "log.jsonl"


def write_steps(path: Path, *steps: int) -> RunLog:
    log = RunLog(path)
    for step in steps:
        log.append(step, loss=1 / (1 + step))
    return log


def steps_of(records: list) -> list[int]:
    return [record["step"] for record in records]


def test_a_record_is_one_line_of_json_readable_at_once(path):
    RunLog(path).append(3, loss=np.float32(0.5), num_edges=7, **{"eval/l1": 0.25})
    (line,) = path.read_text().splitlines()
    record = json.loads(line)
    assert record.pop("time") > 1.7e9
    assert record == {"step": 3, "loss": 0.5, "num_edges": 7, "eval/l1": 0.25}
    assert isinstance(record["num_edges"], int)


def test_a_loss_that_is_not_a_number_is_kept(path):
    RunLog(path).append(1, loss=float("nan"))
    assert math.isnan(read_all(path)[0]["loss"])


def test_a_log_that_is_not_there_yet_has_no_records(path):
    assert read_all(path) == []
    assert read_new(path) == ([], Offset())


@pytest.mark.parametrize(("checkpoint", "kept"), [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_rewind_drops_the_steps_after_the_checkpoint(path, checkpoint, kept):
    log = write_steps(path, 1, 2, 3)
    log.rewind(checkpoint)
    assert steps_of(read_all(path)) == kept
    log.append(checkpoint + 1, loss=0.0)
    assert steps_of(read_all(path)) == [*kept, checkpoint + 1]
    assert list(path.parent.iterdir()) == [path]  # no temporary file stays


def test_a_line_torn_by_a_crash_is_skipped_by_readers_and_cut_off_by_the_next_writer(path):
    write_steps(path, 1, 2).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 3, "ti')
    assert steps_of(read_all(path)) == [1, 2]
    log = RunLog(path)
    assert path.read_bytes() == whole
    log.append(3, loss=0.0)
    assert steps_of(read_all(path)) == [1, 2, 3]


def test_a_file_that_is_nothing_but_a_torn_line_becomes_empty(path):
    path.parent.mkdir()
    path.write_bytes(b'{"step"')
    RunLog(path)
    assert path.read_bytes() == b""


def test_tailing_gives_each_record_once_and_waits_for_the_end_of_a_line(path):
    log = write_steps(path, 1, 2)
    records, offset = read_new(path)
    assert steps_of(records) == [1, 2]
    assert read_new(path, offset) == ([], offset)
    log.append(3, loss=0.0)
    line = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(path.read_bytes() + b'{"step": 4, ')
    records, offset = read_new(path, offset)
    assert steps_of(records) == [3]
    assert offset.last_line == line
    path.write_bytes(path.read_bytes() + b'"time": 1.0}\n')
    assert steps_of(read_new(path, offset)[0]) == [4]


@pytest.mark.parametrize("num_after", [0, 1, 2, 3, 40])
def test_after_a_rewind_a_tail_starts_over_even_if_the_file_has_grown_past_it(path, num_after):
    log = write_steps(path, *range(10))
    _, offset = read_new(path)
    log.rewind(7)
    for step in range(8, 8 + num_after):
        # The very steps and losses of before: only the time of writing can tell the files apart.
        path.write_bytes(
            path.read_bytes() + json.dumps({"step": step, "time": 1.5, "loss": 1 / (1 + step)}).encode() + b"\n"
        )
    records, _ = read_new(path, offset)
    assert steps_of(records) == list(range(8 + num_after))


def test_a_rewind_that_drops_nothing_does_not_disturb_a_tail(path):
    log = write_steps(path, 1, 2)
    _, offset = read_new(path)
    log.rewind(2)
    log.append(3, loss=0.0)
    assert steps_of(read_new(path, offset)[0]) == [3]


@pytest.mark.parametrize("line", ["garbage", "[1]", '{"loss": 1.0}', '{"step": "4", "time": 1}', '{"step": 4}'])
def test_a_line_that_is_not_a_record_is_refused_by_name(path, line):
    write_steps(path, 1)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"log\.jsonl: .* is not a record"):
        read_all(path)


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written.*--run_dir"):
        RunLog(tmp_path / "file" / "log.jsonl")


def test_a_full_disk_is_told_in_one_line(path, monkeypatch):
    log = RunLog(path)
    log.close()
    log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - a device on which every write is refused
    with pytest.raises(RunError, match="No space left"):
        log.append(1, loss=0.0)


def test_sync_asks_the_disk_for_the_log_itself(path, monkeypatch):
    log, synced = write_steps(path, 1), []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    log.sync()
    assert synced == [str(path)]
