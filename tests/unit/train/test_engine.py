"""Both engines against a plain training loop, and what they promise beside it. Workers are this file run as a script.

Axes: B samples of the global batch, b of a micro batch, s slots of a sample.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hgscale.errors import ConfigError, DataError, RunError
from hgscale.train import engine as engines
from hgscale.train.config import EngineConfig
from hgscale.train.deepspeed_json import deepspeed_settings
from hgscale.train.engine import Engine, make_engine

NUM_STEPS_SAVED, GLOBAL_BATCH, NUM_MICRO, VOCABULARY, NUM_SLOTS, WIDTH = 3, 16, 2, 12, 3, 8
LEARNING_RATES, LR_SCALE = (0.05, 0.1, 0.1, 0.05, 0.02), 0.25
NUM_STEPS = len(LEARNING_RATES)
COMMON: dict[str, Any] = {"clip_norm": 0.3, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 0.1}
# Sums in another order change a gradient by some 1e-6 of itself (a few dozen additions at 2^-24). The gradient is
# clipped to 0.3 and AdamW's slope in it is at most learning rate / eps = 1, so five steps move a weight by less than
# 5e-6, and the loss, whose gradient has norm 1 to 3, by about as much.
TOLERANCE = 1e-5
# bf16 rounds to 2^-9 = 0.002: a handful of layers, one after the other.
TOLERANCE_BF16 = 0.01

CASES: dict[str, dict[str, Any]] = {
    "torch": {"name": "torch"},
    "zero0": {"zero_stage": 0},
    "zero1": {"zero_stage": 1},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3},
    "torch-bf16": {"name": "torch", "precision": "bf16"},
    "zero0-bf16": {"zero_stage": 0, "precision": "bf16"},
    "zero1-bf16": {"zero_stage": 1, "precision": "bf16"},
    "zero2-bf16": {"zero_stage": 2, "precision": "bf16"},
    "zero3-bf16": {"zero_stage": 3, "precision": "bf16"},
}
FP32 = [name for name in CASES if "bf16" not in name]
BF16 = [name for name in CASES if "bf16" in name]


class Toy(nn.Module):
    """Embedding, matrix, norm at a slower rate, a frozen matrix, a buffer, and an output tied to the embedding."""

    scale: Tensor

    def __init__(self, seed: int = 7) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.frozen = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
        self.norm = nn.LayerNorm(WIDTH)
        self.register_buffer("scale", torch.tensor(1.5))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        self.decoder = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.decoder.weight = self.embedding.weight
        self.norm.weight.lr_scale = LR_SCALE

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """([b s], [b]) -> the batch's share of the mean loss over the global batch."""
        tokens, targets = batch
        x = self.embedding(tokens).mean(1)
        x = self.norm(x + self.frozen(torch.tanh(self.hidden(x))))
        logits = self.decoder(x) * self.scale
        return nn.functional.cross_entropy(logits.float(), targets, reduction="sum") / GLOBAL_BATCH


def global_batch(step: int) -> tuple[Tensor, Tensor]:
    """([B s], [B]): the same for any number of workers; the target is the first token."""
    tokens = torch.randint(VOCABULARY, (GLOBAL_BATCH, NUM_SLOTS), generator=torch.Generator().manual_seed(step))
    return tokens, tokens[:, 0]


# The worker: `python test_engine.py RANK WORLD_SIZE FOLDER CASE...`


def share(step: int, rank: int, world_size: int) -> list[tuple[Tensor, Tensor]]:
    """One rank's micro batches of a step."""
    tokens, targets = global_batch(step)
    rows = torch.arange(GLOBAL_BATCH).chunk(world_size)[rank].chunk(NUM_MICRO)
    return [(tokens[chosen], targets[chosen]) for chosen in rows]


def build(case: str, world_size: int = 1, rank: int = 0) -> Engine:
    """An engine; initial weights differ by rank, and only those of rank 0 may count."""
    config = EngineConfig(**COMMON, **CASES[case])
    micro_batch = GLOBAL_BATCH // world_size // NUM_MICRO
    return make_engine(config, Toy(seed=7 + rank), micro_batch=micro_batch, num_micro=NUM_MICRO, device="cpu")


def train(engine: Engine, steps: range, folder: Path | None = None) -> dict[str, Any]:
    """Losses and norms of some steps, and the weights after them; saves after NUM_STEPS_SAVED when given a folder."""
    losses, norms = [], []
    for step in steps:
        result = engine.step(share(step, engine.rank, engine.world_size), LEARNING_RATES[step])
        losses.append(float(engine.reduce_sum(result.loss)))
        norms.append(float(result.grad_norm))
        if folder is not None and step + 1 == NUM_STEPS_SAVED:
            engine.save(folder)
    return {"losses": losses, "norms": norms, "weights": engine.full_state_dict()}


def refusal(case: str, folder: Path) -> str:
    """What loading another engine's state says."""
    try:
        build(case).load(folder)
    except ConfigError as error:
        return str(error)
    return "loaded"


class Odd(nn.Module):
    """Weights of 1, 3 and 4 numbers: two workers cannot halve the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(size)) for size in (1, 3, 4))


def shares_of_ones() -> list[list[float]]:
    """This rank's share of each of `Odd`'s weights, where memory that nobody has filled holds NaN."""
    torch.use_deterministic_algorithms(True)  # it is this that fills it
    engine = make_engine(EngineConfig(**COMMON, **CASES["zero3"]), Odd(), micro_batch=1, num_micro=1, device="cpu")
    torch.use_deterministic_algorithms(False)
    optimizer = engine._engine.optimizer
    sizes = [weight.partition_numel() for weights in optimizer.fp16_groups for weight in weights]
    return [share.tolist() for share in torch.cat([*optimizer.fp32_partitioned_groups_flat]).detach().split(sizes)]


def work(rank: int, world_size: int, folder: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        store = dist.FileStore(str(folder / "store"), world_size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    outcome: dict[str, Any] = {"early": [name for name in ("deepspeed", "ray") if name in sys.modules]}
    for case in cases:
        saved = folder / case
        saved.mkdir(exist_ok=True)
        whole = train(build(case, world_size, rank), range(NUM_STEPS), saved)
        engine = build(case, world_size, rank)
        engine.load(saved)
        resumed = train(engine, range(NUM_STEPS_SAVED, NUM_STEPS))
        outcome[case] = {"whole": whole, "resumed": resumed}
    if world_size == 2 and "zero3" in cases:
        outcome["shares"] = shares_of_ones()
    if world_size == 1:
        outcome["other stage"] = refusal("zero2", folder / "zero1")
        facts = folder / "zero1" / "engine.json"
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"world_size": 2}))
        outcome["not converted"] = refusal("zero1", folder / "zero1")
    torch.save(outcome, folder / f"outcome-{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


# The tests.


def start(folder: Path, repo_root: Path, world_size: int, cases: list[str]) -> list[subprocess.Popen[bytes]]:
    """One process per rank; what they say goes to files. A single worker finds no compiler."""
    environment = os.environ | {"PYTHONPATH": str(repo_root), "TORCH_EXTENSIONS_DIR": str(folder / "compiled")}
    if world_size == 1:
        environment["PATH"] = str(folder)
    workers = []
    for rank in range(world_size):
        command = [sys.executable, __file__, str(rank), str(world_size), str(folder), *cases]
        with (folder / f"log-{rank}.txt").open("wb") as log:
            workers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    return workers


def finish(folder: Path, workers: list[subprocess.Popen[bytes]]) -> list[dict[str, Any]]:
    """The outcome of each rank; none outlives a failure of another, for which it would wait."""
    try:
        for rank, worker in reversed(list(enumerate(workers))):
            assert worker.wait(timeout=240) == 0, (folder / f"log-{rank}.txt").read_text()[-3000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return [torch.load(folder / f"outcome-{rank}.pt") for rank in range(len(workers))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {world_size: tmp_path_factory.mktemp(f"world{world_size}") for world_size in (1, 2)}


@pytest.fixture(scope="module")
def outcomes(folders: dict[int, Path], repo_root: Path) -> dict[int, list[dict[str, Any]]]:
    """World size -> what each rank found; all workers run at once, importing DeepSpeed is most of their time."""
    workers = {1: start(folders[1], repo_root, 1, list(CASES)), 2: start(folders[2], repo_root, 2, FP32)}
    try:
        return {world_size: finish(folders[world_size], workers[world_size]) for world_size in (1, 2)}
    finally:
        for worker in workers[1] + workers[2]:
            worker.kill()


def plain_loop() -> dict[str, Any]:
    """A plain loop over whole batches: torch's clipping, and torch's AdamW with its decay spelled out by name."""
    toy = Toy()
    trained = {name: p for name, p in toy.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.1 if name == "hidden.weight" else 0.0} for name, p in trained.items()],
        betas=(0.9, 0.99),
        eps=0.1,
    )
    losses, norms = [], []
    for step, learning_rate in enumerate(LEARNING_RATES):
        loss = toy(global_batch(step))
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(trained.values(), 0.3)))
        for name, group in zip(trained, optimizer.param_groups, strict=True):
            group["lr"] = learning_rate * (LR_SCALE if name == "norm.weight" else 1.0)
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "norms": norms, "weights": toy.state_dict()}


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    return plain_loop()


def assert_equal_weights(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert list(got) == list(wanted)
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=tolerance, msg=name)


def test_the_oracle_learns_and_clips(oracle: dict[str, Any]) -> None:
    assert oracle["losses"][-1] < 0.8 * oracle["losses"][0]
    assert min(oracle["norms"]) > 1.5 * COMMON["clip_norm"]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("case", FP32)
def test_every_engine_trains_as_a_plain_loop_does(
    outcomes: dict[int, list[dict[str, Any]]], oracle: dict[str, Any], case: str, world_size: int
) -> None:
    for rank in range(world_size):
        got = outcomes[world_size][rank][case]["whole"]
        assert got["losses"] == pytest.approx(oracle["losses"], rel=TOLERANCE)
        assert got["norms"] == pytest.approx(oracle["norms"], rel=TOLERANCE)
    assert_equal_weights(outcomes[world_size][0][case]["whole"]["weights"], oracle["weights"], TOLERANCE)


@pytest.mark.parametrize("case", BF16)
def test_bf16_trains_as_fp32_does_up_to_its_rounding(
    outcomes: dict[int, list[dict[str, Any]]], oracle: dict[str, Any], case: str
) -> None:
    got = outcomes[1][0][case]["whole"]
    assert got["losses"] == pytest.approx(oracle["losses"], rel=TOLERANCE_BF16)
    assert got["losses"] != pytest.approx(oracle["losses"], rel=TOLERANCE)
    assert all(tensor.dtype == torch.float32 for tensor in got["weights"].values())
    # Master weights, not their bf16 copies: those would be unchanged by a second rounding.
    hidden = got["weights"]["hidden.weight"]
    assert not torch.equal(hidden, hidden.bfloat16().float())


@pytest.mark.parametrize(("case", "world_size"), [(case, 1) for case in CASES] + [(case, 2) for case in FP32])
def test_resumed_is_uninterrupted_bit_for_bit(
    outcomes: dict[int, list[dict[str, Any]]], case: str, world_size: int
) -> None:
    whole, resumed = (outcomes[world_size][0][case][part] for part in ("whole", "resumed"))
    assert resumed["losses"] == whole["losses"][NUM_STEPS_SAVED:]
    assert resumed["norms"] == whole["norms"][NUM_STEPS_SAVED:]
    assert_equal_weights(resumed["weights"], whole["weights"], 0.0)


@pytest.mark.slow
def test_bf16_on_two_workers_trains_and_resumes_alike(
    tmp_path: Path, repo_root: Path, outcomes: dict[int, list[dict[str, Any]]]
) -> None:
    outcome = finish(tmp_path, start(tmp_path, repo_root, 2, BF16))[0]
    for case in BF16:
        whole, resumed = outcome[case]["whole"], outcome[case]["resumed"]
        assert whole["losses"] == pytest.approx(outcomes[1][0][case]["whole"]["losses"], rel=TOLERANCE_BF16)
        assert resumed["losses"] == whole["losses"][NUM_STEPS_SAVED:]
        assert_equal_weights(resumed["weights"], whole["weights"], 0.0)


def test_only_rank_0_holds_the_whole_model(outcomes: dict[int, list[dict[str, Any]]]) -> None:
    for case in FP32:
        assert outcomes[2][1][case]["whole"]["weights"] is None


def test_nothing_is_compiled_and_deepspeed_comes_late(
    outcomes: dict[int, list[dict[str, Any]]], folders: dict[int, Path]
) -> None:
    for world_size, folder in folders.items():
        assert not list(folder.glob("compiled/**/*"))
        assert outcomes[world_size][0]["early"] == []


def test_the_workers_say_nothing(outcomes: dict[int, list[dict[str, Any]]], folders: dict[int, Path]) -> None:
    assert {path.read_text() for folder in folders.values() for path in folder.glob("log-*.txt")} == {""}


def test_the_state_of_another_engine_is_refused(outcomes: dict[int, list[dict[str, Any]]], tmp_path: Path) -> None:
    single = outcomes[1][0]
    assert "written with zero_stage=1, this run has zero_stage=2" in single["other stage"]
    assert "ZeRO 1 shared it out among 2 workers, now there are 1; let" in single["not converted"]
    build("torch").save(tmp_path)
    with pytest.raises(ConfigError, match=r"written with precision=fp32, this run has precision=bf16; resume with"):
        build("torch-bf16").load(tmp_path)
    with pytest.raises(DataError, match=r"no readable engine\.json"):
        build("torch").load(tmp_path / "nowhere")


def test_shares_of_weights_that_do_not_divide_are_filled_up_with_zeros(
    outcomes: dict[int, list[dict[str, Any]]],
) -> None:
    """Regression: ZeRO 3 saved memory as it was found, so that a resumed training's state was not the other's."""
    first, second = (outcomes[2][rank]["shares"] for rank in range(2))
    assert first == [[1.0], [1.0, 1.0], [1.0, 1.0]]
    assert second == [[0.0], [1.0, 0.0], [1.0, 1.0]]


def test_the_sum_over_ranks_leaves_its_argument_alone() -> None:
    tensor = torch.ones(3)
    build("torch").reduce_sum(tensor).add_(1.0)
    assert tensor.tolist() == [1.0] * 3


def test_a_gradient_that_is_not_finite_is_told() -> None:
    engine = build("torch")
    with torch.no_grad():
        engine.module.get_parameter("hidden.bias").fill_(torch.inf)
    engine.module.get_buffer("scale").fill_(torch.inf)
    assert torch.isnan(engine.step(share(0, 0, 1), 0.1).grad_norm)


def test_without_clipping_the_step_is_another() -> None:
    weights = []
    for clip_norm in (0.0, 0.3, 1e6):
        config = EngineConfig(name="torch", **(COMMON | {"clip_norm": clip_norm}))
        engine = make_engine(config, Toy(), micro_batch=8, num_micro=NUM_MICRO, device="cpu")
        engine.step(share(0, 0, 1), 0.1)
        weights.append(engine.module.get_parameter("hidden.weight"))
    assert torch.equal(weights[0], weights[2])
    assert not torch.allclose(weights[0], weights[1])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"name": "fsdp"}, r"engine\.name='fsdp' is unknown; choose one of deepspeed, torch"),
        ({"zero_stage": 4}, r"engine\.zero_stage=4 is unknown"),
        ({"precision": "fp16"}, r"engine\.precision='fp16'"),
        ({"clip_norm": -1.0}, r"engine\.clip_norm=-1\.0 is not"),
        ({"eps": float("nan")}, r"engine\.eps=nan"),
        ({"beta2": 1.0}, r"engine\.beta2=1\.0 is outside"),
        ({"name": "torch", "deepspeed_config": "ds.json"}, r"deepspeed_config=ds\.json has no meaning"),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        EngineConfig(**fields)


def settings_with(path: Path, text: str, **fields: Any) -> dict[str, Any]:
    path.write_text(text)
    defaults: dict[str, Any] = {"clip_norm": 0.5, "zero_stage": 2, "deepspeed_config": str(path)}
    config = EngineConfig(**(defaults | fields))
    return deepspeed_settings(config, micro_batch=4, num_micro=3, world_size=2, num_parameters=1000, on_cpu=True)


@pytest.mark.parametrize(
    ("theirs", "key", "field"),
    [
        ({"zero_optimization": {"stage": 3}}, r"zero_optimization\.stage=3", r"engine\.zero_stage=2"),
        ({"bf16": {"enabled": True}}, r"bf16\.enabled=true", r"engine\.precision=fp32"),
        ({"bfloat16": {"enabled": True}}, r"bfloat16\.enabled=true", r"engine\.precision=fp32"),
        ({"fp16": {"enabled": True}}, r"fp16\.enabled=true", r"engine\.precision=fp32"),
        ({"gradient_clipping": 1.0}, r"gradient_clipping=1\.0", r"engine\.clip_norm=0\.5"),
        ({"train_batch_size": 64}, r"train_batch_size=64", r"train\.global_batch.* wants 24"),
        ({"train_micro_batch_size_per_gpu": 8}, r"train_micro_batch_size_per_gpu=8", r"train\.micro_batch.* wants 4"),
        ({"gradient_accumulation_steps": 1}, r"gradient_accumulation_steps=1", r"wants 3"),
        ({"gradient_allreduce_op": "sum"}, r'gradient_allreduce_op="sum"', r"the engine"),
        ({"optimizer": {"type": "Adam"}}, r"section optimizer", r"engine\.weight_decay"),
        ({"scheduler": {"type": "WarmupLR"}}, r"section scheduler", r"train\.learning_rate"),
        ({"zero_optimization": True}, r"zero_optimization=True is not a section", r"leave it out"),
    ],
)
def test_a_deepspeed_file_that_contradicts_a_field_is_refused_naming_both(
    tmp_path: Path, theirs: dict[str, Any], key: str, field: str
) -> None:
    with pytest.raises(ConfigError, match=rf"ds\.json: .*{key}.*{field}"):
        settings_with(tmp_path / "ds.json", json.dumps(theirs))


def test_what_a_deepspeed_file_adds_or_repeats_is_passed_on(tmp_path: Path) -> None:
    zero = {"stage": 2, "overlap_comm": True, "reduce_bucket_size": "auto", "round_robin_gradients": True}
    theirs = {
        "train_batch_size": 24,
        "gradient_clipping": 0.5,
        "gradient_accumulation_steps": "auto",
        "steps_per_print": 7,
        "zero_optimization": zero,
    }
    settings = settings_with(tmp_path / "ds.json", json.dumps(theirs))
    assert settings["steps_per_print"] == 7
    assert settings["gradient_accumulation_steps"] == 3
    assert settings["zero_optimization"]["overlap_comm"] is True
    assert settings["zero_optimization"]["round_robin_gradients"] is True
    assert settings["zero_optimization"]["reduce_bucket_size"] == 1000


def test_at_stage_0_a_file_may_repeat_the_clipping_that_the_engine_does(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "ds.json", '{"gradient_clipping": 0.5}', zero_stage=0)
    assert settings["gradient_clipping"] == 0.0


@pytest.mark.parametrize(("text", "match"), [("{", "not readable as JSON"), ("[]", "holds a list")])
def test_a_deepspeed_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        settings_with(tmp_path / "ds.json", text)


def test_a_missing_deepspeed_file_is_refused() -> None:
    config = EngineConfig(deepspeed_config="nowhere.json")
    with pytest.raises(ConfigError, match=r"deepspeed_config=nowhere\.json: not readable"):
        deepspeed_settings(config, micro_batch=1, num_micro=1, world_size=1, num_parameters=9, on_cpu=False)


# Names that DeepSpeed does not promise: that they are there in the pinned version, and what happens where they are not.


def test_deepspeed_takes_what_it_loads_for_universal_only_while_it_is_told_so() -> None:
    from deepspeed.runtime.engine import DeepSpeedEngine

    assert callable(DeepSpeedEngine.load_universal_checkpoint)
    inner = build("zero1")._engine  # type: ignore[attr-defined]
    assert not inner.load_universal_checkpoint()
    with engines._loading_universal(inner):
        assert inner.load_universal_checkpoint()
    assert not inner.load_universal_checkpoint()


def test_without_that_a_universal_checkpoint_is_refused_in_one_line() -> None:
    with (
        pytest.raises(
            RunError, match=r"DeepSpeed \d+\.\d+\.\d+ has no .*; install deepspeed 0\.19, or go on with as many"
        ),
        engines._loading_universal(object()),
    ):
        pass


def test_padding_of_zero_3_is_cleared_where_its_groups_have_their_names_and_else_left() -> None:
    optimizer = build("zero3")._engine.optimizer  # type: ignore[attr-defined]
    assert len(optimizer.fp16_groups) == len(optimizer.fp32_partitioned_groups_flat) > 0
    engines._clear_padding(object(), rank=0)


def test_nothing_is_compiled_for_gloo_and_without_the_name_for_it_deepspeed_still_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deepspeed = engines._import_deepspeed(torch.device("cpu"))
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False
    monkeypatch.setattr(deepspeed.ops, "__compatible_ops__", None)
    assert engines._import_deepspeed(torch.device("cpu")) is deepspeed


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    # Its outcome is on disk. Seen once in many runs: taking the interpreter down after that ended with "terminate
    # called without an active exception", of a thread that torch.distributed had left.
    os._exit(0)


def test_deepspeed_brings_no_mlflow_into_a_worker() -> None:
    code = (
        "import sys, torch; from hgscale.train.engine import _import_deepspeed; "
        "_import_deepspeed(torch.device('cpu')); assert 'mlflow' not in sys.modules; import mlflow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
