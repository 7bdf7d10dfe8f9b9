"""What a checkpoint costs, as a share of the training between two of them at the default interval.

    PYTHONPATH=. python tests/bench/bench_checkpoint.py

One worker on one torch thread trains a set encoder in fp32 and writes checkpoints as a run does: save, hash, have all
of it on the disk, commit, remove the oldest. The interval is the default one, a tenth of the default number of steps.
Steps are of 1,024 samples, an eighth of the default batch, and on CPU time, while writing is on the wall clock: on a
busy machine, and with the default batch, the true share is smaller. Last, what a conversion for another number of
workers takes, once when a run goes on with another number.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rounds import cpu_seconds

from hgscale.data.masking import Masker, ObjectiveConfig
from hgscale.data.stream import Stream
from hgscale.hypergraph.structure import EdgeSampler
from hgscale.hypergraph.worlds.config import WorldConfig, build_world
from hgscale.models.build import build_model
from hgscale.models.config import ModelConfig
from hgscale.models.losses import MaskedLoss, MicroBatch
from hgscale.pretrain.work import tensors
from hgscale.train import checkpoint, resize
from hgscale.train.config import EngineConfig, TrainConfig
from hgscale.train.engine import Engine, make_engine

BATCH = 1_024
SIZES = ((200, 128, 2), (5_000, 256, 4), (20_000, 512, 4))  # nodes, width, layers
ENGINES = {"torch": EngineConfig(name="torch")} | {f"zero {s}": EngineConfig(zero_stage=s) for s in (0, 1, 2, 3)}  # type: ignore[arg-type]
FACTS = {"fingerprint": "bench", "world_size": 1}


def measure(engine: Engine, batch: MicroBatch, root: Path, num_writes: int) -> tuple[float, float, float, float, int]:
    """(step CPU seconds, write, save and conversion seconds, bytes of a checkpoint); medians of the first three."""
    engine.step([batch], 1e-3)
    steps, writes, saves = [], [], []

    def save(directory: Path) -> None:
        start = time.perf_counter()
        engine.save(directory)
        saves.append(time.perf_counter() - start)

    for turn in range(num_writes):
        steps.append(cpu_seconds(lambda: engine.step([batch], 1e-3)))
        start = time.perf_counter()
        checkpoint.write(root, turn, FACTS, save, rank=0, barrier=engine.barrier)
        writes.append(time.perf_counter() - start)
    newest = max(root.iterdir())
    num_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    start = time.perf_counter()
    converted = resize.prepare(root, "bench", 2)
    converting = time.perf_counter() - start if converted else 0.0
    return float(np.median(steps)), float(np.median(writes)), float(np.median(saves)), converting, num_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=int, default=3, help="checkpoints to write of each engine and size")
    parser.add_argument("--folder", type=Path, help="where to write them; default: the system's temporary folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    interval = TrainConfig().checkpoint_interval
    print(f"one checkpoint every {interval} steps of {BATCH} samples")
    print("| parameters | engine | MB | step s | write s | of it saving | share | convert s |")
    print("|---|---|---|---|---|---|---|---|")
    for nodes, width, layers in SIZES:
        world = build_world(WorldConfig(generator="uniform", num_nodes=nodes, num_edges=10 * nodes))
        stream = Stream(None, BATCH, 0)
        masker = Masker(EdgeSampler(world, 0), ObjectiveConfig())
        drawn = masker.batch(stream.ids(stream.positions(0)), stream.visits(stream.positions(0)))
        batch = MicroBatch([tensors(b) for b in drawn.buckets], torch.from_numpy(drawn.size_counts), 1 / BATCH)
        for name, config in ENGINES.items():
            model = build_model(ModelConfig(hidden_size=width, num_hidden_layers=layers), world, seed=0)
            num_parameters = sum(p.numel() for p in model.parameters())  # ZeRO 3 shares them out
            engine = make_engine(config, MaskedLoss(model), micro_batch=BATCH, num_micro=1, device="cpu")
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                step, write, save, convert, size = measure(
                    engine, batch, Path(folder) / "checkpoints", arguments.writes
                )
            print(
                f"| {num_parameters / 1e6:.2f} M | {name} | {size / 1e6:.0f} | {step:.3f} | {write:.2f} | {save:.2f} | "
                f"{write / (interval * step + write):.2%} | {convert:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
