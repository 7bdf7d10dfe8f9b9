import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

from hgscale.data.batches import NO_LABEL, Batches, TensorBatch, batches
from hgscale.data.masking import Batch, Masker, ObjectiveConfig
from hgscale.data.stream import SamplesConfig
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import PAD, Hypergraph
from hgscale.hypergraph.tokens import CLS_ID, MASK_ID, NUM_MARKS, PAD_ID, SEP_ID
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.models.build import ModelConditionals
from hgscale.pretrain.shares import PretrainShares
from hgscale.pretrain.task import PretrainTask
from hgscale.train.config import TrainConfig

MIXED = Hypergraph.from_edges([[0], [0, 1], [1, 2], [0, 1, 2], [0, 1, 3], [1, 2, 3, 4], [0, 2, 3, 4]], range(1, 8))
PAIRS = Hypergraph.from_edges([[0, 1], [0, 2], [1, 2], [2, 3]], [4, 3, 2, 1])

Weights = dict[tuple[frozenset[int], int, int], float]


def of(world: Hypergraph = MIXED, num_samples: int | None = 1000, **arguments) -> Batches:
    return batches(world, num_samples, **{"global_batch": 96, "num_steps": 12} | arguments)


def weights_of(batch: TensorBatch) -> Weights:
    """Weight by visible nodes, number hidden and target."""
    found = {}
    for row, target, weight in zip(batch.rows.tolist(), batch.targets.tolist(), batch.weights.tolist(), strict=True):
        context = frozenset(batch.visible[row].tolist()) - {PAD}
        found[context, int(batch.num_masked[row]), target] = weight
    return found


def weights_of_buckets(batch: Batch) -> Weights:
    found = {}
    for bucket in batch.buckets:
        for row, target, weight in zip(bucket.rows, bucket.targets.tolist(), bucket.weights.tolist(), strict=True):
            found[frozenset(bucket.visible[row].tolist()) - {PAD}, int(bucket.num_masked[row]), target] = weight
    return found


@pytest.mark.parametrize("masking", ["random_subset", "one_mask"])
@pytest.mark.parametrize("num_samples", [None, 500])
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_batch_holds_exactly_what_a_pre_training_of_the_same_seeds_draws(masking, num_samples, world_size):
    config = WorldConfig(generator="uniform", num_nodes=12, num_edges=40, size=3, weights="dirichlet")
    task = PretrainTask(
        world=config,
        samples=SamplesConfig(num_samples=num_samples, seed=1),
        objective=ObjectiveConfig(masking=masking, seed=2),
        train=TrainConfig(num_steps=12, global_batch=96, seed=3),
    )
    for rank in range(world_size):
        mine = of(
            task.target_world,
            num_samples,
            masking=masking,
            sample_seed=1,
            mask_seed=2,
            order_seed=3,
            rank=rank,
            world_size=world_size,
        )
        shares = PretrainShares(task, True, rank, world_size)
        for step, batch in enumerate(mine):
            (wanted,) = shares.at(step).micro_batches
            assert weights_of(batch) == weights_of_buckets(wanted)
            assert batch.size_counts.tolist() == wanted.size_counts.tolist()
            assert batch.scale == 1 / 96


def test_contexts_are_one_bucket_of_distinct_rows_padded_behind():
    for batch in of(Hypergraph.from_edges([range(9), range(4), [2]])):
        assert batch.visible.dtype == batch.targets.dtype == torch.int64
        assert batch.weights.dtype == torch.float32
        rows = [tuple(row) for row in batch.visible.tolist()]
        assert len({*zip(rows, batch.num_masked.tolist(), strict=True)}) == len(rows)
        for row in rows:
            seen = [node for node in row if node != PAD]
            assert list(row) == sorted(seen) + [PAD] * (len(row) - len(seen))
        assert batch.rows.max() < len(rows)
    assert next(iter(of(Hypergraph.from_edges([[0], [1]])))).visible.shape[1] == 1  # no row is without a column


def test_the_loss_is_the_any_order_log_likelihood_per_sample():
    # At log-probabilities of a constant -1 a sample of size s loses s, whatever is hidden.
    batch = of(global_batch=960, num_samples=None)[0]
    logp = -torch.ones(len(batch.visible), 5)
    loss = -(batch.weights * logp[batch.rows, batch.targets]).sum() * batch.scale
    mean_size = float((batch.size_counts * torch.arange(5)).sum()) / 960
    assert float(loss) == pytest.approx(mean_size, rel=1e-5)


def test_it_begins_at_any_step_and_has_a_length():
    whole, later = of(), of(start_step=9)
    assert (len(whole), len(later)) == (12, 3)
    assert [weights_of(batch) for batch in later] == [weights_of(batch) for batch in whole][9:]
    assert list(of(start_step=12)) == []
    with pytest.raises(IndexError):
        later[3]


def test_the_shares_of_ranks_make_up_the_batch():
    whole = of(num_samples=None)[4]
    parts = [of(num_samples=None, rank=rank, world_size=4)[4] for rank in range(4)]
    total: Weights = {}
    for part in parts:
        for at, weight in weights_of(part).items():
            total[at] = total.get(at, 0) + weight
    assert weights_of(whole) == pytest.approx(total, rel=1e-6)
    assert sum(part.size_counts for part in parts).tolist() == whole.size_counts.tolist()


def test_a_data_loader_with_workers_gives_the_same_and_it_travels_light():
    mine = of()
    wanted = [weights_of(batch) for batch in mine]
    loaded = DataLoader(mine, batch_size=None, num_workers=2)
    assert [weights_of(batch) for batch in loaded] == wanted
    again = pickle.loads(pickle.dumps(mine))
    assert "_masker" not in vars(again)
    assert [weights_of(batch) for batch in again] == wanted


def test_batches_move_between_devices():
    moved = of()[0].to("meta")
    assert moved.visible.device.type == moved.size_counts.device.type == "meta"
    assert moved.scale == 1 / 96


def test_the_law_of_sizes_is_that_of_the_samples():
    mine = of(num_samples=700)
    edges = mine.world.sampler(0).draw(np.arange(700))
    counts = np.bincount(MIXED.sizes[edges])
    assert mine.sizes == {size: counts[size] / 700 for size in (1, 2, 3, 4)}


def test_each_sample_seen_is_counted_once_by_its_edge():
    for num_samples, seen in ((700, 700), (None, 12 * 96), (5000, 12 * 96)):
        mine = of(num_samples=num_samples, order_seed=4)
        ids = np.unique(np.concatenate([mine.stream.global_batch(step) for step in range(12)]))
        assert len(ids) == seen
        assert mine.counts().tolist() == np.bincount(MIXED.sampler(0).draw(ids), minlength=7).tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_steps": 0}, ["num_steps=0", "at least 1"]),
        ({"start_step": 13}, ["start_step=13", "0 to 12"]),
        ({"rank": 2, "world_size": 2}, ["rank=2", "0 to 1"]),
        ({"world_size": 0}, ["world_size=0"]),
        ({"world_size": 7}, ["7 workers"]),
        ({"masking": "two_masks"}, ["objective.masking=two_masks"]),
        ({"num_samples": 50}, ["num_samples=50", "96"]),
        ({"num_samples": 0}, ["num_samples=0"]),
    ],
)
def test_what_cannot_be_given_is_refused_at_once(arguments, words):
    with pytest.raises(ConfigError) as error:
        of(**arguments)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_rows_of_tokens_are_the_samples_in_their_order_with_their_masks():
    mine = of(num_samples=None, num_steps=3)
    rows = list(mine.as_dataset())
    assert len(rows) == 3 * 96
    sampler = mine.world.sampler(0)
    edges = sampler.draw(np.arange(3 * 96))
    weights: Weights = {}
    for number, row in enumerate(rows):
        size = int(MIXED.sizes[edges[number]])
        nodes = sampler.shuffled(np.array([number]), edges[number : number + 1], size)[0] + NUM_MARKS
        inputs, labels = row["input_ids"], row["labels"]
        assert row["attention_mask"] == [1] * (size + 2) + [0] * (4 - size)
        assert (inputs[0], inputs[size + 1], inputs[size + 2 :]) == (CLS_ID, SEP_ID, [PAD_ID] * (4 - size))
        hidden = [slot for slot in range(size) if inputs[slot + 1] == MASK_ID]
        assert [label for label in labels if label != NO_LABEL] == [int(nodes[slot]) for slot in hidden]
        assert [labels[slot + 1] == NO_LABEL for slot in range(size)] == [slot not in hidden for slot in range(size)]
        visible = frozenset(int(nodes[slot]) - NUM_MARKS for slot in range(size) if slot not in hidden)
        assert [inputs[slot + 1] - NUM_MARKS in visible for slot in range(size)] == [
            slot not in hidden for slot in range(size)
        ]
        for slot in hidden:
            at = (visible, len(hidden), int(nodes[slot]) - NUM_MARKS)
            weights[at] = weights.get(at, 0) + size / len(hidden)
    # What a pre-training gives to models with positions: one row per sample, each of its targets at the same weight.
    total: Weights = {}
    for bucket in (
        Masker(sampler, ObjectiveConfig(), merge=False).batch(np.arange(3 * 96), np.zeros(3 * 96, int)).buckets
    ):
        for row, target, weight in zip(bucket.rows, bucket.targets.tolist(), bucket.weights.tolist(), strict=True):
            at = (frozenset(bucket.visible[row].tolist()), int(bucket.num_masked[row]), target)
            total[at] = total.get(at, 0) + weight
    assert weights == pytest.approx(total, rel=1e-6)


def law_behind(world: Hypergraph, node: int) -> np.ndarray:
    """The other node of an edge that shows one, by the weights."""
    law = np.zeros(world.num_nodes)
    for edge, weight in zip(world.edges_of_size(2).tolist(), world.weights, strict=True):
        if node in edge:
            law[sum(edge) - node] += weight
    return law / law.sum()


def distance(asked: ModelConditionals, world: Hypergraph) -> float:
    """Mean l1 distance of the conditionals behind one node from the truth; 2 at most."""
    found = np.exp(asked.log_probs(np.arange(world.num_nodes)[:, None], 1))
    return float(np.mean([np.abs(found[node] - law_behind(world, node)).sum() for node in range(world.num_nodes)]))


def test_a_plain_trainer_trains_bert_on_it(tmp_path: Path):
    mine = batches(PAIRS, 4000, global_batch=256, num_steps=300)
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "hidden_dropout_prob": 0.0,
    }
    bert = BertForMaskedLM(BertConfig(vocab_size=mine.vocab_size, pad_token_id=PAD_ID, **shape))
    before = distance(ModelConditionals(bert, PAIRS.num_nodes, mine.sizes), PAIRS)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=300,
        per_device_train_batch_size=256,
        learning_rate=3e-3,
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=bert.train(), args=arguments, train_dataset=mine.as_dataset())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    after = distance(ModelConditionals(bert, PAIRS.num_nodes, mine.sizes), PAIRS)
    assert losses[-1] < losses[0]
    assert before > 0.5
    assert after < 0.2


class Table(nn.Module):
    """A free logit for each number hidden, visible node or none, and node: it can hold any law of pairs."""

    def __init__(self, num_nodes: int) -> None:
        super().__init__()
        self.num_nodes = num_nodes
        self.logits = nn.Parameter(torch.zeros(num_nodes + 1, num_nodes))

    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return self.logits[visible.max(dim=1).values]  # -1, where nothing is visible, is the last


def test_a_plain_loop_trains_a_module_of_ones_own_to_the_truth():
    mine = batches(PAIRS, global_batch=512, num_steps=300)
    model = Table(PAIRS.num_nodes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step, batch in enumerate(mine):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 300)
        logits = model(batch.visible, batch.num_masked)
        shown = torch.zeros_like(logits, dtype=torch.bool)
        shown.scatter_(1, batch.visible.clamp(min=0), batch.visible >= 0)
        logp = torch.log_softmax(logits.masked_fill(shown, -torch.inf), dim=1)
        loss = -(batch.weights * logp[batch.rows, batch.targets]).sum() * batch.scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # A law of two nodes seen some 10**4 times is off by about 0.01.
    assert distance(ModelConditionals(model, PAIRS.num_nodes, mine.sizes), PAIRS) < 0.05
