"""V-HAN in plain loops over nodes and hyperedges, one row at a time, float64: written from the formulas, for tests."""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np

Weights = dict[str, np.ndarray]


class Row(NamedTuple):
    """One hypergraph. In pairs, node i is entity i and node len(mentions) + j is object j."""

    mentions: list[np.ndarray]
    sentence: np.ndarray
    image: np.ndarray | None
    objects: list[np.ndarray]
    prior: list[np.ndarray]
    pairs: list[tuple[int, int, int]]  # first, second, label


class Found(NamedTuple):
    """logits of each pair, and of the row: divergence, and reconstruction of features and of incidence."""

    logits: list[np.ndarray]
    kl: float
    features: float
    incidence: float


def linear(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0.0)


def norm(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x])


def attend(w: Weights, name: str, query: np.ndarray, keys: list[np.ndarray], num_heads: int) -> np.ndarray:
    """One query, a list of keys (which are the values too), head by head."""
    q = linear(w, f"{name}.query", query)
    k = [linear(w, f"{name}.key", key) for key in keys]
    v = [linear(w, f"{name}.value", key) for key in keys]
    width = len(q) // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = [math.exp(q[part] @ key[part] / math.sqrt(width)) for key in k]
        heads.append(sum((s / sum(scores) * value[part] for s, value in zip(scores, v, strict=True)), np.zeros(width)))
    return linear(w, f"{name}.out", np.concatenate(heads))


def update(w: Weights, name: str, x: np.ndarray, found: np.ndarray) -> np.ndarray:
    x = norm(w, f"{name}.norm", x + found)
    return norm(w, f"{name}.norm_mlp", x + linear(w, f"{name}.down", gelu(linear(w, f"{name}.up", x))))


def hyperedges(kinds: list[str], structure: str) -> list[tuple[int, frozenset[int]]]:
    """(number of the type, nodes) of each hyperedge that the row has."""
    nodes = range(len(kinds))
    entities = [n for n in nodes if kinds[n] == "entity"]
    objects = [n for n in nodes if kinds[n] == "object"]
    visual = [n for n in nodes if kinds[n] != "entity"]
    found: list[tuple[int, frozenset[int]]] = []
    if structure == "pairwise":
        types = {
            ("entity", "entity"): 0,
            ("entity", "object"): 1,
            ("entity", "image"): 2,
            ("object", "object"): 3,
            ("object", "image"): 4,
        }
        for i, j in combinations(nodes, 2):
            found.append((types[kinds[i], kinds[j]], frozenset((i, j))))
        return found
    found.append((0, frozenset(nodes)))
    found.append((1, frozenset(entities)))
    if visual:
        found.append((2, frozenset(visual)))
    if objects:
        for i in entities:
            found.append((3, frozenset([i, *objects])))
    for i, j in combinations(entities, 2):
        for k in objects:
            found.append((4, frozenset((i, j, k))))
    return found


def oracle(w: Weights, row: Row, structure: str, num_layers: int, num_heads: int, variational: bool = True) -> Found:
    """The network in evaluation."""

    def project(name: str, x: np.ndarray) -> np.ndarray:
        return norm(w, f"{name}.norm", linear(w, f"{name}.linear", x))

    kinds, h = [], []
    for mention, prior in zip(row.mentions, row.prior, strict=True):
        kinds.append("entity")
        h.append(project("text", mention) + linear(w, "prior", prior) + w["node_type.weight"][0])
    for feature in row.objects:
        kinds.append("object")
        h.append(project("vision", feature) + w["node_type.weight"][1])
    if row.image is not None:
        kinds.append("image")
        h.append(project("vision", row.image) + w["node_type.weight"][2])

    edges = hyperedges(kinds, structure)
    edge_h = []
    for kind, members in edges:
        feature = w["edge_type.weight"][kind] + sum(h[n] for n in members) / len(members)
        if "products.factor.weight" in w and len(members) > 1:
            shown = [linear(w, "products.factor", h[n]) for n in members]
            couples = [a * b for a, b in combinations(shown, 2)]
            feature = feature + linear(w, "products.out", sum(couples) / len(couples))
        speaks = kind in (0, 1, 2) if structure == "pairwise" else kind in (0, 1)
        edge_h.append(feature + project("sentence", row.sentence) if speaks else feature)

    kl, states = 0.0, []
    for name, features in (("node_gaussian", h), ("edge_gaussian", edge_h)):
        draws, total = [], 0.0
        for feature in features:
            mean = linear(w, f"{name}.mean", feature)
            draws.append(mean)
            if variational:
                for mu, log_variance in zip(mean, linear(w, f"{name}.log_variance", feature), strict=True):
                    variance = math.exp(min(max(log_variance, -8.0), 4.0))
                    total += (mu * mu + variance - 1 - math.log(variance)) / 2
        kl += total / max(1, len(features))
        states.append(draws)
    z, y = states

    features = incidence = 0.0
    for node, state in enumerate(z):
        if "decoder.weight" in w:
            features += ((linear(w, "decoder", state) - h[node]) ** 2).mean() / len(z)
        for (_, members), edge_state in zip(edges, y, strict=True):
            score = state @ edge_state / math.sqrt(len(state))
            # -log of 1 / (1 + exp(-score)) inside, of 1 minus that outside.
            incidence += math.log1p(math.exp(-score if node in members else score)) / (len(z) * len(edges))

    for layer in range(num_layers):
        name = f"layers.{layer}"
        y = [
            update(
                w, f"{name}.edge_update", state, attend(w, f"{name}.edge_reads", state, [z[n] for n in e], num_heads)
            )
            for state, (_, e) in zip(y, edges, strict=True)
        ]
        z = [
            update(
                w,
                f"{name}.node_update",
                state,
                attend(
                    w,
                    f"{name}.node_reads",
                    state,
                    [edge for edge, (_, members) in zip(y, edges, strict=True) if node in members],
                    num_heads,
                ),
            )
            for node, state in enumerate(z)
        ]

    whole = sum(y, np.zeros_like(z[0])) / max(1, len(y)) if structure == "pairwise" else y[0]
    logits = []
    for first, second, _ in row.pairs:
        one, other = z[first], z[second]
        both_objects = kinds[first] == kinds[second] == "object"
        shared = [
            state
            for state, (kind, members) in zip(y, edges, strict=True)
            if {first, second} <= members and not (both_objects and kind == 4 and structure == "hypergraph")
        ]
        found = attend(w, "pair_reads", np.concatenate([one, other]), shared, num_heads)
        hidden = gelu(linear(w, "classifier.0", np.concatenate([one, other, whole, found, one * other])))
        logits.append(linear(w, "classifier.3", hidden))
    return Found(logits, kl, features, incidence)
