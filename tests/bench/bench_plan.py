"""What the planner says (pretrain/cost.py) against what is measured: memory, operations, seconds of a step.

    python tests/bench/bench_plan.py [--quick] [--workers 2]

Memory is the most bytes of CPU tensors alive at once in a step of the shipped engine around the shipped model, counted
at every operation; operations are those of torch's FlopCounterMode. Seconds are CPU seconds of a step, for others may
share the cores. This machine's rates come first: of matrix products of the model's width and of passes over weights,
measured alone, and of passes over activations and over logits, from one step each (marked); other widths, depths and
vocabularies follow from them.
Samples share no context, as the planner assumes. With ``--workers 2`` the memory of two gloo processes is measured too.
"""

import argparse
import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from hgscale.data.masking import ObjectiveConfig
from hgscale.hypergraph.structure import Hypergraph
from hgscale.models.build import build_model
from hgscale.models.config import ModelConfig
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch
from hgscale.pretrain import cost as plan
from hgscale.train.config import EngineConfig
from hgscale.train.engine import Engine, make_engine
from tests.unit.train.counting import most_alive

# name: (nodes, size, samples of a micro-batch, micro-batches, model, engine)
CASES: dict[str, tuple[int, int, int, int, dict, dict]] = {
    "torch fp32, tables": (60_000, 3, 64, 1, {"hidden_size": 64}, {"name": "torch"}),
    "torch fp32, layers": (2_000, 4, 4096, 1, {"hidden_size": 128, "num_hidden_layers": 6}, {"name": "torch"}),
    "torch fp32, layers, saving": (
        2_000,
        4,
        4096,
        1,
        {"hidden_size": 128, "num_hidden_layers": 6, "activation_checkpointing": True},
        {"name": "torch"},
    ),
    "torch fp32, logits": (30_000, 3, 512, 1, {"hidden_size": 32}, {"name": "torch"}),
    "torch bf16, layers": (
        2_000,
        4,
        4096,
        1,
        {"hidden_size": 128, "num_hidden_layers": 6},
        {"name": "torch", "precision": "bf16"},
    ),
    **{
        f"zero {stage} {precision}, {what}": (*sizes, {"zero_stage": stage, "precision": precision})
        for stage, precision in itertools.product((0, 1, 2, 3), ("fp32", "bf16"))
        for what, sizes in {
            "tables": (60_000, 3, 32, 1, {"hidden_size": 64}),
            "twin": (
                200_000,
                3,
                64,
                2,
                {
                    "hidden_size": 128,
                    "num_hidden_layers": 4,
                    "activation_checkpointing": True,
                    "config": {"embedding_size": 16},
                },
            ),
        }.items()
    },
}
SECONDS = {
    "torch fp32, narrower, deeper": (
        2_000,
        4,
        4096,
        1,
        {"hidden_size": 64, "num_hidden_layers": 10},
        {"name": "torch"},
    ),
    "torch fp32, wider": (2_000, 4, 2048, 1, {"hidden_size": 256, "num_hidden_layers": 3}, {"name": "torch"}),
    "torch fp32, larger edges": (4_000, 5, 3000, 1, {"hidden_size": 128, "num_hidden_layers": 4}, {"name": "torch"}),
    "torch fp32, more nodes": (60_000, 3, 400, 1, {"hidden_size": 48}, {"name": "torch"}),
}
CASES |= SECONDS
QUICK = ["torch fp32, tables", "torch fp32, layers", "torch fp32, layers, saving", "torch fp32, logits"]


def world_of(num_nodes: int, size: int) -> Hypergraph:
    """Building a model needs only a world's nodes and sizes."""
    return Hypergraph(np.array([0, size]), np.arange(size, dtype=np.int32), np.ones(1), num_nodes)


def batch_of(num_nodes: int, size: int, num_samples: int, seed: int = 0) -> MicroBatch:
    """Edges of random nodes, 1 to all of each hidden: those that hide all are one context, the others differ."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.integers(0, num_nodes, (num_samples, size)), axis=1)
    hidden = np.arange(num_samples) % size + 1
    shown = np.flatnonzero(hidden < size)
    visible = np.full((len(shown) + 1, size - 1), -1)
    for at, row in enumerate(shown):
        visible[at, : size - hidden[row]] = rows[row, : size - hidden[row]]
    targets, places = [], []
    for row in range(num_samples):
        targets.append(rows[row, size - hidden[row] :])
        places.append(np.full(hidden[row], np.searchsorted(shown, row) if hidden[row] < size else len(shown)))
    weights = np.repeat(size / hidden, hidden).astype(np.float32)
    bucket = ContextTensors(
        visible=torch.from_numpy(visible),
        num_masked=torch.from_numpy(np.append(hidden[shown], size)),
        rows=torch.from_numpy(np.concatenate(places)),
        targets=torch.from_numpy(np.concatenate(targets)),
        weights=torch.from_numpy(weights),
    )
    counts = torch.zeros(size + 1)
    counts[size] = num_samples
    return MicroBatch([bucket], counts, 1 / num_samples)


def engine_of(case: str, device: str = "cpu") -> tuple[Engine, list[list[MicroBatch]]]:
    """An engine, and the micro-batches of two steps."""
    num_nodes, size, samples, num_micro, model, engine = CASES[case]
    made = make_engine(
        EngineConfig(**engine),
        MaskedLoss(build_model(ModelConfig(**model), world_of(num_nodes, size), seed=0)),
        micro_batch=samples,
        num_micro=num_micro,
        device=device,
    )
    made.module.train()
    numbers = itertools.count()
    steps = [[batch_of(num_nodes, size, samples, next(numbers)) for _ in range(num_micro)] for _ in range(2)]
    return made, steps


def shape_of(case: str) -> plan.Shape:
    num_nodes, size, _, _, model, _ = CASES[case]
    return plan.Shape.of(ModelConfig(**model), world_of(num_nodes, size))


def predicted_memory(case: str, num_workers: int = 1) -> plan.Memory:
    _, _, samples, _, _, engine = CASES[case]
    batch = plan.Batch.worst(shape_of(case), ObjectiveConfig(), samples)
    return plan.memory(shape_of(case), batch, EngineConfig(**engine), num_workers)


def predicted_work(case: str) -> plan.Work:
    _, _, samples, _, _, engine = CASES[case]
    batch = plan.Batch.worst(shape_of(case), ObjectiveConfig(), samples)
    return plan.work(shape_of(case), batch, EngineConfig(**engine))


def measured_memory(case: str) -> int:
    """Bytes alive at the most, in the second step: the first makes what stays."""
    engine, (first, second) = engine_of(case)
    engine.step(first, 1e-3)
    return most_alive(lambda: engine.step(second, 1e-3))


def measured_flops(case: str) -> int:
    """Of one micro-batch, forward and backward."""
    num_nodes, size, samples, _, model, _ = CASES[case]
    loss = MaskedLoss(build_model(ModelConfig(**model), world_of(num_nodes, size), seed=0)).train()
    with FlopCounterMode(display=False) as counter:
        loss(batch_of(num_nodes, size, samples)).backward()
    return counter.get_total_flops()


def product_rate(width: int) -> float:
    """Operations per second of products [2048 d] x [d 4 d]."""
    a, b = torch.randn(2048, width), torch.randn(width, 4 * width)
    return 2 * 2048 * width * 4 * width / _best(lambda: a @ b)


def _best(call: object) -> float:
    times = []
    for _ in range(7):
        started = time.process_time()  # of this process: others may share its cores
        call()  # type: ignore[operator]
        times.append(time.process_time() - started)
    return min(times)


def step_seconds(case: str) -> float:
    engine, (first, second) = engine_of(case)
    engine.step(first, 1e-3)
    return _best(lambda: engine.step(second, 1e-3))


def update_rate() -> float:
    """Bytes per second of an engine's passes over more weights than caches hold."""
    weights = torch.nn.Parameter(torch.randn(16_000_000))
    weights.grad = gradient = torch.randn_like(weights)
    optimizer = torch.optim.AdamW([weights], fused=True)

    def update() -> None:
        gradient.zero_()
        gradient.mul_(1 / (torch.linalg.vector_norm(gradient) + 1))
        optimizer.step()

    update()
    return plan.UPDATE_BYTES * weights.numel() / _best(update)


def compare_seconds() -> None:
    """Bytes per second from one step of layers and one of logits; then the steps that follow from them."""
    for setting in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: keep memory that is freed, as on a GPU
        ctypes.CDLL(None).mallopt(setting, 1 << 30)
    by_weights = update_rate()
    by_layers = by_logits = float("inf")
    for _ in range(2):  # each is a little in the other
        for name in ("layers", "logits"):
            case = f"torch fp32, {name}"
            done = predicted_work(case)
            left = _measured(case) - done.flops / _rate(case) - _weight_bytes(case) / by_weights
            if name == "layers":
                by_layers = done.layer_bytes / (left - done.logit_bytes / by_logits)
            else:
                by_logits = done.logit_bytes / (left - done.layer_bytes / by_layers)
    rates = {"weights": by_weights, "activations": by_layers, "logits": by_logits}
    print("passes over " + ", ".join(f"{what} {rate / 1e9:.1f} GB/s" for what, rate in rates.items()))
    for case in (*QUICK, *SECONDS):
        done = predicted_work(case)
        expected = done.flops / _rate(case) + _weight_bytes(case) / by_weights
        expected += done.logit_bytes / by_logits + done.layer_bytes / by_layers
        given = " (given)" if case in ("torch fp32, layers", "torch fp32, logits") else ""
        line(f"s of a step{given}", case, expected, _measured(case))


@cache
def _measured(case: str) -> float:
    return step_seconds(case)


@cache
def _rate(case: str) -> float:
    return product_rate(shape_of(case).width)


def _weight_bytes(case: str) -> float:
    return plan.UPDATE_BYTES * shape_of(case).num_parameters + predicted_work(case).table_bytes


def beside(case: str, num_workers: int) -> int:
    """``measured_memory`` of rank 0 of several workers."""
    with open(os.devnull, "w") as quiet:
        store = f"/tmp/bench-plan-{os.getpid()}"
        ranks = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, "--rank", str(rank), str(num_workers), store, case],
                stdout=subprocess.PIPE if rank == 0 else quiet,
                stderr=quiet,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
                text=True,
            )
            for rank in range(num_workers)
        ]
        out, _ = ranks[0].communicate(timeout=300)
        for one in ranks[1:]:
            one.wait(timeout=60)
        Path(store).unlink(missing_ok=True)
    return json.loads(out.splitlines()[-1])


def as_rank(rank: int, num_workers: int, store: str, case: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num_workers)
    print(json.dumps(measured_memory(case)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="torch's engine alone")
    parser.add_argument("--workers", type=int, default=1, help="measure the memory of this many processes too")
    parser.add_argument("--rank", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.rank:
        rank, num_workers, store, case = options.rank
        as_rank(int(rank), int(num_workers), store, case)
        return
    print(f"{'':<28} {'predicted':>12} {'measured':>12} {'ratio':>6}")
    for case in QUICK if options.quick else [name for name in CASES if name not in SECONDS]:
        # DeepSpeed leaves something of an engine behind: each has a process of its own.
        found = beside(case, 1) if case.startswith("zero") else measured_memory(case)
        line("MB", case, predicted_memory(case).total / 1e6, found / 1e6)
    for case in [] if options.workers == 1 else [name for name in CASES if name.startswith("zero")]:
        line(f"MB, {options.workers} workers", case, predicted_memory(case, options.workers).total / 1e6,
             beside(case, options.workers) / 1e6)  # fmt: skip
    for case in QUICK:
        line("GFLOP", case, predicted_work(case).flops / 1e9, measured_flops(case) / 1e9)
    compare_seconds()


def line(unit: str, case: str, expected: float, found: float) -> None:
    print(f"{case:<28} {expected:>12.3f} {found:>12.3f} {expected / found:>6.2f}  {unit}", flush=True)


if __name__ == "__main__":
    main()
