from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from hgscale.data.masking import Masker, ObjectiveConfig
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import EdgeSampler, Hypergraph
from hgscale.hypergraph.tokens import CLS_ID, MASK_ID, PAD_ID, SEP_ID
from hgscale.models.losses import ContextTensors
from hgscale.models.reference import OrderedModel, build_reference, load

WORLD = Hypergraph.from_edges([[0, 1], [1, 2], [0, 1, 2], [0, 3, 5], [1, 2, 3, 4]], num_nodes=6)
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FIRST_NODE = 4  # token of node 0
# float32 sums of products of values below 10, through two layers.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def reference(name: str = "bert", num_nodes: int = 6, sizes: tuple[int, ...] = (2, 3, 4), **own) -> OrderedModel:
    torch.manual_seed(0)
    return build_reference(name, SHAPE, own, num_nodes, list(sizes)).eval()


def buckets(num_samples: int) -> list[ContextTensors]:
    ids = np.arange(num_samples)
    batch = Masker(EdgeSampler(WORLD, 0), ObjectiveConfig(), merge=False).batch(ids, ids)
    return [ContextTensors(**{name: torch.tensor(value) for name, value in vars(b).items()}) for b in batch.buckets]


def tokens_and_labels(bucket: ContextTensors) -> tuple[Tensor, Tensor]:
    """``[CLS] nodes and masks [SEP]`` and the hidden nodes, written place by place."""
    size = bucket.visible.shape[1] + int(bucket.num_masked[0])
    tokens = [[CLS_ID] + [MASK_ID] * size + [SEP_ID] for _ in bucket.visible]
    labels = [[-100] * (size + 2) for _ in bucket.visible]
    for row in range(len(tokens)):
        for node, slot in zip(bucket.visible[row].tolist(), bucket.visible_slots[row].tolist(), strict=True):
            tokens[row][slot + 1] = node + FIRST_NODE
    for row, slot, node in zip(
        bucket.rows.tolist(), bucket.target_slots.tolist(), bucket.targets.tolist(), strict=True
    ):
        labels[row][slot + 1] = node + FIRST_NODE
    return torch.tensor(tokens), torch.tensor(labels)


def test_the_nll_is_the_loss_of_transformers_own_bert(tmp_path: Path):
    model = reference()
    model.language_model.save_pretrained(tmp_path)
    bert = BertForMaskedLM.from_pretrained(tmp_path).eval()
    for bucket in buckets(40):
        tokens, labels = tokens_and_labels(bucket)
        num_hidden = int(bucket.num_masked[0])
        weight = (tokens.shape[1] - 2) / num_hidden
        with torch.no_grad():
            mean = bert(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels).loss
            expected = mean * len(tokens) * num_hidden * weight
            torch.testing.assert_close(model.nll([bucket], 1), expected, **CLOSE)


def test_the_nll_adds_up_over_buckets_and_takes_each_target_at_its_weight():
    model = reference()
    with torch.no_grad():
        parts = [float(model.nll([bucket], 1)) for bucket in buckets(40)]
        assert float(model.nll(buckets(40), 1)) == pytest.approx(sum(parts), rel=1e-5)
        bucket = buckets(40)[0]
        halved = replace(bucket, weights=bucket.weights / 2)
        assert float(model.nll([halved], 1)) == pytest.approx(parts[0] / 2, rel=1e-5)


def test_the_law_is_berts_at_the_first_mask_renormalised_over_the_nodes_left():
    model = reference(initializer_range=0.5)
    visible = torch.tensor([[0, 4], [2, 3]])
    with torch.no_grad():
        found = model.log_probs(visible, torch.tensor([2, 2])).exp()
        tokens = torch.tensor([[CLS_ID, 4, 8, MASK_ID, MASK_ID, SEP_ID], [CLS_ID, 6, 7, MASK_ID, MASK_ID, SEP_ID]])
        whole = model.language_model(tokens).logits[:, 3].double().softmax(1)
    for row in range(2):
        left = [node for node in range(6) if node not in visible[row].tolist()]
        mass = sum(whole[row, FIRST_NODE + node] for node in left)
        for node in range(6):
            expected = whole[row, FIRST_NODE + node] / mass if node in left else 0
            assert float(found[row, node]) == pytest.approx(float(expected), rel=1e-9)
        assert mass < 0.99  # else there is nothing to renormalise


def test_a_law_can_be_asked_with_nothing_visible():
    found = reference().log_probs(torch.zeros(1, 0, dtype=torch.int64), torch.tensor([3])).detach()
    assert found.shape == (1, 6)
    assert float(found.exp().sum()) == pytest.approx(1)


def test_it_sees_an_order():
    model = reference(initializer_range=0.5)
    one, other = model.log_probs(torch.tensor([[0, 4], [4, 0]]), torch.tensor([1, 1])).exp()
    assert float((one - other).abs().sum().detach()) > 0.1


def test_a_saved_reference_comes_back_whole(tmp_path: Path):
    model = reference()
    torch.nn.init.normal_(model.size_logits)
    model.save_pretrained(tmp_path)
    again = load(tmp_path).eval()
    assert (again.num_nodes, again.config.sizes) == (6, [2, 3, 4])
    assert torch.equal(again.size_logits, model.size_logits)
    visible, hidden = torch.tensor([[0, 1]]), torch.tensor([1])
    assert torch.equal(again.log_probs(visible, hidden), model.log_probs(visible, hidden))


@pytest.mark.parametrize("name", ["roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert"])
def test_any_masked_language_model_will_do(name):
    # More nodes than any of them has positions: RoBERTa and its kin count positions from the id of PAD.
    model = reference(name, num_nodes=3000, sizes=(2, 30))
    visible = torch.arange(2990, 2992).expand(3, 2)
    law = model.log_probs(visible, torch.tensor([28, 28, 28]))
    assert law.shape == (3, 3000)
    assert float(law[0].exp().sum().detach()) == pytest.approx(1)
    loss = model.nll(buckets(20), 1)
    loss.backward()
    assert torch.isfinite(loss)
    assert sum(int((p.grad != 0).any()) for p in model.language_model.parameters() if p.grad is not None) > 5


def test_width_and_depth_mean_the_same_by_any_name():
    model = build_reference("distilbert", SHAPE | {"hidden_dim": 32}, {}, 6, [2])
    assert (model.config.dim, model.config.n_layers, model.config.n_heads, model.config.hidden_dim) == (16, 2, 2, 32)


def test_the_standard_fields_of_bert_are_kept():
    config, standard = reference(hidden_dropout_prob=0.0).config, BertConfig()
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.0, 0.1)
    assert config.max_position_embeddings == standard.max_position_embeddings
    assert (config.vocab_size, config.pad_token_id) == (10, PAD_ID)


@pytest.mark.parametrize(
    ("name", "own", "words"),
    [
        ("brt", {}, ["model.name=brt", "did you mean bert?"]),
        ("set_encodr", {}, ["model.name=set_encodr", "did you mean set_encoder?"]),
        ("xyzzy", {}, ["model.name=xyzzy", "as in bert, set_encoder, or package.module:Class"]),
        ("resnet", {}, ["model.name=resnet"]),
        ("vit", {}, ["model.name=vit", "masked"]),
        ("bert-base-uncased", {}, ["model.name=bert-base-uncased"]),
        ("gpt2", {}, ["model.name=gpt2", "change model.config, or model.name"]),
        ("bert", {"hidden_dropout": 0.0}, ["model.config.hidden_dropout", "did you mean hidden_dropout_prob?"]),
        ("bert", {"vocab_size": 9}, ["model.config.vocab_size=9", "at least 10"]),
        ("bert", {"hidden_dropout_prob": "much"}, ["hidden_dropout_prob"]),
        ("bert", {"max_position_embeddings": 5}, ["edges of 4 nodes"]),
        ("roberta", {"max_position_embeddings": 6}, ["edges of 4 nodes"]),
        ("bert", {"vocab_size": "many"}, ["vocab_size"]),
        ("funnel", {}, ["model.name=funnel", "num_hidden_layers"]),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, own, words):
    with pytest.raises(ConfigError) as error:
        reference(name, **own)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert all(word in str(error.value) for word in words)


def test_the_longest_edge_just_fits():
    assert reference("bert", max_position_embeddings=6).config.max_position_embeddings == 6
