"""Training on one CUDA device in bf16: samples/s, peak memory, and MFU.

    PYTHONPATH=. python tests/bench/bench_gpu.py

MFU is the floating-point operations of a step over its time, over the same of a bf16 matrix product of 8192 x 8192
measured in this run. Counted are, for each distinct context and layer, 10 d^2 + 2 d n multiply-adds (query, output and
feed-forward; attention over n keys), for each node of the table and layer 2 d^2 (keys and values), for each context d V
(decoder); times 2 operations, times 3 for forward and backward. Derived here from ``models/encoder.py``.
"""

import sys
import time

import torch

from hgscale.data.masking import Masker, ObjectiveConfig
from hgscale.data.stream import Stream
from hgscale.hypergraph.structure import EdgeSampler
from hgscale.hypergraph.worlds.config import WorldConfig, build_world
from hgscale.models.build import build_model
from hgscale.models.config import ModelConfig
from hgscale.models.losses import MaskedLoss, MicroBatch
from hgscale.pretrain.work import tensors
from hgscale.train.config import EngineConfig
from hgscale.train.engine import make_engine

LAYERS, SIZE, BATCH, STEPS = 4, 4, 65_536, 20


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations per second of a large bf16 product."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - started)


def main() -> None:
    if not torch.cuda.is_available():
        print("skipped: no CUDA device here")
        sys.exit(0)
    device = torch.device("cuda")
    rate = matmul_rate(device)
    print(f"{torch.cuda.get_device_name()}: {rate / 1e12:.0f} Tflop/s in bf16 matrix products")
    world = build_world(
        WorldConfig(generator="uniform", num_nodes=20_000, num_edges=1_000_000, size=SIZE, weights="dirichlet")
    )
    stream, masker = Stream(None, BATCH, 0), Masker(EdgeSampler(world, 0), ObjectiveConfig())
    print(f"{'width':>6} {'samples/s':>12} {'peak GiB':>9} {'MFU':>7}")
    for width in (256, 512, 1024):
        shape = ModelConfig(hidden_size=width, num_hidden_layers=LAYERS, num_attention_heads=8)
        loss = MaskedLoss(build_model(shape, world, seed=0))
        config = EngineConfig(name="torch", precision="bf16")
        engine = make_engine(config, loss, micro_batch=BATCH, num_micro=1, device=device)
        batches, flops = [], 0.0
        for step in range(4):
            batch = masker.batch(stream.global_batch(step), stream.visits(stream.positions(step)))
            buckets = [tensors(bucket).to(device) for bucket in batch.buckets]
            batches.append([MicroBatch(buckets, torch.from_numpy(batch.size_counts).to(device), 1 / BATCH)])
            contexts, keys = sum(len(b.visible) for b in buckets), SIZE
            per_context = LAYERS * (10 * width**2 + 2 * width * keys) + width * world.num_nodes
            flops += 6 * (contexts * per_context + LAYERS * world.num_nodes * 2 * width**2) / 4
        torch.cuda.reset_peak_memory_stats()
        for step in range(3):
            engine.step(batches[step], 1e-4)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for step in range(STEPS):
            engine.step(batches[step % 4], 1e-4)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - started) / STEPS
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"{width:>6} {BATCH / seconds:>12,.0f} {peak:>9.1f} {flops / seconds / rate:>7.1%}", flush=True)


if __name__ == "__main__":
    main()
