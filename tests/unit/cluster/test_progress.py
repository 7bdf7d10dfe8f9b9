"""Progress: a bar on a terminal, one line per interval elsewhere."""

import sys
from typing import Any

import pytest

from hgscale.cluster import progress as module
from hgscale.cluster.progress import Progress, of_training, say_attempt, show_records
from hgscale.train.config import TrainConfig


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_is_written_once_an_interval_has_passed(clock, capsys) -> None:
    progress = Progress("study", 9)
    for seconds in (1, 14, 16, 20, 40):
        clock[0] = 1000.0 + seconds
        progress.show(seconds, "beside", f"at {seconds}")
    progress.show(9, "beside", "the end", now=True)
    assert capsys.readouterr().err.splitlines() == ["at 16", "at 40", "the end"]


def test_on_a_terminal_there_is_a_bar_and_no_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("study", 9, done=2, unit="cell") as progress:
        progress.show(4, "running 3, failed 0", "a line", now=True)
        progress.say("a word")
    err = capsys.readouterr().err
    assert "4/9" in err
    assert "running 3, failed 0" in err
    assert "hgscale: a word" in err
    assert "a line" not in err
    assert Progress("study", 9, done=9).bar is None


RECORD: dict[str, Any] = {
    "step": 30, "loss": 2.31412, "learning_rate": 3e-4, "samples_per_s": 1000.0, "wait_frac": 0.0134, "mem_gib": 1.5,
}  # fmt: skip


def test_of_a_training_the_first_record_the_last_and_one_an_interval_are_written(clock, capsys) -> None:
    train = TrainConfig(num_steps=90, global_batch=1000)
    progress = of_training(train, "pretrain")
    show_records(progress, [RECORD | {"step": 10}, RECORD, {"step": 30, "eval/l1": 0.1}], train, "pretrain")
    show_records(progress, [RECORD | {"step": 40}], train, "pretrain")
    show_records(progress, [], train, "pretrain")
    show_records(progress, [RECORD | {"step": 90}], train, "pretrain")
    first, last = capsys.readouterr().err.splitlines()
    said = "pretrain step=30/90 loss=2.3141 lr=3.0e-04 samples_per_s=1000 wait_frac=0.013 mem_gib=1.50 left_min=1.0"
    assert first.partition(" ")[2] == said
    assert "step=90/90" in last


def test_an_attempt_says_what_it_could_not_use_and_where_it_goes_on(capsys) -> None:
    say_attempt(Progress("pretrain", 9), {"complaints": ["a: torn"], "start_step": 20})
    say_attempt(Progress("pretrain", 9), {"complaints": [], "start_step": 0})
    lines = ["hgscale: a: torn", "hgscale: going on from the checkpoint at step 20"]
    assert capsys.readouterr().err.splitlines() == lines
