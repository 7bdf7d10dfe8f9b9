"""Training fed by Ray Data against training that makes its own batches: samples per second on the same machine.

    PYTHONPATH=. python tests/bench/bench_feed.py [--num_feeders 1]

In one Ray Train worker two trainings of one config (200 nodes, 2,000 edges of 3, width 128, 2 layers, batch 8,192) take
turns, each for some steps: one makes its batches itself, one is fed. They must see the same ids and reach the same
losses, bit for bit. The feeders start before each turn, at the step where the last one ended, and are gone after it;
their start, until the first batch is there, is not in the rate but is given. Wall time, since a fed training is several
processes: where they share too few cores with others, so does the number. The processor time that the worker itself
needs is given beside it.
"""

import argparse
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from bench_stream import BATCH, Trainer, task
from rounds import spread

from hgscale.cluster.feed import FeedConfig, RayFeed
from hgscale.cluster.workers import ClusterConfig, fit, ray_cluster
from hgscale.pretrain.shares import PretrainShares
from hgscale.train.shares import Source, in_process


class Training:
    """One of the two."""

    def __init__(self, source: Source) -> None:
        config = task(200, 2_000)
        self.trainer, self.shares, self.source = Trainer(config), PretrainShares(config), source
        self.losses: list[float] = []
        self.hashes: list[int] = []
        self.turns: list[tuple[float, float, float]] = []  # wall and processor seconds; seconds to the first batch

    def turn(self, num_steps: int) -> None:
        opened = time.perf_counter()
        with closing(self.source(self.shares, len(self.losses))) as shares:
            share = next(shares)
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(num_steps):
                self.losses.append(self.trainer.step(self.trainer.micro_batches(share)))
                self.hashes.append(share.ids_hash)
                share = next(shares)
            self.turns.append((time.perf_counter() - wall, time.process_time() - cpu, wall - opened))


def compare(num_feeders: int, num_rounds: int, steps: int, out: Path) -> None:
    """In a worker."""
    torch.set_num_threads(1)
    sides = {
        "in process": Training(in_process),
        "fed by Ray Data": Training(RayFeed(FeedConfig(num_feeders=num_feeders))),
    }
    for turn in range(num_rounds + 1):
        for name in sorted(sides, reverse=turn % 2 == 1):
            sides[name].turn(steps)
    one, other = sides.values()
    out.write_text(
        json.dumps(
            {
                "turns": {name: side.turns[1:] for name, side in sides.items()},
                "same_ids": one.hashes == other.hashes,
                "same_losses": one.losses == other.losses,
            }
        )
    )


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num_feeders", type=int, default=1)
    parser.add_argument("--num_rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=80, help="of a turn")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "turns.json"
        arguments = vars(args) | {"out": out}
        with ray_cluster(None, threads=1, store_bytes=64 << 20):
            fit(compare, arguments, ClusterConfig(), Path(folder), size=1)
        found = json.loads(out.read_text())
    assert found["same_ids"], "not the same samples"
    assert found["same_losses"], "not the same losses"
    num_steps = (args.num_rounds + 1) * args.steps
    print(f"{args.num_feeders} feeders; ids and losses of all {num_steps} steps are the same, bit for bit")
    turns = {name: np.array(seconds) for name, seconds in found["turns"].items()}
    own = turns["in process"]
    print(f"median [quartiles] of {args.num_rounds} turns of {args.steps} steps of {BATCH:,} samples")
    print(
        f"  {'':<16} {'thousand samples/s':>24} {'share of in process':>24} {'processor s a step':>26} {'start, s':>10}"
    )
    for name, seconds in turns.items():
        rate, share = args.steps * BATCH / seconds[:, 0] / 1e3, own[:, 0] / seconds[:, 0]
        columns = spread(rate), spread(100 * share, "%"), spread(seconds[:, 1] / args.steps)
        start = np.median(seconds[:, 2])
        print(f"  {name:<16} {columns[0]:>24} {columns[1]:>24} {columns[2]:>26} {start:>10.2f}")
    print("  (wanted: 50%, aimed at: 80%)")


if __name__ == "__main__":
    main()
