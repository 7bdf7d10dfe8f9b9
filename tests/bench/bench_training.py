"""Training speed on one torch thread in fp32: against transformers.Trainer, and as a share of matrix multiplication.

    PYTHONPATH=. python tests/bench/bench_training.py        (Trainer needs the package accelerate)

Both train on samples of one world (200 nodes, 2,000 edges of 3 nodes, Dirichlet weights), one mask per sample, width
128, 2 layers, 4 heads, feed-forward 512, batch 1,024, AdamW at a constant rate, gradients clipped at 1, no dropout.
Ours goes the way of a run: Stream, Masker, MaskedLoss over SetEncoder, torch engine. It is timed as it is, samples with
the same visible nodes sharing a row, and with a row for every sample: the second is what the architecture gives, the
rest is sharing. Trainer has BertForMaskedLM on rows ``[CLS] edge [SEP]`` that were masked and made tensors beforehand,
and a data set that gives whole batches: neither making batches nor collating them is on its clock.

The share is floating-point operations of a step over its time, over the same of ``torch.mm`` of [2048, 128] by
[128, 512] into memory that is there. Counted are multiply-adds of a step, derived here from ``models/encoder.py``, d
being the width and V the nodes of the world:

- for each distinct context and layer: d^2 query, d^2 output, 8 d^2 feed-forward, 2 d n attention over n keys;
- for each node (and mark) of the table and layer: 2 d^2 keys and values;
- for each distinct context: d V decoder;

times 2 operations, times 3 for forward and backward. Softmax, norms, GELU, the optimizer and the making of batches are
not counted, but are on the clock.
"""

import argparse
import dataclasses
import tempfile
import time
from typing import Any

import numpy as np
import torch
from rounds import CLOCK, alternate, spread
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from hgscale.data.masking import Contexts, Masker, ObjectiveConfig
from hgscale.data.stream import Stream
from hgscale.hypergraph.structure import EdgeSampler, Hypergraph, unique_rows
from hgscale.hypergraph.worlds.config import WorldConfig, build_world
from hgscale.models.build import build_model
from hgscale.models.config import ModelConfig
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch
from hgscale.train.config import EngineConfig
from hgscale.train.engine import make_engine

SIZE, LAYERS, HEADS = 3, 2, 4
BATCH = 1_024
LEARNING_RATE = 1e-3
ENGINE = EngineConfig(name="torch")
OBJECTIVE = ObjectiveConfig(masking="one_mask")
NUM_HELD_OUT = 8_192
LEARNS_AS_WELL = 0.05  # nats that ours may be behind Trainer on held-out samples: speed is not bought with learning
MATMUL_CALLS = 40  # of a measurement, about a tenth of a second


class Ours:
    """One of our training runs, a step at a time."""

    def __init__(self, world: Hypergraph, width: int, batch: int, merge: bool) -> None:
        self.world, self.batch, self.merge = world, batch, merge
        self.stream = Stream(None, batch, 0)
        self.masker = Masker(EdgeSampler(world, 0), OBJECTIVE)
        self.model = build_model(
            ModelConfig(hidden_size=width, num_hidden_layers=LAYERS, num_attention_heads=HEADS), world, seed=0
        )
        self.engine = make_engine(ENGINE, MaskedLoss(self.model), micro_batch=batch, num_micro=1, device="cpu")
        self.step_index = 0
        self.num_contexts = 0  # of the step before

    def run(self, num_steps: int) -> None:
        """Train for some more steps."""
        for _ in range(num_steps):
            self.engine.step([self.micro_batch(self.step_index)], LEARNING_RATE)
            self.step_index += 1

    def micro_batch(self, step: int) -> MicroBatch:
        """The batch of a step, its samples sharing rows or not."""
        positions = self.stream.positions(step)
        batch = self.masker.batch(self.stream.ids(positions), self.stream.visits(positions))
        buckets = [bucket if self.merge else one_row_each(bucket) for bucket in batch.buckets]
        self.num_contexts = sum(len(bucket.visible) for bucket in buckets)
        return as_micro_batch(buckets, batch.size_counts, self.batch)

    def step_flop(self) -> float:
        """Floating-point operations of the step before; see the top of this file."""
        d, v = self.model.config.hidden_size, self.world.num_nodes
        table = v + self.model.mask_embedding.num_embeddings
        per_context = LAYERS * (10 * d * d + 2 * d * SIZE) + d * v
        return 2 * 3 * (self.num_contexts * per_context + table * LAYERS * 2 * d * d)


def one_row_each(bucket: Contexts) -> Contexts:
    """The same samples without sharing: a row for every sample."""
    again = np.repeat(np.arange(len(bucket.rows)), bucket.weights.astype(np.int64))
    rows = bucket.rows[again]
    return Contexts(
        visible=bucket.visible[rows],
        num_masked=bucket.num_masked[rows],
        rows=np.arange(len(rows)),
        targets=bucket.targets[again],
        weights=np.ones(len(rows), dtype=np.float32),
    )


def as_micro_batch(buckets: list[Contexts], size_counts: np.ndarray, num_samples: int) -> MicroBatch:
    """Batches as the model takes them."""
    tensors = []
    for bucket in buckets:
        arrays = {field.name: getattr(bucket, field.name) for field in dataclasses.fields(bucket)}
        tensors.append(ContextTensors(**{k: None if a is None else torch.from_numpy(a) for k, a in arrays.items()}))
    return MicroBatch(tensors, torch.from_numpy(size_counts), 1 / num_samples)


class Rows(torch.utils.data.Dataset):
    """``[CLS] edge [SEP]`` with one mask, as tensors; gives whole batches at once."""

    def __init__(self, world: Hypergraph, sample_seed: int, num_samples: int) -> None:
        positions = np.arange(num_samples)
        batch = Masker(EdgeSampler(world, sample_seed), OBJECTIVE, merge=False).batch(
            positions, np.zeros_like(positions)
        )
        (bucket,) = batch.buckets
        v = world.num_nodes
        inner = np.full((num_samples, SIZE), v + 2)
        np.put_along_axis(inner, bucket.visible_slots, bucket.visible, axis=1)
        ends = np.full((num_samples, 1), v), np.full((num_samples, 1), v + 1)
        labels = np.full((num_samples, SIZE + 2), -100)
        labels[np.arange(num_samples), 1 + bucket.target_slots] = bucket.targets
        self.visible, self.targets = torch.from_numpy(bucket.visible), torch.from_numpy(bucket.targets)
        self.input_ids = torch.from_numpy(np.hstack([ends[0], inner, ends[1]]))
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids[indices], "labels": self.labels[indices]}


def make_bert(world: Hypergraph, width: int) -> BertForMaskedLM:
    """The network of the same shape: node ids, then CLS, SEP, MASK and PAD."""
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=world.num_nodes + 4,
            pad_token_id=world.num_nodes + 3,
            hidden_size=width,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * width,
            max_position_embeddings=SIZE + 2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


class TakingTurns(TrainerCallback):
    """After every ``steps_per_turn`` steps of the Trainer the others make theirs, off its clock."""

    def __init__(self, others: dict[str, Ours], steps_per_turn: int) -> None:
        self.others, self.steps_per_turn = others, steps_per_turn
        self.seconds: dict[str, list[float]] = {name: [] for name in ("trainer", *others)}
        self.start = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps_per_turn:
            return
        self.seconds["trainer"].append(time.process_time() - self.start)
        for name, other in self.others.items():
            start = time.process_time()
            other.run(self.steps_per_turn)
            self.seconds[name].append(time.process_time() - start)
        self.start = time.process_time()


def race(world: Hypergraph, bert: nn.Module, others: dict[str, Ours], num_rounds: int, steps: int) -> dict[str, Any]:
    """CPU seconds of each in each round of so many steps, [num_rounds]; one round before is not measured."""
    num_steps = (num_rounds + 1) * steps
    rows = Rows(world, 0, num_steps * BATCH)
    assert ((rows.labels >= 0).sum(dim=1) == 1).all(), "one mask per sample"
    turns = TakingTurns(others, steps)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            max_steps=num_steps,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=ENGINE.weight_decay,
            max_grad_norm=ENGINE.clip_norm,
            optim="adamw_torch_fused",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Trainer(bert, arguments, train_dataset=rows, data_collator=lambda rows: rows, callbacks=[turns])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {name: np.array(values[1:]) for name, values in turns.seconds.items()}


@torch.no_grad()
def held_out(world: Hypergraph, bert: nn.Module, others: dict[str, Ours]) -> dict[str, float]:
    """Nats per sample on samples of another seed; BERT's law is renormalised over the nodes that are not visible."""
    rows = Rows(world, 1, NUM_HELD_OUT)
    at = (rows.labels >= 0).nonzero()[:, 1]
    logits = bert.eval()(input_ids=rows.input_ids).logits[torch.arange(len(rows)), at, : world.num_nodes]
    log_p = torch.log_softmax(logits.scatter(1, rows.visible, -torch.inf), dim=1)
    nats = {"trainer": -float(log_p.gather(1, rows.targets[:, None]).mean())}
    for name, ours in others.items():
        log_p = ours.model.eval().log_probs(rows.visible, torch.ones(len(rows), dtype=torch.int64))
        nats[name] = -float(log_p.gather(1, rows.targets[:, None]).mean())
    return nats


def least_nats(world: Hypergraph) -> float:
    """Entropy of the hidden node given the others under the world itself: no model gets below it."""
    edges = world.edges_of_size(SIZE)
    visible = np.concatenate([np.delete(edges, hidden, axis=1) for hidden in range(SIZE)])
    joint = np.tile(world.weights, SIZE) / SIZE
    _, context = unique_rows(visible)
    return -float((joint * np.log(joint / np.bincount(context, weights=joint)[context])).sum())


@torch.no_grad()
def check_sharing(shared: Ours, single: Ours) -> None:
    """The same samples give the same loss and one mask each, whether they share rows or not."""
    batches = [ours.micro_batch(0) for ours in (shared, single)]
    for batch in batches:
        assert sum(float(bucket.weights.sum()) for bucket in batch.buckets) == BATCH, "one mask per sample"
    losses = [float(MaskedLoss(shared.model)(batch)) for batch in batches]
    # fp32 sums of 1,024 terms, each right to some 1e-6.
    assert abs(losses[0] - losses[1]) < 1e-5 * losses[0], losses
    print(f"  loss of one batch: {losses[0]:.6f} shared, {losses[1]:.6f} a row each; one mask per sample on all sides")


def compare_with_trainer(world: Hypergraph, num_rounds: int, steps: int) -> None:
    """Samples per second against Trainer, and whether all of them learn."""
    bert = make_bert(world, 128)
    names = {"ours, rows shared": True, "ours, a row each": False}
    others = {name: Ours(world, 128, BATCH, merge) for name, merge in names.items()}
    print(f"\ntraining, batch {BATCH:,}, {num_rounds} rounds of {steps} steps after one that is not measured")
    check_sharing(*others.values())
    before = held_out(world, bert, others)
    for ours in others.values():
        ours.engine.module.train()
    seconds = race(world, bert.train(), others, num_rounds, steps)
    after, least = held_out(world, bert, others), least_nats(world)
    print(f"  {'':<20} {'samples/s':>26} {'times Trainer':>22}  held-out nats after {(num_rounds + 1) * steps} steps")
    for name, spent in seconds.items():
        rate, ratio = spread(steps * BATCH / spent / 1e3, "k"), spread(seconds["trainer"] / spent)
        print(f"  {name:<20} {rate:>26} {ratio:>22}  {before[name]:.3f} -> {after[name]:.3f}")
        assert after[name] < before[name], f"{name} does not learn"
        assert after[name] < after["trainer"] + LEARNS_AS_WELL, f"{name} learns less than the trainer"
    print(f"  least possible held-out nats, those of the world itself: {least:.3f}")
    print(f"  contexts of the last step: {', '.join(str(ours.num_contexts) for ours in others.values())}")
    ratio = np.median(seconds["trainer"] / seconds["ours, rows shared"])
    print(f"  ours is {ratio:.2f} times Trainer (wanted: 2.5, aimed at: 4)")


def compare_with_matmul(world: Hypergraph, num_rounds: int) -> None:
    """Our floating-point rate as a share of what torch.mm reaches in the same rounds."""
    left, right, out = torch.randn(2048, 128), torch.randn(128, 512), torch.empty(2048, 512)
    runs = {(w, b): Ours(world, w, b, merge=True) for w in (128, 256) for b in (1_024, 8_192, 32_768)}
    calls = {key: max(1, 8_192 // key[1]) for key in runs}
    for run in runs.values():
        run.engine.module.train()
    contenders: dict[str, Any] = {f"{w} {b}": lambda run=run, n=calls[w, b]: run.run(n) for (w, b), run in runs.items()}
    contenders["mm"] = lambda: [torch.mm(left, right, out=out) for _ in range(MATMUL_CALLS)]
    seconds = alternate(contenders, num_rounds)
    matmul = 2 * 2048 * 128 * 512 * MATMUL_CALLS / seconds["mm"]
    print(f"\nshare of matrix multiplication, {num_rounds} rounds; torch.mm: {spread(matmul / 1e9)} Gflop/s")
    print(f"  {'width':>5} {'batch':>7} {'contexts':>8} {'samples/s':>22} {'Gflop/s':>20} {'share':>22}")
    for (w, b), run in runs.items():
        spent = seconds[f"{w} {b}"] / calls[w, b]
        rate = run.step_flop() / spent
        columns = spread(b / spent / 1e3, "k"), spread(rate / 1e9), spread(100 * rate / matmul, "%")
        print(f"  {w:>5} {b:>7,} {run.num_contexts:>8,} {columns[0]:>22} {columns[1]:>20} {columns[2]:>22}")
    print("  (wanted: 40%, aimed at: 60%)")


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num_rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=20, help="of a round against Trainer")
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = build_world(
        WorldConfig(generator="uniform", num_nodes=200, num_edges=2_000, size=SIZE, weights="dirichlet", seed=0)
    )
    print(f"clock: {CLOCK}; median [quartiles]")
    compare_with_trainer(world, args.num_rounds, args.steps)
    compare_with_matmul(world, args.num_rounds)


if __name__ == "__main__":
    main()
