"""The stream against what a trainer eats, on one core; and the orders of `datasets` and Ray Data beside it.

    PYTHONPATH=. python tests/bench/bench_stream.py

The stream is all that lies between a step number and its batch: permute the sample ids, draw their edges, mask them,
merge equal contexts. The trainer takes batches that were made before (width 128, 2 layers, batch 8,192, torch engine),
so that none of that is on its clock. Both run in one thread, in turns. Two worlds:

- small: 200 nodes, 2,000 edges of 3;
- large: 1,000,000 nodes, 1,000,000 edges of 3. A trainer there computes a million logits for each context, which takes
  minutes a step on one core; so this stream, too, is held against the trainer of the small world, which eats far more.

Then the same work behind another order: `datasets` (an IterableDataset, shuffled in a buffer and mapped in batches)
and Ray Data (``random_shuffle``, mapped in batches). Of all three it is asked whether a global batch is the same when
two workers share it, which is what a stop and another number of workers needs.
"""

import argparse
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from rounds import CLOCK, alternate, spread

from hgscale.data.masking import Masker
from hgscale.data.stream import SamplesConfig
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.models.build import build_model
from hgscale.models.config import ModelConfig
from hgscale.models.losses import MaskedLoss, MicroBatch
from hgscale.pretrain.shares import PretrainShares
from hgscale.pretrain.task import PretrainTask
from hgscale.pretrain.work import tensors
from hgscale.train.config import EngineConfig, TrainConfig
from hgscale.train.engine import make_engine
from hgscale.train.shares import Share

BATCH, NUM_SAMPLES = 8_192, 1_000_000
STREAM_STEPS, TRAINER_STEPS = 20, 2  # of a measurement
BUFFER = 100_000  # samples that `datasets` shuffles among: its order is only as random as this is large


def task(num_nodes: int, num_edges: int) -> PretrainTask:
    """Dirichlet weights, masks of every size, a corpus of a million samples."""
    return PretrainTask(
        world=WorldConfig(
            generator="uniform", num_nodes=num_nodes, num_edges=num_edges, size=3, weights="dirichlet", seed=0
        ),
        samples=SamplesConfig(num_samples=NUM_SAMPLES),
        model=ModelConfig(hidden_size=128, num_hidden_layers=2),
        train=TrainConfig(num_steps=100_000, global_batch=BATCH),
        engine=EngineConfig(name="torch"),
    )


class Trainer:
    """A model, its engine, and steps on what it is given."""

    def __init__(self, task: PretrainTask) -> None:
        module = MaskedLoss(build_model(task.model, task.target_world, seed=0))
        self.batch = task.train.global_batch
        self.engine = make_engine(task.engine, module, micro_batch=self.batch, num_micro=1, device="cpu")
        self.engine.module.train()

    def micro_batches(self, share: Share) -> list[MicroBatch]:
        """As the engine takes them."""
        scale = 1 / self.batch
        return [
            MicroBatch([tensors(bucket) for bucket in batch.buckets], torch.from_numpy(batch.size_counts), scale)
            for batch in share.micro_batches
        ]

    def step(self, micro_batches: list[MicroBatch]) -> float:
        """-> the loss."""
        return float(self.engine.step(micro_batches, 1e-3).loss)


class Counter:
    """Calls a function with 0, 1, 2, ..., so many of them at a time."""

    def __init__(self, function: Callable[[int], object], each: int) -> None:
        self.function, self.each, self.next = function, each, 0

    def __call__(self) -> None:
        for index in range(self.next, self.next + self.each):
            self.function(index)
        self.next += self.each


def compare_with_trainer(small: PretrainTask, large: PretrainTask, num_rounds: int) -> None:
    """Samples per second of one core, in turns."""
    trainer = Trainer(small)
    streams = {"small": PretrainShares(small), "large": PretrainShares(large)}
    prepared = [trainer.micro_batches(streams["small"].at(step)) for step in range(8)]
    contenders = {f"stream, {name} world": Counter(shares.at, STREAM_STEPS) for name, shares in streams.items()}
    contenders["trainer, small world"] = Counter(lambda step: trainer.step(prepared[step % 8]), TRAINER_STEPS)
    seconds = alternate(contenders, num_rounds)
    rates = {name: contenders[name].each * BATCH / spent for name, spent in seconds.items()}
    eaten = rates["trainer, small world"]
    print(f"\nbatch {BATCH:,}; median [quartiles] of {num_rounds} rounds")
    print(f"  {'':<22} {'thousand samples/s':>24} {'times the trainer':>24}")
    for name, rate in rates.items():
        print(f"  {name:<22} {spread(rate / 1e3):>24} {spread(rate / eaten):>24}")
    print("  (wanted: 10, aimed at: 30)")


# Each order: a function of (world_size) -> for each worker, its shares of the global batches, in order.


def our_order(task: PretrainTask, world_size: int) -> list[Iterator[np.ndarray]]:
    stream = task.stream()

    def shares(rank: int) -> Iterator[np.ndarray]:
        return (stream.ids(stream.positions(step, rank, world_size)) for step in range(NUM_SAMPLES // BATCH))

    return [shares(rank) for rank in range(world_size)]


def datasets_order(world_size: int) -> list[Iterator[np.ndarray]]:
    from datasets import Dataset
    from datasets.distributed import split_dataset_by_node

    rows = Dataset.from_dict({"id": np.arange(NUM_SAMPLES)}).to_iterable_dataset(num_shards=4)
    shuffled = rows.shuffle(seed=0, buffer_size=BUFFER).with_format("numpy")
    parts = [split_dataset_by_node(shuffled, rank, world_size) for rank in range(world_size)]
    return [(batch["id"] for batch in part.iter(BATCH // world_size)) for part in parts]


def ray_order(world_size: int) -> list[Iterator[np.ndarray]]:
    import ray.data

    shuffled = ray.data.range(NUM_SAMPLES, override_num_blocks=8).random_shuffle(seed=0)
    parts = shuffled.streaming_split(world_size, equal=True) if world_size > 1 else [shuffled]
    iterators = [iter(part.iter_batches(batch_size=BATCH // world_size, drop_last=True)) for part in parts]
    return [(batch["id"] for batch in iterator) for iterator in iterators]


def first_batches(parts: list[Iterator[np.ndarray]], num_steps: int) -> list[set[int]]:
    """The ids of the first global batches. A worker's share waits for the others': all are asked at once."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(parts)) as pool:
        taken = list(pool.map(lambda part: [next(part) for _ in range(num_steps)], parts))
        list(pool.map(drain, parts))
    return [set(np.concatenate(shares).tolist()) for shares in zip(*taken, strict=True)]


def drain(part: Iterator[np.ndarray]) -> None:
    """Read to the end: Ray ends the process whose readers outlive it."""
    deque(part, maxlen=0)


def masked(masker: Masker, ids: np.ndarray) -> object:
    return masker.batch(np.ascontiguousarray(ids), np.zeros(len(ids), dtype=np.int64))


def compare_orders(small: PretrainTask, num_steps: int) -> None:
    """Rate of order and batches together, and the order's fate. Wall time: Ray Data works in other processes."""
    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=400 * 2**20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    shares = PretrainShares(small)
    masker = Masker(shares.sampler, small.objective)
    orders: dict[str, Callable[[int], list[Iterator[np.ndarray]]]] = {
        "hgscale": partial(our_order, small),
        "datasets": datasets_order,
        "Ray Data": ray_order,
    }
    print(f"\norders: the first {num_steps} batches of {NUM_SAMPLES:,} samples, small world; wall time")
    print(f"  {'':<10} {'first batch, s':>15} {'then thousand samples/s':>25}   the same batches with 2 workers")
    for name, order in orders.items():
        start = time.perf_counter()
        (whole,) = order(1)
        masked(masker, next(whole))
        first = time.perf_counter() - start
        for _ in range(num_steps - 1):
            masked(masker, next(whole))
        rate = (num_steps - 1) * BATCH / (time.perf_counter() - start - first)
        drain(whole)
        one, two = (first_batches(order(world_size), 5) for world_size in (1, 2))
        kept = sum(a == b for a, b in zip(one, two, strict=True))
        common = np.mean([len(a & b) / len(a) for a, b in zip(one, two, strict=True)])
        print(f"  {name:<10} {first:>15.2f} {rate / 1e3:>25.0f}   {kept} of 5; {common:.0%} of their samples")
    ray.shutdown()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num_rounds", type=int, default=11)
    parser.add_argument("--num_steps", type=int, default=60, help="batches taken of each order")
    args = parser.parse_args()
    torch.set_num_threads(1)
    small, large = task(200, 2_000), task(1_000_000, 1_000_000)
    print(f"clock: {CLOCK}")
    compare_with_trainer(small, large, args.num_rounds)
    compare_orders(small, args.num_steps)


if __name__ == "__main__":
    main()
