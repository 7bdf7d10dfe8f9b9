"""What a pre-trained encoder of hyperedges knows of names: the bridge from recovering a world to reading sentences.

A ``pretrain`` run whose world has named nodes gives each of its names the embedding that it learned for it. Other names
get zeros, to which the network, which has no bias there, adds nothing.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hgscale.data.worlds import open_world
from hgscale.errors import ConfigError, DataError
from hgscale.finetune.data.contexts import Context
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.models.build import load_model
from hgscale.models.config import MODELS, ModelConfig


class Prior:
    """Embeddings by name, in lower case.

    Attributes:
        size: z, their width.
    """

    def __init__(self, names: Iterable[str], vectors: np.ndarray) -> None:
        """names: n of them; vectors [n z] float32."""
        self._number = {name.lower(): number for number, name in enumerate(names)}
        # Of unit variance, as what the network initialises its projections for.
        self._vectors = vectors / max(float(vectors.std()), 1e-12)
        self.size = vectors.shape[1]

    def __call__(self, name: str) -> np.ndarray:
        """[z] of a name; zeros if it is not known."""
        number = self._number.get(name.lower())
        return np.zeros(self.size, dtype=np.float32) if number is None else self._vectors[number]

    def known_frac(self, rows: Iterable[Context]) -> float:
        """Share of the mentions of some rows whose name is known."""
        known = [entity.name.lower() in self._number for row in rows for entity in row.entities]
        return sum(known) / max(1, len(known))


def read_prior(run_dir: Path) -> Prior:
    """The node embeddings of a finished ``pretrain`` run.

    Raises:
        ConfigError: its nodes have no names, or its model is not ours.
        DataError: the directory holds no finished run, or its world is not there any more.
    """
    try:
        saved = yaml.safe_load((run_dir / "config.yaml").read_text())
        world, name = open_world(WorldConfig(**saved["world"])), saved["model"]["name"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        raise DataError(f"model.init_from={run_dir}: no readable config.yaml of a pretrain run; name another") from None
    if not isinstance(world, Hypergraph) or world.labels is None:
        raise ConfigError(
            f"model.init_from={run_dir}: the nodes of its world have no names, so that no entity can be found among "
            "them; pre-train on a world with names, as a HIF file or a list of hyperedges"
        )
    if not ModelConfig(name=name).kind().node_embedding:
        wanted = " or ".join(known for known in MODELS if MODELS.get(known, "model.name").node_embedding)
        raise ConfigError(
            f"model.init_from={run_dir}: its {name} has no node_embedding; a run with model.name={wanted} is wanted"
        )
    table: Any = load_model(run_dir / "model").node_embedding
    return Prior(world.labels, table.weight.detach().float().numpy())
