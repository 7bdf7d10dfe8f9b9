import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForMaskedLM

from hgscale.data.masking import Batch, Masker, ObjectiveConfig
from hgscale.hypergraph.structure import PAD, EdgeSampler, Hypergraph
from hgscale.models.encoder import SetEncoder, SetEncoderConfig, attend
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch
from tests.unit.train.counting import kept_bytes

NUM_NODES = 12
SIZES = [1, 2, 3, 4, 6]
# A logit here is a sum of 16 products after two layers, of values below 30: rounding in float32 (2**-24) stays below
# 1e-5 of the largest, whatever the order of the sums.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}

WORLD = Hypergraph.from_edges(
    [[0], [3], [0, 1], [1, 2], [0, 1, 2], [0, 1, 3], [1, 2, 3, 4], [0, 1, 2, 4, 6, 7], [5, 6, 7, 8, 9, 11]],
    range(1, 10),
    num_nodes=NUM_NODES,
)


def encoder(num_nodes: int = NUM_NODES, **fields) -> SetEncoder:
    """Small, with weights so large that every context has a law of its own."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.4}
    return SetEncoder(SetEncoderConfig(num_nodes=num_nodes, sizes=SIZES, **shape | fields))


def tensors(batch: Batch) -> list[ContextTensors]:
    arrays = [(b.visible, b.num_masked, b.rows, b.targets, b.weights) for b in batch.buckets]
    return [ContextTensors(*map(torch.from_numpy, bucket)) for bucket in arrays]


def rows(*contexts: Sequence[int], width: int | None = None) -> Tensor:
    width = max(map(len, contexts)) if width is None else width
    return torch.tensor([[*context, *[PAD] * (width - len(context))] for context in contexts], dtype=torch.int64)


def log_probs(model: SetEncoder, visible: Tensor, *num_masked: int) -> Tensor:
    with torch.no_grad():
        return model.log_probs(visible, torch.tensor(num_masked))


def gradients(model: SetEncoder, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def test_a_law_is_normalised_over_the_nodes_that_are_not_seen():
    visible = rows([0, 1, 2], [4, 7], [], [11])
    found = log_probs(encoder(), visible, 1, 2, 3, 1)
    assert found.dtype == torch.float64
    # A float64 log-softmax over 12 nodes.
    torch.testing.assert_close(found.exp().sum(1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-14)
    for row, seen in zip(found, visible.tolist(), strict=True):
        assert [node for node in range(NUM_NODES) if row[node] == -torch.inf] == [node for node in seen if node != PAD]


def test_the_order_of_visible_nodes_does_not_matter():
    model = encoder()
    found = log_probs(model, rows([2, 5, 9], [9, 2, 5], [5, 9, 2], [9, 5, 2]), 2, 2, 2, 2)
    torch.testing.assert_close(found, found[:1].expand_as(found), **CLOSE)


def test_visible_nodes_and_the_number_hidden_decide_the_law():
    found = log_probs(encoder(), rows([2, 5], [2, 6], [2], [2, 5]), 1, 1, 1, 2).exp()
    for one, other in combinations(found, 2):
        assert (one - other).abs().sum() > 0.1


@pytest.mark.parametrize("width", [3, 4, 9])
def test_padding_does_not_matter(width):
    model = encoder()
    contexts = [[], [3], [3, 8], [1, 4, 6]]
    padded = log_probs(model, rows(*contexts, width=width), 2, 1, 3, 1)
    alone = [log_probs(model, rows(context), hidden) for context, hidden in zip(contexts, [2, 1, 3, 1], strict=True)]
    torch.testing.assert_close(padded, torch.cat(alone), **CLOSE)


def test_reading_all_nodes_equals_gathering_those_that_occur():
    model = encoder(num_nodes=40)
    contexts = [[i, i + 10, i + 20] for i in range(10)] * 2
    everything = log_probs(model, rows(*contexts), *[2] * 20)  # 60 places, more than 40 nodes
    assert 3 * 20 >= 40 > 3 * 5
    for start in range(0, 20, 5):
        gathered = log_probs(model, rows(*contexts[start : start + 5]), *[2] * 5)
        torch.testing.assert_close(gathered, everything[start : start + 5], rtol=1e-5, atol=1e-5)


def test_buckets_read_together_equal_buckets_read_alone():
    model = encoder(num_nodes=40)
    visible = [rows([], []), rows([1, 2], [3]), rows([4, 5, 6], [1, 5])]
    hidden = [torch.tensor([1, 2])] * 3
    together = model.hidden(visible, hidden)
    for i in range(3):
        torch.testing.assert_close(together[i], model.hidden(visible[i : i + 1], hidden[:1])[0], **CLOSE)


def test_the_nll_is_that_of_the_laws():
    model = encoder()
    batch = Masker(EdgeSampler(WORLD, 0), ObjectiveConfig()).batch(np.arange(200), np.arange(200))
    expected = 0.0
    for bucket in tensors(batch):
        law = model.log_probs(bucket.visible, bucket.num_masked)
        expected -= float((bucket.weights * law[bucket.rows, bucket.targets]).sum().detach())
    # float32 sums of some 600 terms: 600 * 2**-24 at most.
    assert float(model.nll(tensors(batch), 1 << 20).detach()) == pytest.approx(expected, rel=4e-5)


@pytest.mark.parametrize("masking", ["random_subset", "one_mask"])
def test_the_merged_batch_has_the_loss_and_gradient_of_its_samples_one_by_one(masking):
    model = encoder()
    masker = Masker(EdgeSampler(WORLD, 0), ObjectiveConfig(masking=masking))
    ids = np.arange(96)
    merged = masker.batch(ids, ids)
    assert sum(len(bucket.visible) for bucket in merged.buckets) < 96  # else nothing was merged
    loss = MaskedLoss(model)
    whole = loss(MicroBatch(tensors(merged), torch.from_numpy(merged.size_counts), 1 / 96))
    shares = []
    for i in ids:
        alone = masker.batch(ids[i : i + 1], ids[i : i + 1])
        (bucket,) = tensors(alone)
        unpadded = replace(bucket, visible=bucket.visible[bucket.visible != PAD][None])
        shares.append(loss(MicroBatch([unpadded], torch.from_numpy(alone.size_counts), 1 / 96)))
    parts = torch.stack(shares).sum()
    torch.testing.assert_close(whole, parts, **CLOSE)
    expected = gradients(model, parts)
    for name, got in gradients(model, whole).items():
        # Both are float32 sums of the same terms in another order: some 96 * 16 roundings of the largest entry.
        torch.testing.assert_close(
            got, expected[name], rtol=0, atol=96 * 16 * 2**-24 * float(expected[name].abs().max())
        )
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())


def test_an_empty_context_in_a_padded_bucket_has_the_gradient_of_one_alone():
    model = encoder()
    targets = {"rows": torch.tensor([0, 0, 0]), "targets": torch.tensor([0, 3, 7]), "weights": torch.ones(3)}
    hidden = torch.tensor([3])
    alone = model.nll([ContextTensors(rows([]), hidden, **targets)], 1 << 20)
    padded = model.nll([ContextTensors(rows([], width=4), hidden, **targets)], 1 << 20)
    torch.testing.assert_close(padded, alone, **CLOSE)
    expected = gradients(model, alone)
    for name, got in gradients(model, padded).items():
        torch.testing.assert_close(got, expected[name], **CLOSE)


def test_activation_checkpointing_gives_the_same_gradients():
    batch = tensors(Masker(EdgeSampler(WORLD, 0), ObjectiveConfig()).batch(np.arange(64), np.arange(64)))
    kept, computed_twice = encoder(), encoder(activation_checkpointing=True)
    calls = []
    computed_twice.blocks[0].up.register_forward_hook(lambda *_: calls.append(1))
    expected = gradients(kept.train(), kept.nll(batch, 1 << 20))
    loss = computed_twice.train().nll(batch, 1 << 20)
    num_forward = len(calls)
    found = gradients(computed_twice, loss)
    assert len(calls) == 2 * num_forward
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[name])


def test_activation_checkpointing_keeps_less_for_the_way_back():
    batch = tensors(Masker(EdgeSampler(WORLD, 0), ObjectiveConfig()).batch(np.arange(512), np.arange(512)))
    visible, hidden = [b.visible for b in batch], [b.num_masked for b in batch]
    sizes = []
    for flag in (False, True):
        model = encoder(num_hidden_layers=6, activation_checkpointing=flag).train()
        sizes.append(kept_bytes(functools.partial(model.hidden, visible, hidden)))
    kept, computed_twice = sizes
    # Of a layer with keys of 4 nodes it keeps one state of the (6 + 2 x 4 + 2 x 4) that stand in pretrain/cost.py.
    assert computed_twice < kept / 5


def test_narrow_tables_are_widened_and_narrowed_again():
    model = encoder(embedding_size=4)
    assert model.node_embedding.weight.shape == (NUM_NODES, 4)
    assert model.decoder.linear.weight.shape == (NUM_NODES, 4)
    law = log_probs(model, rows([0, 1], [2, 3]), 2, 2)
    torch.testing.assert_close(law.exp().sum(1), torch.ones(2, dtype=torch.float64))
    found = gradients(model, model.nll([bucket_of_pairs()], 1 << 20))
    assert all(
        float(found[name].abs().sum()) > 0 for name in ("widen.weight", "narrow.weight", "node_embedding.weight")
    )
    # Logits are 4 numbers of a context by 4 of a node, and a bias: of rank 4 over contexts, however wide the blocks.
    contexts = rows(*[[i, j] for i in range(6) for j in range(i)])
    logits = model.decoder.linear(model.hidden([contexts], [torch.full((len(contexts),), 2)])[0])
    assert int(torch.linalg.matrix_rank(logits - model.decoder.linear.bias, rtol=1e-4)) == 4


def bucket_of_pairs() -> ContextTensors:
    """Two contexts of two nodes, one hidden behind each."""
    one = torch.ones(2, dtype=torch.int64)
    return ContextTensors(rows([0, 1], [2, 3]), one, torch.arange(2), torch.tensor([4, 5]), torch.ones(2))


def test_a_saved_model_is_read_by_the_auto_classes_of_transformers(tmp_path: Path):
    model = encoder()
    torch.nn.init.normal_(model.size_logits)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert isinstance(config, SetEncoderConfig)
    assert isinstance(again, SetEncoder)
    assert (config.num_nodes, config.sizes, config.mask_token_id, config.pad_token_id) == (12, SIZES, 12, 13)
    assert torch.equal(again.size_logits, model.size_logits)
    visible = rows([0, 1, 2], [4, 7], [])
    assert torch.equal(log_probs(again, visible, 1, 2, 3), log_probs(model, visible, 1, 2, 3))
    tokens = torch.tensor([[12, 3, 5], [7, 12, 12]])
    assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_the_transformers_interface_gives_the_mean_cross_entropy_of_the_laws():
    model = encoder()
    mask, pad = model.config.mask_token_id, model.config.pad_token_id
    tokens = torch.tensor([[mask, 3, 5, mask], [7, mask, pad, pad], [mask, mask, mask, pad]])
    labels = torch.tensor([[1, -100, -100, 8], [-100, 2, -100, -100], [4, 5, 9, -100]])
    output = model(tokens, labels=labels)
    law = log_probs(model, rows([3, 5], [7], []), 2, 1, 3)
    expected = -sum(law[row, node] for row, node in [(0, 1), (0, 8), (1, 2), (2, 4), (2, 5), (2, 9)]) / 6
    torch.testing.assert_close(output.loss.double(), expected, **CLOSE)
    assert output.logits.shape == (3, 4, NUM_NODES + 2)
    for place in range(4):
        found = torch.log_softmax(output.logits[:, place, :NUM_NODES].double(), dim=1)
        torch.testing.assert_close(found, law, **CLOSE)
    assert (output.logits[:, :, NUM_NODES:] == -torch.inf).all()


def test_an_attention_mask_leaves_out_what_it_covers():
    model = encoder()
    mask = model.config.mask_token_id
    covered = model(torch.tensor([[mask, 3, 5, mask]]), attention_mask=torch.tensor([[1, 1, 0, 0]])).logits
    torch.testing.assert_close(covered[:, :2], model(torch.tensor([[mask, 3]])).logits, **CLOSE)


def test_training_finds_the_posteriors_of_a_small_world():
    # Edges {0,1}, {0,2} and {1,2} at weights 1, 2, 3: node 1 goes with 0 once and with 2 three times in four, and a
    # hidden node of an unseen edge is 0, 1 or 2 at (1 + 2) / 12, (1 + 3) / 12, (2 + 3) / 12.
    world = Hypergraph.from_edges([[0, 1], [0, 2], [1, 2]], [1, 2, 3])
    torch.manual_seed(0)
    model = SetEncoder(SetEncoderConfig(num_nodes=3, sizes=[2], hidden_size=16, num_attention_heads=2))
    batch = Masker(EdgeSampler(world, 0), ObjectiveConfig()).batch(np.arange(40_000), np.arange(40_000))
    micro = MicroBatch(tensors(batch), torch.from_numpy(batch.size_counts), 1 / 40_000)
    loss, optimizer = MaskedLoss(model), torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(micro)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    # A node of three at first, then one of two at even odds; at the end the entropy of an ordered edge.
    assert losses[0] == pytest.approx(math.log(3) + math.log(2), abs=0.02)
    entropy = -sum(w * math.log(w / 2) for w in (1 / 6, 1 / 3, 1 / 2))
    # A frequency among 40,000 samples is off by 0.0025 (one standard deviation), the entropy by its slope of 1 in that.
    assert losses[-1] == pytest.approx(entropy, abs=0.01)
    found = log_probs(model, rows([], [0], [1], [2]), 2, 1, 1, 1).exp()
    expected = [[3 / 12, 4 / 12, 5 / 12], [0, 1 / 3, 2 / 3], [1 / 4, 0, 3 / 4], [2 / 5, 3 / 5, 0]]
    # Each rests on 5,000 samples or more: four standard deviations of 0.007 at most.
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0.03)


def test_gradients_reach_only_the_nodes_that_were_gathered():
    model = encoder(num_nodes=40)
    (state,) = model.hidden([rows([3, 7])], [torch.tensor([1])])
    (gradient,) = torch.autograd.grad(state[0, 0], [model.node_embedding.weight])
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [3, 7]


def test_attention_written_out_equals_torchs():
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(shape, generator=generator).double() for shape in ((5, 8), (5, 3, 8), (5, 3, 8)))
    key_mask = torch.tensor([[True, True, True], [True, False, True], [True, False, False]] + [[True] * 3] * 2)
    heads = [rearrange(x, "c n (h e) -> c h n e", h=2) for x in (query[:, None], keys, values)]
    for mask in (None, key_mask):
        expected = functional.scaled_dot_product_attention(
            *heads, attn_mask=None if mask is None else rearrange(mask, "c n -> c 1 1 n")
        )
        found = attend(query, keys, values, mask, num_heads=2)
        torch.testing.assert_close(found, rearrange(expected, "c h 1 e -> c (h e)"), rtol=1e-12, atol=1e-12)


def test_modules_are_called_alike_whatever_the_batch() -> None:
    # Under ZeRO 3 a call puts the module's weights together, which every rank must do: ranks hang whose batches differ
    # in what they call. One sample shows less nodes than there are, and fills one bucket of two.
    masker = Masker(EdgeSampler(WORLD, seed=0), ObjectiveConfig(), every_bucket=True)
    visits = np.zeros(500, dtype=np.int64)
    batches = [masker.batch(np.arange(size), visits[:size]) for size in (1, 2, 500)]
    shown = [sum(bucket.visible.size for bucket in batch.buckets) for batch in batches]
    assert shown[0] < NUM_NODES <= shown[2]
    asked = [[len(bucket.targets) for bucket in batch.buckets] for batch in batches]
    assert 0 in asked[0]
    assert 0 not in asked[2]
    first, *others = [calls(encoder(), batch) for batch in batches]
    assert first[1]
    assert others == [first, first]


def calls(model: SetEncoder, batch: Batch) -> tuple[list[str], list[str]]:
    """Names of the modules that are called in a step: forward, in order; and those that gradients pass."""
    forward: list[str] = []
    backward: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: forward.append(name))
        if not list(module.children()):
            module.register_full_backward_hook(lambda *_, name=name: backward.append(name))
    micro = MicroBatch(tensors(batch), torch.from_numpy(batch.size_counts), 1.0)
    MaskedLoss(model)(micro).backward()
    return forward, sorted(backward)
