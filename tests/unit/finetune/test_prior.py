from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hgscale.errors import ConfigError
from hgscale.finetune.prior import read_prior
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph
from hgscale.models.build import build_model, save_model
from hgscale.models.config import ModelConfig

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def run_of(tmp_path: Path, name: str) -> tuple[Path, torch.nn.Module]:
    """A run directory as a pre-training leaves it, as far as a prior reads it."""
    names = ("Ann", "Bob", "Cid")
    world = Hypergraph.from_edges([[0, 1], [1, 2]], num_nodes=3)
    world = Hypergraph.from_arrays(world.offsets, world.nodes, world.weights, 3, names)
    io.write(world, tmp_path / "world.json")
    model = build_model(ModelConfig(name=name, **SMALL), world, 0)
    save_model(model, tmp_path / "run" / "model")
    saved = {"world": {"path": str(tmp_path / "world.json")}, "model": {"name": name}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.dump(saved))
    return tmp_path / "run", model


def test_each_name_gets_its_node_embedding_up_to_one_scale_and_others_get_zeros(tmp_path):
    run_dir, model = run_of(tmp_path, "set_encoder")
    prior = read_prior(run_dir)
    table = model.node_embedding.weight.detach().numpy()
    np.testing.assert_allclose(np.stack([prior(name) for name in ("ann", "BOB", "Cid")]), table / table.std())
    assert not prior("Dan").any()


def test_a_model_without_an_embedding_of_nodes_is_refused_before_it_is_loaded(tmp_path):
    run_dir, _ = run_of(tmp_path, "bert")
    with pytest.raises(ConfigError, match=r"its bert has no node_embedding; a run with model\.name=set_encoder"):
        read_prior(run_dir)
