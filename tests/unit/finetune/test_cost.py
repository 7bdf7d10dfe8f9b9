"""The cost model against the shipped worker: bytes of tensors counted, files of a checkpoint measured."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from hgscale.errors import ConfigError
from hgscale.finetune.cost import COSTS
from hgscale.finetune.data.config import PlantedConfig, RelationDataConfig
from hgscale.finetune.task import FinetuneTask
from hgscale.finetune.work import _FinetuneWorker
from hgscale.models.config import EncoderConfig, VmhanConfig
from hgscale.train.config import EngineConfig, TrainConfig
from hgscale.train.loop import Place
from tests.unit.models.tiny import save_text_encoder
from tests.unit.train.counting import Alive, most_alive

WITHIN = 0.15
# All rows alike: the bound is met.
PLANTED = PlantedConfig(
    num_contexts=32, num_eval_contexts=8, min_entities=3, max_entities=3, min_distractors=2, max_distractors=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    save_text_encoder(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """One of its own, since tests that count the bytes of this one would count what engines leave behind."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def task_of(folder: Path, text: str = "full", vision: str | None = "full", **engine: Any) -> FinetuneTask:
    return FinetuneTask(
        data=RelationDataConfig(name="planted", root=str(folder / "planted"), planted=PLANTED),
        text=EncoderConfig(path=str(folder / "bert"), tuning=text, max_length=64),  # type: ignore[arg-type]
        vision=None if vision is None else EncoderConfig(path="scratch:resnet", tuning=vision),  # type: ignore[arg-type]
        model=VmhanConfig(hidden_size=128, top_objects=8),
        train=TrainConfig(num_steps=4, global_batch=16, learning_rate=1e-3, log_every=1, eval_every=2),
        engine=EngineConfig(**({"name": "torch"} | engine)),
    )


@pytest.mark.parametrize(
    ("text", "vision", "engine"),
    [
        ("full", "full", {}),
        ("frozen", "frozen", {}),
        ("lora", None, {}),
        ("full", "frozen", {"precision": "bf16"}),
        ("full", "full", {"name": "deepspeed", "zero_stage": 1}),
        ("frozen", "full", {"name": "deepspeed", "zero_stage": 2, "precision": "bf16"}),
    ],
    ids=str,
)
def test_bytes_of_a_worker_and_of_a_checkpoint_are_those_that_are_counted(
    folder, process, tmp_path, text, vision, engine
):
    task = task_of(folder, text, vision, **engine)
    held, written = process.submit(measured, task, tmp_path).result()
    assert process.submit(COSTS.worker_bytes, task, 1).result() == pytest.approx(held, rel=WITHIN)
    assert process.submit(COSTS.checkpoint_bytes, task).result() == pytest.approx(written, rel=WITHIN)


def measured(task: FinetuneTask, run_dir: Path) -> tuple[int, int]:
    """The most bytes of tensors in steps and evaluations, and those of a checkpoint's files."""
    with Alive() as others:  # of earlier calls; what of it is freed later, it takes off by itself
        pass
    worker = _FinetuneWorker(task, run_dir, torch.device("cpu"), None)
    worker.engine.module.train()

    def step(number: int) -> None:
        worker.engine.step(worker.micro_batches(number), 1e-3)

    step(0)
    worker.evaluate(1)
    held = max(most_alive(lambda: step(1)), most_alive(lambda: worker.evaluate(2))) - others.now
    worker.checkpoint(Place(2))
    files = (run_dir / "checkpoints").rglob("*")
    return held, sum(path.stat().st_size for path in files if path.is_file())


def test_what_takes_less_is_said_to_take_less(folder, process):
    def needed(num_workers: int = 1, **changes: Any) -> float:
        found = process.submit(COSTS.worker_bytes, task_of(folder, **changes), num_workers).result()
        assert found is not None
        return found

    assert needed(2) < needed(1)
    assert needed(vision="frozen") < needed()
    assert needed(2, name="deepspeed", zero_stage=2) < needed(2, name="deepspeed", zero_stage=1)
    task = task_of(folder, name="deepspeed", zero_stage=1)
    assert COSTS.smaller(task, 2) == "--train.micro_batch 4, or --engine.zero_stage 2, or --text.tuning frozen"
    assert COSTS.about(task) == "96 pairs in 32 contexts"


def test_machines_that_are_not_there_are_refused(folder):
    with pytest.raises(ConfigError, match=r"^assume=4x8xH200: only a pre-training is planned"):
        COSTS.planned(task_of(folder), "4x8xH200", 0.4)
