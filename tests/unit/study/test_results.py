"""A study's directory is read as it stands: what finished, failed or is missing, and nothing is made up."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hgscale.errors import ConfigError, DataError
from hgscale.study import results
from hgscale.study.results import read

Cell = dict[str, Any]


def write_study(directory: Path, cells: Iterable[Cell], **config: Any) -> Path:
    """A study's directory with these cells: axes, and variant, seed, summary, error or commit where they matter.

    A cell with a summary finished, one with an error failed, one with neither is missing.
    """
    directory.mkdir(parents=True)
    (directory / "study.yaml").write_text(yaml.safe_dump({"name": directory.name, **config}))
    lines = []
    for number, cell in enumerate(cells):
        name = cell.get("cell", f"{number:016x}")
        place = {"variant": cell.get("variant"), "axes": cell["axes"], "seed": cell.get("seed", 0)}
        lines.append(json.dumps({"cell": name, **place}))
        if "summary" not in cell and "error" not in cell:
            continue
        folder = directory / "cells" / name
        folder.mkdir(parents=True)
        ended = {"cell": name, "status": "FAILED" if "error" in cell else "FINISHED", "error": cell.get("error")}
        ended |= {"attempts": 1, "seconds": 3.0, "overhead_s": 0.2, "commit": cell.get("commit", "abc1234")}
        (folder / "cell.json").write_text(json.dumps({**ended, "finished": "2026-11-20T15:42:00+00:00"}))
        if "summary" in cell:
            (folder / "summary.json").write_text(json.dumps(cell["summary"]))
    (directory / "grid.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return directory


def law_summary(num_samples: int, num_edges: int, seed: int, factor: float = 1.0, **more: Any) -> dict[str, Any]:
    """The numbers of a cell on a world of equal weights, whose learned error is ``factor`` floors; 2% noise by seed."""
    noise = np.exp(0.02 * np.random.default_rng([seed, num_samples, num_edges]).standard_normal(2))
    floor = float(np.sqrt(2 * num_edges / (np.pi * num_samples)))
    learned, counting = floor * factor * float(noise[0]), floor * float(noise[1])
    numbers = {
        "recovery_l1": learned,
        "count_l1": counting,
        "count_floor_l1": floor,
        "ratio_to_floor": learned / floor,
        "ratio_to_count": learned / counting,
        "support_precision": 1.0,
        "support_recall": 1.0,
        "half_norm": float(num_edges),
        "num_samples": num_samples,
        "num_edges": num_edges,
        "num_parameters": 1000,
        "world_digest": f"world of {num_edges} edges, seed {seed}",
    }
    return numbers | more


def law_cells(
    samples: Iterable[int] = (1000, 3000, 10_000, 30_000),
    num_edges: int = 50,
    seeds: int = 5,
    variant: str | None = None,
    factor: float = 1.0,
    axes: Mapping[str, Any] | None = None,
    **more: Any,
) -> list[Cell]:
    """One curve over N of ``law_summary``."""
    return [
        {
            "variant": variant,
            "axes": {"samples.num_samples": n, **(axes or {})},
            "seed": seed,
            "summary": law_summary(n, num_edges, seed, factor, **more),
        }
        for n in samples
        for seed in range(seeds)
    ]


N = "samples.num_samples"


def test_a_cell_finished_failed_or_is_missing(tmp_path):
    cells = [
        {"axes": {N: 10}, "seed": 0, "summary": {"recovery_l1": 0.5}},
        {"axes": {N: 10}, "seed": 1, "error": "RunError: the loss is NaN"},
        {"axes": {N: 10}, "seed": 2},
    ]
    study = read(write_study(tmp_path / "small", cells, seeds=3))
    assert study.name == "small"
    assert study.config["seeds"] == 3
    assert [row.status for row in study.rows] == ["FINISHED", "FAILED", "MISSING"]
    assert [row.summary for row in study.rows] == [{"recovery_l1": 0.5}, {}, {}]
    assert [row.error for row in study.rows] == [None, "RunError: the loss is NaN", None]
    assert [row.commit for row in study.rows] == ["abc1234", "abc1234", None]
    assert [row.seed for row in study.rows] == [0, 1, 2]


def test_a_cell_whose_summary_was_taken_away_is_missing(tmp_path):
    directory = write_study(tmp_path / "s", [{"axes": {}, "summary": {"recovery_l1": 0.5}}])
    next(directory.glob("cells/*/summary.json")).unlink()
    assert read(directory).rows[0].status == "MISSING"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("variant", "gnm"),
        ("seed", 3),
        (N, 1000),
        ("num_samples", 1000),
        ("world.num_edges", 245),  # no axis: the summary's
        ("num_edges", 245),
        ("model.hidden_size", 64),
        ("train.num_steps", 700),  # an axis that is null speaks through the summary
        ("capacity_bits", None),
        ("nonsense", None),
    ],
)
def test_a_name_is_an_axis_or_else_a_field_of_the_summary(tmp_path, name, expected):
    axes = {N: 1000, "model.hidden_size": 64, "train.num_steps": None}
    summary = {"num_samples": 999, "num_edges": 245, "num_steps": 700, "capacity_bits": None}
    directory = write_study(tmp_path / "s", [{"variant": "gnm", "axes": axes, "seed": 3, "summary": summary}])
    assert read(directory).rows[0].value(name) == expected


def test_a_directory_without_a_study_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no study.*hgscale study"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("study.yaml", "a: [", "study.yaml: not YAML"),
        ("study.yaml", "- 1", "study.yaml: holds"),
        ("grid.jsonl", '{"cell": "0"}', "grid.jsonl: line 1 is"),
        ("cells/0000000000000000/cell.json", '{"status": ', "cell.json: cannot be read"),
        ("cells/0000000000000000/cell.json", "[]", "cell.json: holds no JSON object"),
        ("cells/0000000000000000/cell.json", '{"status": "DONE"}', "status is 'DONE'"),
        ("cells/0000000000000000/summary.json", "half", "summary.json: cannot be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path, file, content, complaint):
    directory = write_study(tmp_path / "s", [{"axes": {}, "summary": {"recovery_l1": 0.5}}])
    (directory / file).write_text(content)
    with pytest.raises(DataError, match=complaint):
        read(directory)


def git(folder: Path, *args: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of where the code thinks it lies, in a repository of its own."""
    folder = tmp_path / "repository" / "hgscale"
    (folder / "study").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(results, "__file__", str(folder / "study" / "results.py"))
    git(folder.parent, "init", "-q")
    return folder


def test_the_commit_says_whether_files_were_changed(package):
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "first")
    name = git(package, "rev-parse", "--short", "HEAD").strip()
    assert results.commit() == name
    (package / "new.py").write_text("")  # not part of the code until it is added
    assert results.commit() == name
    (package / "__init__.py").write_text("changed = True")
    assert results.commit() == f"{name}-dirty"


def test_there_is_no_commit_inside_a_repository_that_does_not_know_the_package(package):
    (package.parent / "theirs.txt").write_text("")
    git(package.parent, "add", "theirs.txt")
    git(package.parent, "commit", "-q", "-m", "theirs")
    assert results.commit() is None


def test_there_is_no_commit_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert results.commit() is None
