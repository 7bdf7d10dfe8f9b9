"""The planner against the shipped model and engine: parameters exact, bytes and operations counted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hgscale import config as configs
from hgscale.data.masking import Masker, ObjectiveConfig
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import EdgeSampler, Hypergraph
from hgscale.models.build import build_model
from hgscale.models.config import ModelConfig
from hgscale.models.losses import MaskedLoss
from hgscale.pretrain import cost as plan
from hgscale.pretrain.run import PretrainConfig
from hgscale.train.config import EngineConfig
from hgscale.train.engine import make_engine
from tests.bench import bench_plan
from tests.unit.train.counting import kept_bytes

REPO = Path(__file__).parents[3]
LARGE = REPO / "configs/pretrain/large.yaml"
WITHIN = 0.15

MODELS = {
    "plain": {"hidden_size": 32},
    "deep, its own inner width": {"hidden_size": 16, "num_hidden_layers": 3, "config": {"intermediate_size": 24}},
    "narrow tables": {"hidden_size": 32, "config": {"embedding_size": 8}},
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_counted_exactly(name: str):
    world = Hypergraph.from_edges([[0, 1], [1, 2, 3], [0, 2, 3, 4, 5]], [1, 1, 1], num_nodes=9)
    model = build_model(ModelConfig(**MODELS[name]), world, seed=0)
    shape = plan.Shape.of(ModelConfig(**MODELS[name]), world)
    assert shape.num_parameters == sum(p.numel() for p in model.parameters())
    assert shape.num_layers * shape.block_parameters == sum(p.numel() for p in model.blocks.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_that_torch_counts(checkpointing: bool, monkeypatch: pytest.MonkeyPatch):
    # 50 contexts of 400 logits, 16 at a time: the last product of each layer is the only one not computed twice.
    model = ModelConfig(
        hidden_size=32, num_hidden_layers=3, activation_checkpointing=checkpointing, config={"embedding_size": 8}
    )
    world = bench_plan.world_of(400, 3)
    monkeypatch.setattr(plan, "MAX_LOGITS", 16 * 400)
    shape = plan.Shape.of(model, world)
    batch = plan.Batch.worst(shape, ObjectiveConfig(), 75)
    loss = MaskedLoss(build_model(model, world, seed=0), max_logits=16 * 400).train()
    with FlopCounterMode(display=False) as counter:
        loss(bench_plan.batch_of(400, 3, 75)).backward()
    assert plan.work(shape, batch, EngineConfig()).flops == pytest.approx(counter.get_total_flops(), rel=WITHIN)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_activations_are_what_is_alive_behind_the_forward_pass(size: int, checkpointing: bool):
    model = ModelConfig(hidden_size=64, num_hidden_layers=4, activation_checkpointing=checkpointing)
    world = bench_plan.world_of(5000, size)
    shape = plan.Shape.of(model, world)
    batch = plan.Batch.worst(shape, ObjectiveConfig(), 600)
    encoder = build_model(model, world, seed=0).train()
    bucket = bench_plan.batch_of(5000, size, 600).buckets[0]
    measured = kept_bytes(lambda: encoder.hidden([bucket.visible], [bucket.num_masked]))
    kept, _ = plan.activations(shape, batch, EngineConfig())
    assert kept == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("case", bench_plan.QUICK)
def test_memory_of_a_step_is_what_is_alive_at_its_most(case: str):
    assert bench_plan.predicted_memory(case).total == pytest.approx(bench_plan.measured_memory(case), rel=WITHIN)


def test_memory_of_a_step_of_zero_3_is_what_is_alive_at_its_most():
    case = "zero 3 bf16, twin"
    assert bench_plan.predicted_memory(case).total == pytest.approx(bench_plan.beside(case, 1), rel=WITHIN)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("case", [name for name in bench_plan.CASES if name.startswith("zero") and "twin" in name])
def test_memory_of_a_worker_of_every_stage_is_what_is_alive_at_its_most(case: str, num_workers: int):
    measured = bench_plan.beside(case, num_workers)
    assert bench_plan.predicted_memory(case, num_workers).total == pytest.approx(measured, rel=WITHIN)


def test_a_real_batch_has_no_more_contexts_than_the_worst():
    world = Hypergraph.from_edges([[i, i + 1, i + 2] for i in range(500)], [1] * 500, num_nodes=502)
    model = ModelConfig(hidden_size=16)
    masker = Masker(EdgeSampler(world, 0), ObjectiveConfig())
    ids = torch.arange(300).numpy()
    real = sum(len(bucket.visible) for bucket in masker.batch(ids, 0 * ids).buckets)
    worst = plan.Batch.worst(plan.Shape.of(model, world), ObjectiveConfig(), 300)
    # A third of the samples hide all: 300 draws of a chance of 1/3 are within 5 deviations of 8.
    assert real <= worst.contexts + 40


def large(**overrides: object) -> PretrainConfig:
    return configs.load(PretrainConfig, LARGE, **overrides)


def test_large_yaml_is_about_a_billion_parameters_over_ten_million_entities_and_fits():
    config = large()
    planned = plan.plan(config, plan.Machines.parse("4x8xH200"))
    assert config.world.num_nodes == 10_000_000
    assert planned.shape.num_parameters == pytest.approx(1e9, rel=0.05)
    assert (config.engine.zero_stage, config.engine.precision) == (3, "bf16")
    assert config.model.activation_checkpointing
    assert planned.fits


def test_the_header_of_large_yaml_is_what_the_planner_says():
    header = [line.removeprefix("# ").rstrip() for line in LARGE.read_text().splitlines() if line.startswith("#")]
    said = plan.plan(large(), plan.Machines.parse("4x8xH200")).text().splitlines()
    assert [line.strip() for line in said] == [line.strip() for line in header[-len(said) :]]


def test_more_workers_take_less_memory_each_and_less_time():
    plans = [plan.plan(large(), plan.Machines.parse(text)) for text in ("1x8xH100", "2x8xH100", "8x8xH100")]
    assert plans[0].memory.total > plans[1].memory.total > plans[2].memory.total
    assert plans[0].compute_s > plans[1].compute_s > plans[2].compute_s


def test_what_does_not_fit_is_told_with_settings_that_do():
    wide = large(model__config={"embedding_size": 512}, engine__zero_stage=0)
    machines = plan.Machines.parse("1x8xH100")
    assert not plan.plan(wide, machines).fits
    ways = plan.plan(wide, machines).remedies()
    assert "--engine.zero_stage 3" in ways
    stage = replace(wide, engine=replace(wide.engine, zero_stage=3))
    assert plan.plan(stage, machines).fits


def test_zero_3_puts_the_table_together_as_often_for_many_chunks_as_for_one():
    """Chunks come in changing numbers, which DeepSpeed cannot foresee: each used to gather the table anew."""
    model = build_model(ModelConfig(hidden_size=32), bench_plan.world_of(9000, 3), seed=0)  # above its 1e5 for sharing
    engine = make_engine(
        EngineConfig(zero_stage=3), MaskedLoss(model, max_logits=4 * 9000), micro_batch=60, num_micro=1, device="cpu"
    )
    engine.module.train()
    table, shared_out = model.decoder.linear.weight, []
    partition = table.partition
    table.partition = lambda *args, **kwargs: (shared_out.append(1), partition(*args, **kwargs))[1]
    counts = []
    for num_samples in (60, 30, 48, 24):  # 11, 6, 9, 5 chunks
        shared_out.clear()
        engine.step([bench_plan.batch_of(9000, 3, num_samples)], 1e-3)
        counts.append(len(shared_out))
    assert max(counts) <= 2  # after the way there, and after the way back


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4x8", "4x8xH200"),
        ("4x8xH900", "A100, H100, H200, B200, L40S"),
        ("0x8xH200", "above 0"),
        ("-1x8xH200", "above 0"),
        ("axbxH200", "4x8xH200"),
        ("", "4x8xH200"),
    ],
)
def test_machines_that_mean_nothing_are_refused(text: str, words: str):
    with pytest.raises(ConfigError) as error:
        plan.Machines.parse(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_other_models_are_not_planned():
    with pytest.raises(ConfigError, match="only set_encoder is planned"):
        plan.plan(large(model__name="bert", model__config={}), plan.Machines.parse("1x1xH100"))
