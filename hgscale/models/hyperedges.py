"""Typed hyperedges over the nodes of a context, as one template for all rows of a batch, and masks.

Which nodes each type has is our reading: of VM-HAN only the types are known (arXiv 2404.12006).

Axes: r rows, e entities, o objects, n nodes (entities, then objects, then the image), m hyperedges, s hyperedges shared
by two nodes.
"""

import functools
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

NODE_TYPES = ("entity", "object", "image")
EDGE_TYPES = {
    "hypergraph": ("global", "text", "visual", "inter-modal", "triple"),
    "pairwise": ("entity-entity", "entity-object", "entity-image", "object-object", "object-image"),
}


@dataclass(frozen=True)
class Template:
    """All hyperedges that rows of up to e entities and o objects can have.

    members [m n]: its nodes. required [m n]: those without which it does not exist; of the others, where it has any,
    one must be there. types [m]: into ``EDGE_TYPES``. says [m]: whether the sentence is part of its feature.
    summary [m]: whether it is among those whose mean state stands for the row. node_types [n]: into ``NODE_TYPES``.
    shared [n n s] int64: hyperedges that hold both nodes, where shared_mask [n n s].
    """

    members: Tensor
    required: Tensor
    types: Tensor
    says: Tensor
    summary: Tensor
    node_types: Tensor
    shared: Tensor
    shared_mask: Tensor


@functools.lru_cache(maxsize=256)
def template(structure: str, num_entities: int, num_objects: int, device: torch.device) -> Template:
    """The template for a structure and numbers of entities and objects, on a device."""
    e, o = num_entities, num_objects
    node_types = np.repeat(np.arange(3), [e, o, 1])
    members, required, types = (_hypergraph if structure == "hypergraph" else _pairwise)(node_types)
    both = rearrange(members, "m n -> n 1 m") & rearrange(members, "m n -> 1 n m")
    if structure == "hypergraph":
        says, summary, num_shared = types <= 1, types == 0, max(e, o) + 2
        # Two objects, which no data set relates, do not look at triples: every pair would pay for their number.
        both[e:, e:, types == 4] = False
    else:  # no edge is the whole: all say what the sentence says of their entities, and all stand for the row
        says, summary, num_shared = types <= 2, types >= 0, 1
    order = np.argsort(~both, axis=-1, kind="stable")[..., :num_shared]
    arrays = (members, required, types, says, summary, node_types, order, np.take_along_axis(both, order, axis=-1))
    with torch.inference_mode(False):  # kept beyond this call, perhaps for a training step
        return Template(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))


def _hypergraph(node_types: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One global, one text, one visual hyperedge; {i} + objects per entity i; {i, j, k} per two entities and object.

    node_types [n] -> members [m n] bool, required [m n] bool, types [m] int64.
    """
    entities, objects = np.flatnonzero(node_types == 0), np.flatnonzero(node_types == 1)
    identity: np.ndarray = np.eye(len(node_types), dtype=bool)
    wholes: np.ndarray = np.stack([node_types >= 0, node_types == 0, node_types > 0])
    triples = [(i, j, k) for i, j in combinations(entities, 2) for k in objects]
    threes = identity[np.array(triples, dtype=np.int64).reshape(-1, 3)].any(1)
    ones = identity[entities] if len(objects) else identity[:0]  # an entity alone is not inter-modal
    members: np.ndarray = np.concatenate([wholes, ones | (node_types == 1), threes])
    required: np.ndarray = np.concatenate([np.zeros_like(wholes), ones, threes])
    return members, required, np.repeat(np.arange(5), [1, 1, 1, len(ones), len(triples)])


def _pairwise(node_types: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An edge for every two nodes.  node_types [n] -> members [m n] bool, required [m n] bool, types [m] int64."""
    twos = np.array(list(combinations(range(len(node_types)), 2)), dtype=np.int64).reshape(-1, 2)
    identity: np.ndarray = np.eye(len(node_types), dtype=bool)
    members: np.ndarray = identity[twos[:, 0]] | identity[twos[:, 1]]
    kind = {(0, 0): 0, (0, 1): 1, (0, 2): 2, (1, 1): 3, (1, 2): 4}
    types = [kind[int(one), int(other)] for one, other in node_types[twos]]
    return members, members, np.array(types, dtype=np.int64)


def incidence_of(graph: Template, node_mask: Tensor) -> Tensor:
    """Which nodes are in which hyperedges of each row.  node_mask [r n] -> [r m n] bool; none in an edge not there."""
    present = rearrange(node_mask, "r n -> r 1 n")
    others = graph.members & ~graph.required
    exists = (present | ~graph.required).all(-1) & ((present & others).any(-1) | ~others.any(-1))
    return graph.members & present & rearrange(exists, "r m -> r m 1")
