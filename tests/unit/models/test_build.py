import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.structure import Hypergraph
from hgscale.models import build
from hgscale.models.build import ModelConditionals, build_model, load_model, save_model
from hgscale.models.config import ModelConfig
from hgscale.models.encoder import SetEncoder
from hgscale.models.multimodal import RelationModel, Standardize, save_relation_model
from hgscale.models.reference import OrderedModel
from hgscale.models.vmhan import Vmhan, VmhanModelConfig

WORLD = Hypergraph.from_edges([[0, 1], [1, 2], [0, 2, 3], [1, 3, 4, 5]], num_nodes=7)
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def small(name: str = "set_encoder", seed: int = 0, **fields) -> torch.nn.Module:
    return build_model(ModelConfig(name=name, **SMALL | fields), WORLD, seed)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(("name", "kind"), [("set_encoder", SetEncoder), ("bert", OrderedModel)])
def test_a_model_is_made_for_the_nodes_and_sizes_of_its_world(name, kind):
    model = small(name)
    assert isinstance(model, kind)
    assert model.training
    assert (model.config.num_nodes, model.config.sizes) == (7, [2, 3, 4])
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.num_attention_heads) == (16, 1, 2)
    assert model.config.intermediate_size == 64
    assert model.size_logits.shape == (3,)


@pytest.mark.parametrize("name", ["set_encoder", "bert"])
def test_initial_weights_are_a_function_of_the_seed_alone(name):
    torch.manual_seed(5)
    first = weights(small(name, seed=3))
    torch.manual_seed(6)
    before = torch.get_rng_state()
    assert torch.equal(weights(small(name, seed=3)), first)
    assert torch.equal(torch.get_rng_state(), before)  # nothing seeds globally
    assert not torch.equal(weights(small(name, seed=4)), first)


@pytest.mark.parametrize("name", ["set_encoder", "bert"])
def test_fields_of_its_own_reach_the_model(name):
    model = small(name, config={"intermediate_size": 24, "initializer_range": 0.5})
    assert model.config.intermediate_size == 24
    matrices = torch.cat([p.detach().flatten() for n, p in model.named_parameters() if p.ndim == 2 and "weight" in n])
    # Some thousands of normal values: their standard deviation is off by 2% or so.
    assert float(matrices.std()) == pytest.approx(0.5, rel=0.1)


def test_activation_checkpointing_is_switched_on():
    assert small(activation_checkpointing=True).config.activation_checkpointing
    assert small("bert", activation_checkpointing=True).language_model.is_gradient_checkpointing
    assert not small("bert").language_model.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModelConfig(hidden_size=30, num_attention_heads=4), ["hidden_size=30", "num_attention_heads=4"]),
        (lambda: ModelConfig(num_attention_heads=0), ["model.num_attention_heads=0", "at least 1"]),
        (lambda: ModelConfig(hidden_size=-8), ["model.hidden_size=-8"]),
        (lambda: ModelConfig(num_hidden_layers=0), ["model.num_hidden_layers=0"]),
        (lambda: small(config={"dropout": 0.1}), ["model.config.dropout", "intermediate_size, initializer_range"]),
        (lambda: small(config={"num_nodes": 3}), ["model.config.num_nodes"]),
        (lambda: small("bert", config={"intermediate": 3}), ["model.config.intermediate", "intermediate_size?"]),
        (lambda: small("ibert", activation_checkpointing=True), ["model.activation_checkpointing", "false"]),
        (lambda: small("brt"), ["model.name=brt"]),
    ],
)
def test_refusals_name_the_field_in_one_line(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("name", ["set_encoder", "bert", "roberta"])
def test_a_saved_model_gives_the_same_conditionals(name, tmp_path: Path):
    model = small(name, config={"initializer_range": 0.3})
    torch.nn.init.normal_(model.size_logits)
    save_model(model, tmp_path / "model")
    kept, again = ModelConditionals(model), ModelConditionals(load_model(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (again.num_nodes, again.sizes) == (7, (2, 3, 4))
    assert np.array_equal(again.size_law(), kept.size_law())
    visible = np.array([[0, 1], [2, 5]])
    assert np.array_equal(again.log_probs(visible, 1), kept.log_probs(visible, 1))


def test_saving_again_replaces_what_was_there_and_what_a_crash_left(tmp_path: Path):
    save_model(small(seed=1), tmp_path / "model")
    (tmp_path / ".model.123.part").mkdir()
    (tmp_path / ".model.123.part" / "rubbish.bin").write_text("half")
    save_model(small(seed=2), tmp_path / "model")
    assert torch.equal(weights(load_model(tmp_path / "model")), weights(small(seed=2)))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "rubbish.bin").exists()


def test_what_is_no_whole_model_is_refused(tmp_path: Path):
    def refusal() -> str:
        with pytest.raises(DataError) as error:
            load_model(tmp_path / "model")
        return str(error.value)

    wanted = f"{tmp_path / 'model'}: holds no whole trained model; run `hgscale pretrain` with this run_dir to its end"
    assert refusal() == wanted  # nothing there
    (tmp_path / "model").mkdir()
    assert refusal() == wanted  # empty
    (tmp_path / "model" / "config.json").write_text("{")
    assert refusal() == wanted
    (tmp_path / "model" / "config.json").write_text(json.dumps({"hidden_size": 3}))
    assert refusal() == wanted
    for name in ("set_encoder", "bert"):
        save_model(small(name), tmp_path / "model")
        file = tmp_path / "model" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        assert refusal() == wanted  # cut short
        file.unlink()
        assert refusal() == wanted  # no weights


def test_conditionals_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch):
    conditionals = ModelConditionals(small(config={"initializer_range": 0.3}))
    visible = np.array([[i, j] for i in range(7) for j in range(i + 1, 7)])
    whole = conditionals.log_probs(visible, 2)
    assert (whole.shape, whole.dtype) == ((21, 7), np.float64)
    for num_rows in (1, 4, 20):
        monkeypatch.setattr(build, "_MAX_LOGITS", 7 * num_rows)
        # float32 sums of 16 products through one layer, in matrices of other shapes
        np.testing.assert_allclose(conditionals.log_probs(visible, 2), whole, rtol=1e-5)


@pytest.mark.parametrize("name", ["set_encoder", "bert"])
def test_conditionals_are_laws_over_the_nodes_not_seen(name):
    conditionals = ModelConditionals(small(name))
    for visible in (np.zeros((1, 0), dtype=np.int64), np.array([[3], [6]], dtype=np.int32)):
        law = np.exp(conditionals.log_probs(visible, 2))
        np.testing.assert_allclose(law.sum(axis=1), 1, rtol=1e-12)
        assert (np.take_along_axis(law, visible.astype(np.int64), axis=1) == 0).all()


def test_dropout_is_off_in_conditionals():
    conditionals = ModelConditionals(small("bert", config={"hidden_dropout_prob": 0.5}))
    visible = np.array([[3], [6]])
    assert np.array_equal(conditionals.log_probs(visible, 2), conditionals.log_probs(visible, 2))


def test_the_size_law_is_the_softmax_of_the_size_head():
    model = small()
    model.size_logits.data = torch.tensor([0.0, np.log(2.0), np.log(5.0)])
    np.testing.assert_allclose(ModelConditionals(model).size_law(), [0, 0, 1 / 8, 2 / 8, 5 / 8], rtol=1e-6)


def test_a_fine_tuned_model_of_relations_is_refused_as_what_it_is(tmp_path: Path):
    network = Vmhan(VmhanModelConfig(text_size=4, hidden_size=8, num_heads=2))
    text = Standardize(torch.randn(5, 4))
    save_relation_model(RelationModel(network, text, None), ["none", "likes"], tmp_path / "model")
    with pytest.raises(DataError, match=r"model: holds a fine-tuned model of relations.*`hgscale pretrain`"):
        load_model(tmp_path / "model")
