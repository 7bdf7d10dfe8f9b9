"""Models whose conditionals are known, tiny worlds to read with them, and answers by going through everything."""

from itertools import combinations, permutations

import numpy as np

from hgscale.hypergraph.structure import Hypergraph


class Oracle:
    """The conditionals of a world by going through its edges; where no edge fits, uniform over the nodes not visible.

    With ``noise`` a row is scaled by exp(noise z), z keyed by the visible set; then ``leak`` of a uniform row is mixed
    in.
    """

    def __init__(self, world, noise=0.0, leak=0.0, seed=0, sizes=None):
        self.edges = [(frozenset(world.edge(e)), float(world.weights[e])) for e in range(world.num_edges)]
        self.num_nodes = world.num_nodes
        self.sizes = world.distinct_sizes if sizes is None else sizes
        self.noise, self.leak, self.seed = noise, leak, seed
        self.num_asked = 0

    def size_law(self):
        law = np.zeros(max(len(edge) for edge, _ in self.edges) + 1)
        for edge, weight in self.edges:
            law[len(edge)] += weight
        return law

    def row(self, seen, num_masked):
        row = np.zeros(self.num_nodes)
        for edge, weight in self.edges:
            if len(edge) == len(seen) + num_masked and seen <= edge:
                row[list(edge - seen)] += weight
        open_nodes = np.array([v not in seen for v in range(self.num_nodes)])
        if row.sum() == 0:
            row = open_nodes.astype(float)
        row = row * np.exp(
            self.noise * np.random.default_rng([self.seed, num_masked, *sorted(seen)]).normal(size=self.num_nodes)
        )
        return (1 - self.leak) * row / row.sum() + self.leak * open_nodes / open_nodes.sum()

    def log_probs(self, visible, num_masked):
        self.num_asked += len(visible)
        rows = [self.row(frozenset(int(v) for v in nodes), num_masked) for nodes in visible]
        with np.errstate(divide="ignore"):
            return np.log(np.array(rows).reshape(len(visible), self.num_nodes))


class Table:
    """Conditionals of pairs given as a matrix p(v|u)."""

    sizes = (2,)

    def __init__(self, matrix):
        self.matrix = np.asarray(matrix, dtype=float)
        self.num_nodes = len(self.matrix)

    def size_law(self):
        return np.array([0.0, 0.0, 1.0])

    def log_probs(self, visible, num_masked):
        assert num_masked == 1
        with np.errstate(divide="ignore"):
            return np.log(self.matrix[visible[:, 0]])


def make_world(edges, num_nodes, seed=0):
    """Weights between 1 and 3, so no conditional of a tiny world is below the threshold of bfs."""
    return Hypergraph.from_edges(edges, np.random.default_rng(seed).uniform(1, 3, len(edges)), num_nodes)


def swap_connected(edges):
    """Whether steps that change one node lead from any edge to any other, by flooding."""
    reached, front = {edges[0]}, [edges[0]]
    while front:
        edge = front.pop()
        for other in edges:
            if other not in reached and len(set(edge) - set(other)) == 1 and len(other) == len(edge):
                reached.add(other)
                front.append(other)
    return len(reached) == len(edges)


def all_supports(num_nodes, size, num_edges):
    return list(combinations(combinations(range(num_nodes), size), num_edges))


def connected_graph(num_nodes, num_edges, seed):
    """A random spanning tree plus random pairs."""
    rng = np.random.default_rng(seed)
    pairs = {(int(rng.integers(v)), v) for v in range(1, num_nodes)}
    rest = [pair for pair in combinations(range(num_nodes), 2) if pair not in pairs]
    pairs |= {rest[i] for i in rng.choice(len(rest), num_edges - len(pairs), replace=False)}
    return make_world(sorted(pairs), num_nodes, seed)


def brute_chain(oracle, edge):
    """p(size) sum over permutations of the product of conditionals; and every product."""
    products = []
    for order in permutations(edge):
        product = 1.0
        for done, node in enumerate(order):
            product *= oracle.row(frozenset(order[:done]), len(edge) - done)[node]
        products.append(product)
    return oracle.size_law()[len(edge)] * sum(products), np.array(products)
