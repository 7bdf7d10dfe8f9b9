from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from hgscale.errors import ConfigError
from hgscale.models.config import VmhanConfig
from hgscale.models.hyperedges import EDGE_TYPES, incidence_of, template
from hgscale.models.vmhan import (
    Gaussian,
    Node,
    RelationBatch,
    Vmhan,
    VmhanModelConfig,
    kl_from_standard_normal,
)
from tests.unit.models.vhan_oracle import Row, oracle

TEXT, VISION, PRIOR, LABELS = 5, 6, 3, 4
# Sums of tens of float64 products of values near 1, through up to three layers of norms.
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
SMALL = {"hidden_size": 8, "num_heads": 2, "num_layers": 2, "dropout": 0.0}


def config_of(**fields) -> VmhanConfig:
    return VmhanConfig(**SMALL | ({"weight_kl": 0.01} if fields.get("variational", True) else {}) | fields)


def network(vision_size: int = VISION, prior_size: int = PRIOR, **fields) -> Vmhan:
    """Small, float64, in evaluation, with weights of all kinds far from where they start."""
    torch.manual_seed(0)
    config = asdict(config_of(**fields))
    model = Vmhan(
        VmhanModelConfig(text_size=TEXT, vision_size=vision_size, prior_size=prior_size, num_labels=LABELS, **config)
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def row(num_entities: int, num_objects: int, image: bool, seed: int, pairs: Sequence | None = None) -> Row:
    """A row of random features; its pairs are all of two entities, in one order, and some with objects."""
    draw = np.random.default_rng([seed, num_entities, num_objects])
    if pairs is None:
        pairs = [*combinations(range(num_entities), 2), *((0, num_entities + k) for k in range(num_objects))]
    return Row(
        mentions=[draw.normal(size=TEXT) for _ in range(num_entities)],
        sentence=draw.normal(size=TEXT),
        image=draw.normal(size=VISION) if image else None,
        objects=[draw.normal(size=VISION) for _ in range(num_objects)],
        prior=[draw.normal(size=PRIOR) * (i % 2) for i in range(num_entities)],
        pairs=[(first, second, int(draw.integers(LABELS))) for first, second in pairs],
    )


def padded(lists: list[list[np.ndarray]], width: int, fill: float) -> tuple[Tensor, Tensor]:
    """[r n width], and which of them there are, [r n]."""
    most = max(map(len, lists), default=0)
    values = np.full((len(lists), most, width), fill)
    mask = np.zeros((len(lists), most), dtype=bool)
    for r, vectors in enumerate(lists):
        for i, vector in enumerate(vectors):
            values[r, i], mask[r, i] = vector, True
    return torch.from_numpy(values), torch.from_numpy(mask)


def batch_of(
    rows: list[Row], *, of: list[Row] | None = None, kl_scale: float = 0.5, fill: float = 0.0
) -> RelationBatch:
    """A micro-batch ``rows`` of the global batch ``of`` (itself)."""
    mentions, entity_mask = padded([x.mentions for x in rows], TEXT, fill)
    objects, object_mask = padded([x.objects for x in rows], VISION, fill)
    image, image_mask = padded([[] if x.image is None else [x.image] for x in rows], VISION, fill)
    most = mentions.shape[1]
    pairs = [
        (r, *(node if node < len(x.mentions) else node - len(x.mentions) + most for node in pair[:2]), pair[2])
        for r, x in enumerate(rows)
        for pair in x.pairs
    ]
    table = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 4)
    whole = rows if of is None else of
    return RelationBatch(
        mentions=mentions,
        sentence=torch.from_numpy(np.array([x.sentence for x in rows]).reshape(-1, TEXT)),
        entity_mask=entity_mask,
        image=image[:, 0] if image.shape[1] else None,
        image_mask=image_mask.any(1),
        objects=objects if objects.shape[1] else None,
        object_mask=object_mask,
        prior=padded([x.prior for x in rows], PRIOR, fill)[0],
        pairs=table[:, :3],
        labels=table[:, 3],
        pair_weight=1 / max(1, sum(len(x.pairs) for x in whole)),
        row_weight=1 / max(1, len(whole)),
        kl_scale=kl_scale,
    )


ROWS = [row(e, o, (e + o) % 2 == 0, 0) for e in range(1, 8) for o in range(11)]
FEW = [row(2, 1, True, 1), row(4, 3, True, 2), row(1, 2, False, 3), row(3, 0, False, 4), row(5, 2, True, 5)]
TEXT_PAIRS = [x._replace(pairs=list(x.pairs)[:1]) for x in FEW if len(x.mentions) > 1]  # no object in a pair


def numpy_weights(model: Vmhan) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def gradients(model: Vmhan, scalar: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(scalar, parameters, materialize_grads=True), strict=True))


@pytest.mark.parametrize("structure", ["hypergraph", "pairwise"])
@pytest.mark.parametrize(("num_layers", "reconstruct"), [(1, "features"), (2, "incidence")])
def test_one_batch_of_1_to_7_entities_and_0_to_10_objects_equals_loops_over_each(structure, num_layers, reconstruct):
    model = network(structure=structure, num_layers=num_layers, reconstruct=reconstruct)
    output = model(batch_of(ROWS))
    found = [oracle(numpy_weights(model), x, structure, num_layers, num_heads=2) for x in ROWS]
    logits = np.array([of_pair for of_row in found for of_pair in of_row.logits])
    np.testing.assert_allclose(output.logits.detach().numpy(), logits, **CLOSE)
    kl = np.mean([of_row.kl for of_row in found])
    reconstruction = np.mean([getattr(of_row, reconstruct) for of_row in found])
    labels = np.array([pair[2] for x in ROWS for pair in x.pairs])
    nats = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels])
    parts = [output.classification.item(), output.reconstruction.item(), output.kl.item(), output.loss.item()]
    np.testing.assert_allclose(
        parts, [nats, reconstruction, kl, nats + 0.1 * reconstruction + 0.01 * 0.5 * kl], **CLOSE
    )


def test_without_variances_the_network_equals_loops_too_and_information_is_free():
    model = network(variational=False)
    output = model.train()(batch_of(FEW))
    found = [oracle(numpy_weights(model), x, "hypergraph", 2, num_heads=2, variational=False) for x in FEW]
    logits = [of_pair for of_row in found for of_pair in of_row.logits]
    np.testing.assert_allclose(output.logits.detach().numpy(), logits, **CLOSE)
    assert output.kl.item() == 0


@pytest.mark.parametrize("structure", ["hypergraph", "pairwise"])
def test_without_products_the_network_equals_loops_too(structure):
    model = network(structure=structure, products=False)
    assert not any("products" in name for name in model.state_dict())
    found = [oracle(numpy_weights(model), x, structure, 2, num_heads=2) for x in FEW]
    logits = [of_pair for of_row in found for of_pair in of_row.logits]
    np.testing.assert_allclose(model(batch_of(FEW)).logits.detach().numpy(), logits, **CLOSE)


def test_pairs_of_two_objects_equal_loops_whatever_the_padding():
    pairs = [(2, 3), (4, 2), (0, 4)]
    rows = [row(2, 3, True, 7, pairs), row(5, 9, True, 8), row(7, 1, False, 9)]
    model = network()
    found = oracle(numpy_weights(model), rows[0], "hypergraph", 2, num_heads=2).logits
    for batch in (batch_of(rows[:1]), batch_of(rows), batch_of(rows[::2])):
        np.testing.assert_allclose(model(batch).logits[:3].detach().numpy(), found, **CLOSE)


def test_the_divergence_is_that_of_two_normal_laws():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(6, 3, 8, dtype=torch.float64), 2 * torch.randn(6, 3, 8, dtype=torch.float64)
    law = torch.distributions.Normal(mean, (log_variance / 2).exp())
    wanted = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_from_standard_normal(mean, log_variance), wanted, rtol=1e-12, atol=1e-12)
    assert kl_from_standard_normal(torch.zeros(3), torch.zeros(3)) == 0


@pytest.mark.parametrize("structure", ["hypergraph", "pairwise"])
@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("classification", {}),
        ("kl", {}),
        ("reconstruction", {"reconstruct": "incidence"}),
        ("reconstruction", {"reconstruct": "features"}),
    ],
)
def test_gradients_are_those_of_finite_differences_with_the_noise_held(structure, part, fields):
    model = network(structure=structure, num_layers=1, **fields).train()
    batch = batch_of(FEW[:3])

    def value() -> Tensor:
        torch.manual_seed(3)
        return getattr(model(batch), part)

    found = gradients(model, value())
    step, checked = 1e-5, 0
    for name, parameter in model.named_parameters():
        if fields.get("reconstruct") == "features" and not name.startswith(("node_gaussian", "decoder")):
            continue  # h is a target as well, and as a target it does not move
        torch.manual_seed(4)
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            at = []
            for places in (1, -2, 3, -4):  # to 1, -1, 2 and -2 steps from where it was
                parameter.add_(places * step * direction)
                at.append(value())
            parameter.add_(2 * step * direction)
        # Central differences over one step and over two: an error of order step**4, and rounding of 1e-16 / step.
        wanted = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * step)
        torch.testing.assert_close((found[name] * direction).sum(), wanted, rtol=1e-6, atol=1e-6, msg=name)
        checked += 1
    assert checked >= 6


def test_draws_are_the_mean_and_a_multiple_of_seeded_noise_within_bounds():
    gaussian = Gaussian(4, variational=True).double()
    h = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.nn.init.zeros_(gaussian.log_variance.weight)
    gaussian.log_variance.bias.data = torch.tensor([-100.0, -8.0, 1.0, 100.0], dtype=torch.float64)
    torch.manual_seed(2)
    draw, mean, log_variance = gaussian(h)
    torch.manual_seed(2)
    noise = torch.randn(3, 4, dtype=torch.float64)
    assert log_variance[0].tolist() == [-8, -8, 1, 4]
    torch.testing.assert_close((draw - mean) / noise, (log_variance / 2).exp())
    draw, mean, _ = gaussian.eval()(h)
    assert torch.equal(draw, mean)


def test_noise_follows_the_seed_in_training_and_is_absent_in_evaluation():
    model, batch = network(dropout=0.3), batch_of(FEW)
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(batch).logits

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.allclose(drawn(1), drawn(2))


@pytest.mark.parametrize("fill", [0.0, 7.0])
def test_a_row_alone_equals_the_row_among_larger_ones_whatever_is_in_the_padding(fill):
    model, together = network(), batch_of(FEW, fill=fill)
    logits = model(together).logits.split([len(x.pairs) for x in FEW])
    for alone, found in zip(FEW, logits, strict=True):
        torch.testing.assert_close(model(batch_of([alone])).logits, found, **CLOSE)
    finite = gradients(model, model(together).loss)
    for name, wanted in gradients(model, model(batch_of(FEW)).loss).items():
        torch.testing.assert_close(finite[name], wanted, **CLOSE, msg=name)


def test_the_order_of_other_entities_and_of_objects_does_not_matter():
    model, base = network(), row(4, 3, True, 6, pairs=[(0, 1)])
    wanted = model(batch_of([base])).logits
    for places in permutations(range(4)):
        objects = list(np.roll(np.arange(3), places[0]))
        moved = base._replace(
            mentions=[base.mentions[i] for i in places],
            prior=[base.prior[i] for i in places],
            objects=[base.objects[i] for i in objects],
            pairs=[(places.index(0), places.index(1), 0)],
        )
        torch.testing.assert_close(model(batch_of([moved])).logits, wanted, **CLOSE)


def test_the_order_of_the_pair_matters():
    forth, back = network()(batch_of([row(2, 1, True, 1, pairs=[(0, 1), (1, 0)])])).logits
    assert (forth - back).abs().max() > 0.01


def test_pairs_one_by_one_equal_a_batch_of_each():
    model, x = network(), row(4, 2, True, 6)
    ones = [
        x._replace(mentions=[x.mentions[i], x.mentions[j]], prior=[x.prior[i], x.prior[j]], pairs=[(0, 1, 2)])
        for i, j in combinations(range(4), 2)
    ]
    apart = torch.cat([model(batch_of([one])).logits for one in ones])
    torch.testing.assert_close(model(batch_of(ones)).logits, apart, **CLOSE)
    assert not torch.allclose(apart, model(batch_of([x])).logits[: len(apart)], atol=0.01)  # together is another model


def test_losses_and_gradients_of_micro_batches_add_up():
    model = network()
    whole = model(batch_of(ROWS))
    parts = [model(batch_of(part, of=ROWS)) for part in (ROWS[:1], ROWS[1:30], ROWS[30:])]
    for name in ("loss", "classification", "reconstruction", "kl"):
        total = torch.stack([getattr(part, name) for part in parts]).sum()
        torch.testing.assert_close(total, getattr(whole, name), **CLOSE)
    wanted = gradients(model, whole.loss)
    for name, found in gradients(model, torch.stack([part.loss for part in parts]).sum()).items():
        torch.testing.assert_close(found, wanted[name], **CLOSE, msg=name)


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"variational": False}, "loss"),
        ({"structure": "pairwise"}, "logits"),
        ({"products": False}, "logits"),
        ({"images": False}, "logits"),
        ({"objects": False}, "logits"),
        ({"num_heads": 4}, "logits"),
        ({"num_layers": 1}, "logits"),
        ({"reconstruct": "incidence"}, "reconstruction"),
        ({"weight_classification": 2.0}, "loss"),
        ({"weight_reconstruction": 0.0}, "loss"),
        ({"weight_kl": 0.0}, "loss"),
    ],
)
def test_every_switch_makes_a_difference(fields, changed):
    # The same weights where both have them: what differs comes from the switch alone.
    base, other, batch = network(), network(**fields), batch_of(TEXT_PAIRS)
    own = other.state_dict()
    kept = {k: v for k, v in base.state_dict().items() if k in own and v.shape == own[k].shape}
    other.load_state_dict(kept, strict=False)
    one, two = (getattr(model(batch), changed) for model in (base, other))
    assert (one - two).abs().max() > 1e-3


def test_draws_in_training_differ_from_means_only_if_the_network_is_variational():
    for variational in (True, False):
        model, batch = network(variational=variational), batch_of(FEW)
        quiet = model(batch).logits
        assert torch.equal(model.train()(batch).logits, quiet) is not variational


def test_the_warm_up_scales_the_divergence_alone():
    model = network()
    cold, warm = (model(batch_of(FEW, kl_scale=scale)) for scale in (0.0, 1.0))
    assert torch.equal(cold.kl, warm.kl)
    torch.testing.assert_close(warm.loss - cold.loss, 0.01 * warm.kl)


@pytest.mark.parametrize("switch", ["images", "objects"])
def test_leaving_out_nodes_is_as_if_there_were_none(switch):
    without = [x._replace(image=None) if switch == "images" else x._replace(objects=[]) for x in TEXT_PAIRS]
    left_out = network(**{switch: False})(batch_of(TEXT_PAIRS))
    torch.testing.assert_close(left_out.logits, network()(batch_of(without)).logits, **CLOSE)
    torch.testing.assert_close(left_out.loss, network()(batch_of(without)).loss, **CLOSE)


def test_objects_in_pairs_stay_when_objects_are_left_out():
    x = row(2, 3, True, 1, pairs=[(0, 3)])
    only = x._replace(objects=x.objects[1:2], pairs=[(0, 2, x.pairs[0][2])])
    torch.testing.assert_close(
        network(objects=False)(batch_of([x])).logits, network()(batch_of([only])).logits, **CLOSE
    )


def test_a_network_without_vision_sees_no_images_and_no_objects():
    bare = [x._replace(image=None, objects=[]) for x in TEXT_PAIRS]
    model = network(vision_size=0)
    torch.testing.assert_close(model(batch_of(TEXT_PAIRS)).logits, model(batch_of(bare)).logits, **CLOSE)


def test_what_the_prior_does_not_know_adds_nothing():
    batch = batch_of(FEW)
    unknown = replace(batch, prior=torch.zeros_like(batch.prior))
    model = network()
    assert torch.equal(model(replace(batch, prior=None)).logits, model(unknown).logits)
    assert not torch.allclose(model(batch).logits, model(unknown).logits, atol=0.01)


def members(structure: str, num_entities: int, num_objects: int, mask: list[int]) -> list[tuple[str, list[int]]]:
    graph = template(structure, num_entities, num_objects, torch.device("cpu"))
    (incidence,) = incidence_of(graph, torch.tensor([mask], dtype=torch.bool))
    return [
        (EDGE_TYPES[structure][kind], nodes.nonzero().flatten().tolist())
        for kind, nodes in zip(graph.types.tolist(), incidence, strict=True)
        if nodes.any()
    ]


def test_hyperedges_of_two_entities_and_two_objects_are_those_by_hand():
    # Nodes: entities 0 and 1, objects 2 and 3, the image 4.
    assert members("hypergraph", 2, 2, [1, 1, 1, 1, 1]) == [
        ("global", [0, 1, 2, 3, 4]),
        ("text", [0, 1]),
        ("visual", [2, 3, 4]),
        ("inter-modal", [0, 2, 3]),
        ("inter-modal", [1, 2, 3]),
        ("triple", [0, 1, 2]),
        ("triple", [0, 1, 3]),
    ]
    assert members("hypergraph", 2, 2, [1, 1, 1, 0, 0]) == [
        ("global", [0, 1, 2]),
        ("text", [0, 1]),
        ("visual", [2]),
        ("inter-modal", [0, 2]),
        ("inter-modal", [1, 2]),
        ("triple", [0, 1, 2]),
    ]
    assert members("hypergraph", 2, 2, [1, 1, 0, 0, 0]) == [("global", [0, 1]), ("text", [0, 1])]
    assert members("hypergraph", 2, 2, [1, 0, 0, 0, 1]) == [("global", [0, 4]), ("text", [0]), ("visual", [4])]
    assert members("hypergraph", 2, 2, [0, 0, 0, 0, 0]) == []
    assert members("hypergraph", 2, 0, [1, 1, 0]) == [("global", [0, 1]), ("text", [0, 1])]
    assert members("hypergraph", 1, 0, [1, 1]) == [("global", [0, 1]), ("text", [0]), ("visual", [1])]


def test_the_pairwise_graph_has_an_edge_for_every_two_nodes():
    assert members("pairwise", 2, 2, [1, 1, 1, 1, 1]) == [
        ("entity-entity", [0, 1]),
        ("entity-object", [0, 2]),
        ("entity-object", [0, 3]),
        ("entity-image", [0, 4]),
        ("entity-object", [1, 2]),
        ("entity-object", [1, 3]),
        ("entity-image", [1, 4]),
        ("object-object", [2, 3]),
        ("object-image", [2, 4]),
        ("object-image", [3, 4]),
    ]
    assert members("pairwise", 2, 2, [1, 0, 0, 1, 0]) == [("entity-object", [0, 3])]


def test_explanations_name_the_hyperedges_that_hold_both_nodes_and_their_weights():
    model, rows = network(dropout=0.5), [row(2, 1, False, 3), row(3, 2, True, 2, pairs=[(0, 2), (1, 4)])]
    batch = batch_of(rows)
    text, mixed = model.explain(batch)[-2:]
    assert model.train().explain(batch)[-2:] == [text, mixed]  # without noise in training too
    assert model.training
    assert (text.row, text.first, text.second) == (1, Node("entity", 0), Node("entity", 2))
    assert (mixed.first, mixed.second) == (Node("entity", 1), Node("object", 1))
    e, v, image = [Node("entity", i) for i in range(3)], [Node("object", i) for i in range(2)], Node("image", 0)
    assert {(edge.type, edge.nodes) for edge in text.edges} == {
        ("global", (*e, *v, image)),
        ("text", tuple(e)),
        ("triple", (e[0], e[2], v[0])),
        ("triple", (e[0], e[2], v[1])),
    }
    assert {(edge.type, edge.nodes) for edge in mixed.edges} == {
        ("global", (*e, *v, image)),
        ("inter-modal", (e[1], *v)),
        ("triple", (e[0], e[1], v[1])),
        ("triple", (e[1], e[2], v[1])),
    }
    for explanation in (text, mixed):
        weights = [edge.weight for edge in explanation.edges]
        assert weights == sorted(weights, reverse=True)
        np.testing.assert_allclose(sum(weights), 1)
        np.testing.assert_allclose(np.sum([edge.heads for edge in explanation.edges], axis=0), 1)
        for edge in explanation.edges:
            assert np.shape(edge.node_heads) == (2, len(edge.nodes))
            np.testing.assert_allclose(np.sum(edge.node_heads, axis=1), 1)


def test_modules_are_called_alike_whatever_the_batch():
    # Under ZeRO 3 each call puts weights together, which all ranks must do.
    plain = batch_of(FEW)
    empty = replace(batch_of([]), prior=None)
    nothing = batch_of([x._replace(image=None, objects=[], pairs=[]) for x in FEW])
    lonely = replace(batch_of([row(1, 0, False, 0)]), prior=None)
    for structure in ("hypergraph", "pairwise"):
        first, *others = [calls(structure, batch) for batch in (plain, empty, nothing, lonely)]
        assert first[1]
        for other in others:
            assert other == first


def calls(structure: str, batch: RelationBatch) -> tuple[list[str], list[str]]:
    """Names of the modules that are called in a step: forward, in order; and those whose weights get a gradient."""
    model = network(structure=structure).train()
    forward: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: forward.append(name))
    model(batch).loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    return forward, sorted(name for name, parameter in model.named_parameters() if parameter.grad is not None)


@pytest.mark.parametrize("how", ["weights", "autocast"])
@pytest.mark.parametrize("fields", [{}, {"structure": "pairwise", "reconstruct": "incidence"}])
def test_a_step_in_bf16_is_near_that_in_float64(how, fields):
    exact, batch = network(**fields), batch_of(FEW)
    wanted = exact(batch)
    model = network(**fields).to(torch.bfloat16 if how == "weights" else torch.float32).train(False)
    narrow = RelationBatch(**{k: as_float32(v) for k, v in vars(batch).items()})
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        output = model(narrow)
    assert output.loss.dtype == torch.float32
    # bf16 keeps 8 bits: weights and states are off by up to 2**-9 each, in a chain of some 20 products.
    torch.testing.assert_close(output.loss.double(), wanted.loss, rtol=0.1, atol=0.1)
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def as_float32(value):
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@pytest.mark.parametrize("fields", [{}, {"structure": "pairwise", "variational": False, "reconstruct": "incidence"}])
def test_a_model_that_was_saved_and_loaded_gives_the_same(tmp_path: Path, fields):
    model = network(**fields).float()
    batch = RelationBatch(**{k: as_float32(v) for k, v in vars(batch_of(FEW)).items()})
    model.save_pretrained(tmp_path)
    for loaded in (Vmhan.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(loaded, Vmhan)
        assert not loaded.training
        assert torch.equal(loaded(batch).logits, model(batch).logits)
        kept = asdict(config_of(**fields))
        assert {name: getattr(loaded.config, name) for name in kept} == kept
        assert loaded.config.num_labels == LABELS


def test_a_fresh_model_starts_with_little_noise_and_weights_by_the_seed():
    def fresh(seed: int) -> Vmhan:
        torch.manual_seed(seed)
        return Vmhan(VmhanModelConfig(text_size=TEXT, num_labels=LABELS, hidden_size=16))

    assert (fresh(0).node_gaussian.log_variance.bias == -4).all()
    assert torch.equal(fresh(0).classifier[0].weight, fresh(0).classifier[0].weight)
    assert not torch.equal(fresh(0).classifier[0].weight, fresh(1).classifier[0].weight)


def test_templates_made_in_inference_serve_training_after_it():
    template.cache_clear()
    model, batch = network(), batch_of(FEW)
    with torch.inference_mode():
        model(batch)
    model(batch).loss.backward()


def test_a_batch_moves_to_another_device_as_a_whole():
    batch = replace(batch_of(FEW), prior=None)
    moved = batch.to("meta")
    assert {v.device.type for v in vars(moved).values() if isinstance(v, Tensor)} == {"meta"}
    assert moved.prior is None
    assert (moved.pair_weight, moved.row_weight, moved.kl_scale) == (
        batch.pair_weight,
        batch.row_weight,
        batch.kl_scale,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "model.hidden_size=0 is not positive; give at least 1"),
        ({"num_layers": 0}, "model.num_layers=0 is not positive; give at least 1"),
        (
            {"hidden_size": 10, "num_heads": 4},
            "model.hidden_size=10 is not a multiple of model.num_heads=4; change one of them",
        ),
        ({"dropout": 1.0}, "model.dropout=1.0 is not a share below 1; give one in [0, 1)"),
        ({"kl_warmup_frac": 1.5}, "model.kl_warmup_frac=1.5 is not a share; give one in [0, 1]"),
        ({"weight_kl": -1.0}, "model.weight_kl=-1.0 is negative; give 0 or more"),
        ({"top_objects": -1}, "model.top_objects=-1 is negative; give 0 or more"),
    ],
)
def test_a_config_that_makes_no_model_is_refused(fields, message):
    with pytest.raises(ConfigError) as error:
        VmhanConfig(**fields)
    assert str(error.value) == message
