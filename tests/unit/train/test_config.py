"""What of a training's settings decides numbers, and what an engine has no use for."""

import json
from typing import Any

import pytest

from hgscale.errors import ConfigError
from hgscale.train.config import EngineConfig, TrainConfig


@pytest.mark.parametrize("looks", [{"log_every": 7}, {"eval_every": 3}, {"checkpoint_every": 9}])
def test_how_often_a_run_is_looked_at_decides_nothing(looks: dict[str, Any]) -> None:
    assert TrainConfig(**looks).decides() == TrainConfig().decides()


@pytest.mark.parametrize(
    "numbers",
    [
        {"num_steps": 7},
        {"global_batch": 16},
        {"micro_batch": 8},
        {"learning_rate": 0.1},
        {"warmup_frac": 0.2},
        {"decay": "cosine"},
        {"seed": 1},
    ],
)
def test_every_other_setting_decides(numbers: dict[str, Any]) -> None:
    assert TrainConfig(**numbers).decides() != TrainConfig().decides()


def test_a_deepspeed_file_counts_by_its_content_and_not_by_its_place(tmp_path) -> None:
    def decides(name: str, content: dict[str, Any]) -> dict[str, Any]:
        (tmp_path / name).write_text(json.dumps(content))
        return EngineConfig(deepspeed_config=str(tmp_path / name)).decides()

    assert decides("a.json", {"x": 1}) == decides("b.json", {"x": 1})
    assert decides("a.json", {"x": 2}) != decides("b.json", {"x": 1})
    assert decides("a.json", {"x": 1}) != EngineConfig().decides()


@pytest.mark.parametrize(("content", "line"), [("{", "not readable as JSON"), ("[1]", "holds a list; a JSON object")])
def test_a_deepspeed_file_that_is_none_is_one_line(tmp_path, content, line) -> None:
    (tmp_path / "ds.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"engine\.deepspeed_config=.*ds\.json: {line}"):
        EngineConfig(deepspeed_config=str(tmp_path / "ds.json")).decides()


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_zero_stage_is_refused_where_plain_torch_would_ignore_it(stage) -> None:
    with pytest.raises(ConfigError) as refusal:
        EngineConfig(name="torch", zero_stage=stage)
    line = f"engine.zero_stage={stage} has no meaning with engine.name=torch; leave it out, or change engine.name"
    assert str(refusal.value) == line
    assert EngineConfig(name="torch", zero_stage=1) == EngineConfig(name="torch")
