"""VM-HAN: a training step with all pairs of a context scored together, against a plain loop over pairs.

    PYTHONPATH=. python tests/bench/bench_vmhan.py

The loop is the same network with the same weights: for each pair the whole hypergraph of its context, forward and
backward, gradients added up. So both sides have the same loss and the same gradients, which is checked first. A third
side shows what batching alone gives: each pair is a row with the hypergraph of its context, all rows in one batch.

Contexts are shaped as in MNRE (text only, entities counted in its training split) and as in planted data of 6 entities
and 3 objects. Text features are random, or come from a randomly initialised BERT of 6 layers, 384 wide, on 30 tokens,
which the loop has to run for each pair.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from einops import einsum, reduce
from rounds import CLOCK, alternate, spread
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from hgscale.models.vmhan import RelationBatch, Vmhan, VmhanModelConfig, VmhanOutput

TEXT_SIZE, VISION_SIZE, NUM_LABELS = 384, 512, 23
NUM_TOKENS = 30
# Contexts of MNRE's training split with so many entities.
MNRE_ENTITIES = {2: 5553, 3: 1461, 4: 291, 5: 42, 6: 7, 7: 2}
WANTED = {"MNRE": (1.5, 2.0), "planted": (5.0, 10.0)}
# float64 sums of a few hundred rows in another order.
SAME = 1e-9


@dataclass(frozen=True)
class Inputs:
    """tokens [r l] int64; spans [r e l] float, the share of each token in a mention; what else the network takes."""

    tokens: Tensor
    spans: Tensor
    batch: RelationBatch


class Scorer(nn.Module):
    """The network, behind a text encoder where there is one."""

    def __init__(self, vision_size: int, encodes: bool) -> None:
        super().__init__()
        self.network = Vmhan(VmhanModelConfig(text_size=TEXT_SIZE, vision_size=vision_size, num_labels=NUM_LABELS))
        shape = {"hidden_size": TEXT_SIZE, "num_hidden_layers": 6, "num_attention_heads": 12}
        self.encoder = BertModel(BertConfig(**shape, intermediate_size=4 * TEXT_SIZE)) if encodes else None

    def forward(self, inputs: Inputs) -> VmhanOutput:
        batch = inputs.batch
        if self.encoder is not None:
            states = self.encoder(input_ids=inputs.tokens).last_hidden_state
            mentions = einsum(inputs.spans.to(states.dtype), states, "r e l, r l t -> r e t")
            batch = replace(batch, mentions=mentions, sentence=reduce(states, "r l t -> r t", "mean"))
        return self.network(batch)


def random_inputs(counts: np.ndarray, num_objects: int, generator: torch.Generator) -> Inputs:
    """Contexts with so many entities and objects, and all pairs of entities.  counts [r] -> padded."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    num_rows, most = len(counts), int(counts.max())
    mask = torch.arange(most) < torch.from_numpy(counts)[:, None]
    starts = torch.randint(NUM_TOKENS - 1, (num_rows, most, 1), generator=generator)
    place = torch.arange(NUM_TOKENS)
    pairs = [(row, i, j) for row, count in enumerate(counts) for i, j in combinations(range(count), 2)]
    batch = RelationBatch(
        mentions=normal(num_rows, most, TEXT_SIZE) * mask[..., None],
        sentence=normal(num_rows, TEXT_SIZE),
        entity_mask=mask,
        image=normal(num_rows, VISION_SIZE) if num_objects else None,
        image_mask=torch.full((num_rows,), num_objects > 0),
        objects=normal(num_rows, num_objects, VISION_SIZE) if num_objects else None,
        object_mask=torch.ones(num_rows, num_objects, dtype=torch.bool),
        prior=None,
        pairs=torch.tensor(pairs),
        labels=torch.randint(NUM_LABELS, (len(pairs),), generator=generator),
        pair_weight=1 / len(pairs),
        row_weight=1 / num_rows,
        kl_scale=1.0,
    )
    tokens = torch.randint(1000, 30000, (num_rows, NUM_TOKENS), generator=generator)
    return Inputs(tokens, ((place == starts) | (place == starts + 1)) / 2, batch)


def rows_of(inputs: Inputs, rows: Tensor, num_entities: int) -> Inputs:
    """Some rows again, in their order, without their pairs.  rows [r'] int64."""
    batch = inputs.batch
    return Inputs(
        inputs.tokens[rows],
        inputs.spans[rows, :num_entities],
        replace(
            batch,
            mentions=batch.mentions[rows, :num_entities],
            sentence=batch.sentence[rows],
            entity_mask=batch.entity_mask[rows, :num_entities],
            image=None if batch.image is None else batch.image[rows],
            image_mask=batch.image_mask[rows],
            objects=None if batch.objects is None else batch.objects[rows],
            object_mask=batch.object_mask[rows],
        ),
    )


def pair_by_pair(inputs: Inputs) -> Iterator[Inputs]:
    """Each pair with the hypergraph of its context, not padded, whose share of the loss its pairs divide."""
    batch = inputs.batch
    num_pairs = torch.bincount(batch.pairs[:, 0])
    for pair, label in zip(batch.pairs, batch.labels, strict=True):
        row = int(pair[0])
        one = rows_of(inputs, pair[:1], int(batch.entity_mask[row].sum()))
        pairs = torch.tensor([[0, int(pair[1]), int(pair[2])]])
        row_weight = batch.row_weight / int(num_pairs[row])
        yield replace(one, batch=replace(one.batch, pairs=pairs, labels=label[None], row_weight=row_weight))


def pairs_as_rows(inputs: Inputs) -> Inputs:
    """All pairs, each a row with the hypergraph of its context, in one batch."""
    pairs = inputs.batch.pairs
    rows = rows_of(inputs, pairs[:, 0], inputs.spans.shape[1])
    pairs = torch.stack([torch.arange(len(pairs)), pairs[:, 1], pairs[:, 2]], dim=1)
    return replace(rows, batch=replace(rows.batch, pairs=pairs, row_weight=1 / len(pairs)))


def step(scorer: Scorer, parts: list[Inputs]) -> None:
    """Gradients of the batch, from its parts."""
    scorer.zero_grad()
    for part in parts:
        scorer(part).loss.backward()


def as_float64(inputs: Inputs) -> Inputs:
    values = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in vars(inputs.batch).items()
    }
    return replace(inputs, batch=RelationBatch(**values))


def check(scorer: Scorer, inputs: Inputs) -> float:
    """Largest difference between gradients of both sides, as a share of the largest gradient of that parameter."""
    exact = copy.deepcopy(scorer).double().eval()
    step(exact, [as_float64(inputs)])
    wanted = [parameter.grad.clone() for parameter in exact.parameters() if parameter.grad is not None]
    logits = exact(as_float64(pairs_as_rows(inputs))).logits
    torch.testing.assert_close(logits, exact(as_float64(inputs)).logits, rtol=SAME, atol=SAME)
    step(exact, [as_float64(part) for part in pair_by_pair(inputs)])
    found = [parameter.grad for parameter in exact.parameters() if parameter.grad is not None]
    scale = max(float(grad.abs().max()) for grad in wanted)
    worst = max(float((one - two).abs().max()) for one, two in zip(wanted, found, strict=True)) / scale
    assert worst < SAME, f"gradients of the two sides differ by {worst:.1e} of the largest"
    return worst


def measure(name: str, counts: np.ndarray, num_objects: int, encodes: bool, num_rounds: int, num_checked: int) -> None:
    """Check and time one shape of contexts; print its lines."""
    torch.manual_seed(0)
    scorer = Scorer(VISION_SIZE if num_objects else 0, encodes).train()
    worst = check(scorer, random_inputs(counts[:num_checked], num_objects, torch.Generator().manual_seed(1)))
    inputs = random_inputs(counts, num_objects, torch.Generator().manual_seed(2))
    apart, rows = list(pair_by_pair(inputs)), pairs_as_rows(inputs)
    sides: dict[str, Callable[[], object]] = {
        "a loop over pairs": lambda: step(scorer, apart),
        "pairs as rows of one batch": lambda: step(scorer, [rows]),
        "together (ours)": lambda: step(scorer, [inputs]),
    }
    seconds = alternate(sides, num_rounds)
    loop, _, ours = seconds.values()
    text = "BERT in the loop" if encodes else "given features"
    print(f"{name}, {text}: {len(counts)} contexts, {len(apart)} pairs; gradients equal to {worst:.0e} of the largest")
    for side, spent in seconds.items():
        times = spread(loop / spent)
        print(f"  {side:<28} {spread(1e3 * spent):>26} {spread(len(counts) / spent):>26} {times:>22}")
    least, aim = WANTED[name]
    ratio = np.median(loop / ours)
    print(f"  together is {ratio:.1f} times the loop (median of rounds; wanted: {least}, aimed at: {aim})")


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num_contexts", type=int, default=64, help="contexts of a batch")
    parser.add_argument("--text", nargs="+", choices=["given", "bert"], default=["given", "bert"])
    parser.add_argument("--num_rounds", type=int, default=5)
    parser.add_argument("--num_encoder_rounds", type=int, default=2, help="rounds with BERT, whose loop takes long")
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights = np.array(list(MNRE_ENTITIES.values()))
    draw = np.random.default_rng(0)
    shapes = {
        "MNRE": (draw.choice(list(MNRE_ENTITIES), size=args.num_contexts, p=weights / weights.sum()), 0),
        "planted": (np.full(args.num_contexts, 6), 3),
    }
    print(f"clock: {CLOCK}")
    print(f"  {'median [quartiles]':<28} {'ms a step':>26} {'contexts/s':>26} {'times the loop':>22}")
    settings = {"given": (False, args.num_rounds, 64), "bert": (True, args.num_encoder_rounds, 4)}
    for text in args.text:
        for name, (counts, num_objects) in shapes.items():
            measure(name, counts, num_objects, *settings[text])


if __name__ == "__main__":
    main()
