import re
from dataclasses import replace
from pathlib import Path

import pytest

from hgscale import config as configs
from hgscale.errors import ConfigError
from hgscale.finetune.data.config import PlantedConfig, RelationDataConfig
from hgscale.finetune.run import FinetuneConfig
from hgscale.finetune.task import FinetuneTask
from hgscale.models.config import EncoderConfig
from tests.unit.models.tiny import save_text_encoder

TASK = FinetuneTask()


def test_a_repetition_has_files_of_its_own():
    task = configs.with_fields(TASK, {"data.root": "made/{seed}", "model.init_from": "pretrained-{seed}"})
    seeded = task.with_seed_in_paths(7)
    assert (seeded.data.root, seeded.model.init_from) == ("made/7", "pretrained-7")
    assert TASK.with_seed_in_paths(7) == TASK


def test_a_fresh_task_is_the_same_training_and_holds_no_data(tmp_path):
    planted = PlantedConfig(num_contexts=4, num_eval_contexts=2)
    text = EncoderConfig(path=str(save_text_encoder(tmp_path / "bert")))
    task = FinetuneTask(data=RelationDataConfig(name="planted", planted=planted), text=text)
    assert len(task.relations.train) == 4
    fresh = task.fresh()
    assert fresh.fingerprint() == task.fingerprint()
    assert "relations" in vars(task)
    assert "relations" not in vars(fresh)


def test_a_fresh_task_finds_planted_data_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("HGSCALE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    root = TASK.fresh().data.root
    assert root is not None
    assert Path(root).parent == tmp_path / "runs/planted"


def test_every_field_that_names_a_place_is_marked():
    assert configs.path_fields(FinetuneConfig) == {
        **dict.fromkeys(("data.root", "data.images", "data.boxes", "model.init_from"), "reads"),
        **dict.fromkeys(("text.path", "vision.path"), "named"),
        "engine.deepspeed_config": "reads",
        "write_world": "writes",
        "run_dir": "result",
    }


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"text.num_tuned_layers": 3}, "encoder.num_tuned_layers=3 has no meaning with encoder.tuning=full"),
        ({"text.lora_rank": 3}, "encoder.lora_rank=3 has no meaning with encoder.tuning=full"),
        (
            {"text.tuning": "frozen", "text.learning_rate": 1e-3},
            "encoder.learning_rate=0.001 has no meaning with encoder.tuning=frozen",
        ),
        ({"text.markers": False, "text.opening": "<"}, "encoder.opening=< has no meaning with encoder.markers=false"),
        ({"vision": {"path": "scratch:vit", "pool": "first"}}, "vision.pool=first has no meaning with vision.path="),
        ({"model.variational": False, "model.weight_kl": 0.1}, "model.weight_kl=0.1 has no meaning with"),
        ({"model.objects": False, "model.top_objects": 2}, "model.top_objects=2 has no meaning with"),
        ({"model.weight_reconstruction": 0.0, "model.reconstruct": "incidence"}, "model.reconstruct=incidence has no"),
        ({"data.name": "mnre", "data.planted.mode": "names"}, "data.planted.mode=names has no meaning with data.name="),
        ({"data.name": "mnre", "data.broken_images": "absent"}, "data.broken_images=absent has no meaning with"),
        ({"data.planted.num_names": 50}, "data.planted.num_names=50 has no meaning with data.planted.mode=ambiguous"),
        ({"data.planted.mode": "names", "data.planted.image_size": 32}, "data.planted.image_size=32 has no meaning"),
        ({"data.planted.mode": "three_way", "data.planted.hidden_frac": 0.1}, "data.planted.hidden_frac=0.1 has no"),
        ({"data.planted.num_decoys": 2}, "data.planted.num_decoys=2 has no meaning with data.planted.mode=ambiguous"),
    ],
)
def test_a_field_that_would_be_ignored_is_refused(changes, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)) as refused:
        configs.with_fields(TASK, changes)
    assert "\n" not in str(refused.value)


def test_a_field_that_has_its_default_is_never_refused():
    assert replace(TASK.text, tuning="frozen").lora_rank == 8
    assert RelationDataConfig(name="mnre").planted == PlantedConfig()
