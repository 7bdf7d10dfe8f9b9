from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hgscale.models.losses import ContextTensors, Decoder, MaskedLoss, MicroBatch, chunked_nll, size_nll

NUM_NODES = 7
# Losses here are sums of at most 40 terms below 10, and gradients of fewer, in float32 (2**-24 relative each).
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def random_bucket(num_rows: int, width: int, seed: int) -> ContextTensors:
    """Rows of 0 to width visible nodes, each with every other node as a target at a random weight."""
    random = torch.Generator().manual_seed(seed)
    visible = torch.full((num_rows, width), -1)
    rows, targets = [], []
    for row in range(num_rows):
        order = torch.randperm(NUM_NODES, generator=random)
        num_visible = int(torch.randint(width + 1, (), generator=random))
        visible[row, :num_visible] = order[:num_visible].sort().values
        rows += [row] * (NUM_NODES - num_visible)
        targets += order[num_visible:].tolist()
    shuffle = torch.randperm(len(rows), generator=random)
    return ContextTensors(
        visible=visible,
        num_masked=torch.ones(num_rows, dtype=torch.int64),
        rows=torch.tensor(rows)[shuffle],
        targets=torch.tensor(targets)[shuffle],
        weights=torch.rand(len(rows), generator=random) + 0.1,
    )


class Tabular(nn.Module):
    """One free hidden state per number of visible nodes: the smallest model that the loss can be asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(sizes=[2, 4])
        self.size_logits = nn.Parameter(torch.tensor([0.3, -0.5]))
        self.states = nn.Embedding(10, 3)
        self.decoder = Decoder(3, NUM_NODES)

    def nll(self, buckets: list[ContextTensors], max_logits: int) -> Tensor:
        parts = [
            chunked_nll(self.decoder, self.states((bucket.visible >= 0).sum(1)), bucket, max_logits)
            for bucket in buckets
        ]
        return torch.stack(parts).sum()


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def nll_by_hand(decoder: Decoder, hidden: Tensor, bucket: ContextTensors) -> Tensor:
    """Target by target: minus log of the softmax over the nodes that are not seen."""
    terms = []
    for row, target, weight in zip(bucket.rows.tolist(), bucket.targets.tolist(), bucket.weights, strict=True):
        logits = decoder.linear.weight @ hidden[row] + decoder.linear.bias
        seen = bucket.visible[row].tolist()
        possible = [node for node in range(NUM_NODES) if node not in seen]
        terms.append(-weight * torch.log_softmax(logits[possible], dim=0)[possible.index(target)])
    return torch.stack(terms).sum()


@pytest.mark.parametrize("width", [0, 1, 4])
def test_the_decoder_hides_visible_nodes_and_nothing_else(width):
    decoder = Decoder(3, NUM_NODES)
    visible = random_bucket(20, width, seed=1).visible
    hidden = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    logits, plain = decoder.logits(hidden, visible), decoder.linear(hidden)
    for row in range(20):
        for node in range(NUM_NODES):
            hides = node in visible[row].tolist()
            assert logits[row, node] == (-torch.inf if hides else plain[row, node])


@pytest.mark.parametrize("width", [0, 1, 4])
def test_the_nll_and_its_gradients_match_a_softmax_over_the_nodes_left(width):
    model = Tabular()
    bucket = random_bucket(9, width, seed=2)
    hidden = model.states((bucket.visible >= 0).sum(1))
    ours = chunked_nll(model.decoder, hidden, bucket, 1 << 20)
    expected = nll_by_hand(model.decoder, hidden, bucket)
    parameters = [*model.states.parameters(), *model.decoder.parameters()]
    torch.testing.assert_close(ours, expected, **CLOSE)
    for got, wanted in zip(
        torch.autograd.grad(ours, parameters, retain_graph=True),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_padding_changes_neither_the_nll_nor_its_gradients():
    model = Tabular()
    bucket = random_bucket(9, 3, seed=3)
    padded = replace(bucket, visible=torch.nn.functional.pad(bucket.visible, (0, 5), value=-1))
    losses = [model.nll([b], 1 << 20) for b in (bucket, padded)]
    assert losses[0] == losses[1]
    for got, wanted in zip(*(torch.autograd.grad(loss, [*model.decoder.parameters()]) for loss in losses), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("num_rows_at_once", [1, 2, 8, 9])
def test_chunks_give_the_same_loss_and_gradients(num_rows_at_once):
    model = Tabular()
    batch = MicroBatch([random_bucket(9, 3, 4), random_bucket(4, 0, 5)], torch.tensor([0.0, 0, 6, 0, 7]), 1 / 13)
    whole = MaskedLoss(model)(batch)
    chunked = MaskedLoss(model, max_logits=num_rows_at_once * NUM_NODES)(batch)
    torch.testing.assert_close(chunked, whole, **CLOSE)
    for got, wanted in zip(gradients(model, chunked), gradients(model, whole), strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_chunks_bound_the_logits_alive_at_once(monkeypatch: pytest.MonkeyPatch):
    model = Tabular()
    widest, logits = [], Decoder.logits

    def spied(decoder: Decoder, hidden: Tensor, visible: Tensor) -> Tensor:
        widest.append(len(hidden))
        return logits(decoder, hidden, visible)

    monkeypatch.setattr(Decoder, "logits", spied)
    loss = MaskedLoss(model, max_logits=2 * NUM_NODES)(MicroBatch([random_bucket(9, 3, 4)], torch.zeros(5), 1.0))
    assert widest == [2, 2, 2, 2, 1]
    loss.backward()
    assert sorted(widest[5:]) == [1, 2, 2, 2, 2]  # once more, on the way back


def test_shares_of_a_split_batch_add_up_to_the_whole():
    model = Tabular()
    buckets = [random_bucket(6, 3, 6), random_bucket(5, 2, 7), random_bucket(3, 0, 8)]
    counts = [torch.tensor([0.0, 0, 3, 0, 3]), torch.tensor([0.0, 0, 0, 0, 5]), torch.tensor([0.0, 0, 3, 0, 0])]
    loss = MaskedLoss(model)
    whole = loss(MicroBatch(buckets, sum(counts), 1 / 14))
    shares = [loss(MicroBatch([bucket], count, 1 / 14)) for bucket, count in zip(buckets, counts, strict=True)]
    torch.testing.assert_close(sum(shares), whole, **CLOSE)
    for got, wanted in zip(gradients(model, sum(shares)), gradients(model, whole), strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_the_size_head_pays_minus_log_of_each_size():
    model = Tabular()
    law = torch.tensor([0.3, -0.5]).exp()
    law /= law.sum()
    expected = -(3 * law[0].log() + 2 * law[1].log())
    torch.testing.assert_close(size_nll(model, torch.tensor([0.0, 0, 3, 0, 2])), expected, **CLOSE)


def test_the_size_head_costs_nothing_where_all_edges_have_one_size():
    model = Tabular()
    model.config.sizes, model.size_logits = [3], nn.Parameter(torch.tensor([0.7]))
    assert size_nll(model, torch.tensor([0.0, 0, 0, 9])) == 0


def test_contexts_move_between_devices_field_by_field():
    bucket = random_bucket(4, 2, 9)
    moved = replace(bucket, target_slots=bucket.targets).to(torch.device("meta"))
    assert moved.visible.device.type == moved.weights.device.type == moved.target_slots.device.type == "meta"
    assert moved.visible_slots is None
