"""Peak memory of one training step on a vocabulary of a million nodes: our chunked loss against full logits.

    python tests/bench/bench_vocabulary.py [--nodes 1000000] [--contexts 576] [--width 64] [--max_logits 0]

Both sides take the same two steps (forward, backward, AdamW) of the same model on the same batch; they differ in
``max_logits`` alone, ours being the default. Each runs in a process of its own; memory is the most it was resident
less what it was before, model and batch included there: so AdamW's moments count, which the second step finds in place.
Full logits are measured, not reckoned; ``--contexts`` is as many as a machine of 16 GiB takes. Before, at a vocabulary
of 20,000 nodes, both sides' losses and gradients are compared.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import torch

from hgscale.hypergraph.structure import Hypergraph
from hgscale.models.build import build_model
from hgscale.models.config import ModelConfig
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch

FULL = 1 << 62
COPIES = 6  # of the logits that full logits take at most, to tell whether they fit
GIB = 2**30


def model_of(num_nodes: int, width: int) -> torch.nn.Module:
    """The shipped encoder for edges of 3 nodes; building it needs only the world's nodes and sizes."""
    world = Hypergraph(np.array([0, 3]), np.arange(3, dtype=np.int32), np.ones(1), num_nodes)
    return build_model(ModelConfig(hidden_size=width), world, seed=0)


def batch_of(num_nodes: int, num_contexts: int) -> MicroBatch:
    """Edges of 3 random nodes, each with 1 to 3 hidden: as the masker gives them in a world without repetition."""
    random = np.random.default_rng(0)
    rows = np.sort(random.integers(0, num_nodes, (num_contexts, 3)), axis=1)
    hidden = random.integers(1, 4, num_contexts)
    visible = np.where(np.arange(2) < (3 - hidden)[:, None], rows[:, :2], -1)
    targets = np.concatenate([row[3 - count :] for row, count in zip(rows, hidden, strict=True)])
    bucket = ContextTensors(
        visible=torch.from_numpy(visible),
        num_masked=torch.from_numpy(hidden),
        rows=torch.from_numpy(np.repeat(np.arange(num_contexts), hidden)),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(np.repeat(3 / hidden, hidden).astype(np.float32)),
    )
    return MicroBatch([bucket], torch.tensor([0.0, 0, 0, num_contexts]), 1 / num_contexts)


def loss_of(model: torch.nn.Module, max_logits: int) -> MaskedLoss:
    """Max_logits 0: the default."""
    return MaskedLoss(model, max_logits) if max_logits else MaskedLoss(model)


class Peak:
    """The most this process is resident while it is watched, beyond what it was at the start, in GiB."""

    def __enter__(self) -> "Peak":
        self.process, self.stop = psutil.Process(), threading.Event()
        self.start = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.stop.wait(0.002):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()
        self.gib = (self.most - self.start) / GIB


def one_side(num_nodes: int, num_contexts: int, width: int, max_logits: int) -> None:
    """In a process of its own: two steps; prints its numbers as JSON, seconds of the second."""
    torch.set_num_threads(1)
    model, batch = model_of(num_nodes, width), batch_of(num_nodes, num_contexts)
    loss_of_batch = loss_of(model, max_logits)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Peak() as peak:
        for _ in range(2):
            started = time.perf_counter()
            optimizer.zero_grad()
            loss = loss_of_batch(batch)
            loss.backward()
            optimizer.step()
            seconds = time.perf_counter() - started
    print(json.dumps({"gib": peak.gib, "seconds": seconds, "loss": float(loss.detach())}))


def measure(num_nodes: int, num_contexts: int, width: int, max_logits: int) -> dict[str, float]:
    """``one_side`` in a fresh process."""
    numbers = [str(value) for value in (num_nodes, num_contexts, width, max_logits)]
    out = subprocess.run([sys.executable, __file__, "--side", *numbers], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def check(width: int, num_nodes: int = 20_000, num_contexts: int = 256) -> float:
    """Largest difference of a gradient, relative to the largest entry, between chunks of 16 contexts and no chunks."""
    sides = []
    for max_logits in (16 * num_nodes, FULL):
        model = model_of(num_nodes, width)
        loss = loss_of(model, max_logits)(batch_of(num_nodes, num_contexts))
        loss.backward()
        sides.append((loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
    (ours, ours_grads), (full, full_grads) = sides
    torch.testing.assert_close(ours, full)
    for got, wanted in zip(ours_grads, full_grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    pairs = zip(ours_grads, full_grads, strict=True)
    return max(float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)) for got, wanted in pairs)


def check_room(num_nodes: int, num_contexts: int) -> None:
    """Refuse full logits that the free memory does not hold, before the machine looks for what to kill."""
    free, needed = psutil.virtual_memory().available, 4 * COPIES * num_nodes * num_contexts
    if needed > free:
        most = int(free / (4 * COPIES * num_nodes))
        sys.exit(f"full logits need {needed / GIB:.1f} GiB, {free / GIB:.1f} are free; use --contexts {most} or less")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--contexts", type=int, default=576)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--max_logits", type=int, default=0)
    parser.add_argument("--side", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        one_side(*options.side)
        return
    check_room(options.nodes, options.contexts)
    print(f"20,000 nodes: loss equal, gradients within {check(options.width):.1e} of their largest entry", flush=True)
    print(f"{options.nodes:,} nodes, {options.contexts:,} contexts, width {options.width}", flush=True)
    sides = {"ours": options.max_logits, "full logits": FULL}
    steps = {}
    for side, max_logits in sides.items():
        steps[side] = measure(options.nodes, options.contexts, options.width, max_logits)
        print(f"{side:<12} {steps[side]['gib']:6.2f} GiB  {steps[side]['seconds']:6.1f} s a step", flush=True)
    print(f"ours takes 1/{steps['full logits']['gib'] / steps['ours']['gib']:.1f} of full logits, both measured")


if __name__ == "__main__":
    main()
