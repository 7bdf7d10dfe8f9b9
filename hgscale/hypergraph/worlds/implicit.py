"""Worlds that nobody holds: edge j, its weight and the edge of a sample are computed from numbers, with no table.

Axes: b edges or samples that are asked for.
"""

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from functools import cached_property

import numba as nb
import numpy as np

from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import Rows, World
from hgscale.hypergraph.worlds.config import WorldConfig, parts_of, weight_law_of
from hgscale.hypergraph.worlds.parts import AddressedPart
from hgscale.hypergraph.worlds.weights import UniformLaw, ZipfLaw
from hgscale.rng import key, random_bits

MAX_EDGES = 2**62
MAX_ZIPF_EDGES = 2**53  # ranks are found as floats, which hold every whole number up to here
EXACT_RANKS = 2**20  # Zipf weights that sums go through one by one; the others are integrated
_MAX_KINKS = 2**16
_CHUNK = 2**20


class ImplicitWorld:
    """A generator's world by its law alone; the same edges and weights as ``build_world`` gives, in another order.

    Attributes:
        num_nodes: n.
        num_edges: E, up to 2**62, and 2**53 under weights zipf.
        distinct_sizes: the sizes that occur, ascending.
        zipf: the law of the weights, None where they are equal.
    """

    def __init__(self, config: WorldConfig) -> None:
        """Of a family whose edges are all functions of their number; weights uniform or zipf.

        Raises:
            ConfigError: if the family or the weights need a table, or there are too many edges.
        """
        parts = parts_of(config)
        self._parts = tuple(part for part in parts if isinstance(part, AddressedPart))
        if len(self._parts) < len(parts):
            raise ConfigError(
                f"world.load=implicit with generator {config.generator}: its edges are drawn until they all differ, "
                "not computed (uniform ones are, up to 2^62 sets of a size); write the world with `hgscale generate` "
                "and set world.path, or set load to memory"
            )
        law = weight_law_of(config, parts)
        if not isinstance(law, UniformLaw | ZipfLaw):
            raise ConfigError(
                f"world.load=implicit with {law.setting}: these weights cannot be drawn from without a table; set "
                "world.weights to uniform or zipf, or load to memory"
            )
        self.config = config
        self.num_nodes = config.num_nodes
        self._sizes = np.array([part.size for part in self._parts])
        self._starts = np.concatenate([[0], np.cumsum([part.num_edges for part in self._parts])])
        self.num_edges = int(self._starts[-1])
        self.distinct_sizes = tuple(int(size) for size in np.unique(self._sizes))
        # Zipf's law with exponent 0 is the uniform one, which needs no ranks.
        self.zipf = law if isinstance(law, ZipfLaw) and law.zipf_exponent > 0 else None
        self._check_range()

    @property
    def max_size(self) -> int:
        return self.distinct_sizes[-1]

    @property
    def kappa(self) -> float:
        """Largest weight over smallest weight."""
        return 1.0 if self.zipf is None else float(self.num_edges) ** self.zipf.zipf_exponent

    @cached_property
    def digest(self) -> str:
        """sha256 of what the law is made of (32 hex digits)."""
        parts = [[part.size, part.num_edges] for part in self._parts]
        exponent = self.zipf.zipf_exponent if self.zipf else 0.0
        law = [self.config.generator, self.num_nodes, parts, exponent, self.config.seed]
        return hashlib.sha256(f"implicit/1 {json.dumps(law)}".encode()).hexdigest()[:32]

    def rows(self, edges: np.ndarray) -> Rows:
        """The nodes of edges [b] int64, computed."""
        part_of = np.searchsorted(self._starts, edges, side="right") - 1
        offsets = np.concatenate([[0], np.cumsum(self._sizes[part_of])])
        nodes = np.empty(offsets[-1], dtype=np.int32)
        for number, part in enumerate(self._parts):
            at = np.flatnonzero(part_of == number)
            if at.size:
                rows = part.rows_at(edges[at] - self._starts[number])
                nodes[offsets[at][:, None] + np.arange(part.size)] = rows
        return Rows(np.arange(len(edges)), offsets, nodes)

    def weights_of(self, edges: np.ndarray) -> np.ndarray:
        """[b] float64: the weights of edges [b] int64."""
        if self.zipf is None:
            return np.full(len(edges), 1 / self.num_edges)
        return self._weights_at(self.zipf.ranks(edges), self.zipf)

    def weight_chunks(self) -> Iterator[np.ndarray]:
        """All weights, a million at a time; ``weight_quadrature`` is for worlds too large to go through."""
        for start in range(0, self.num_edges, _CHUNK):
            yield self.weights_of(np.arange(start, min(start + _CHUNK, self.num_edges)))

    def sampler(self, seed: int) -> "ImplicitSampler":
        """The samples of this world under one seed."""
        return ImplicitSampler(self, seed)

    def weight_quadrature(self, num_samples: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Weights [p], and how many edges each stands for [p], for sums of f(w) over all edges.

        Uniform weights are one. Of Zipf's law the first EXACT_RANKS = 2**20 ranks are themselves; the sum over the
        others is the integral over the rank, from half below to half above them, by Gauss-Legendre with 16 points in
        the logarithm of the rank on panels of a factor of 2. Panels also end where N w is a whole number: there the
        floor of counting has kinks, and between them f is smooth. The relative error of sums of w, sqrt(w), w log w and
        the floor is below 1e-7, for N up to 1e13 (derived here: the midpoint rule errs by (s / rank)^2 / 24, and by up
        to s / (8 rank^2) at a kink; the quadrature errs by less).

        Args:
            num_samples: N.
        """
        if self.zipf is None:
            yield np.array([1 / self.num_edges]), np.array([float(self.num_edges)])
            return
        low, high = EXACT_RANKS + 0.5, self.num_edges + 0.5
        kinks = self._kinks(self.zipf, low, high, num_samples) if low < high else np.empty(0)
        for ranks, numbers in _ranks(self.num_edges, kinks):
            yield self._weights_at(ranks, self.zipf), numbers

    def _weights_at(self, ranks: np.ndarray, law: ZipfLaw) -> np.ndarray:
        return ranks**-law.zipf_exponent / self._total

    @cached_property
    def _total(self) -> float:
        """sum over all ranks of rank^-s."""
        assert self.zipf is not None
        pieces = _ranks(self.num_edges, np.empty(0))
        return math.fsum(float(numbers @ ranks**-self.zipf.zipf_exponent) for ranks, numbers in pieces)

    def _kinks(self, law: ZipfLaw, low: float, high: float, num_samples: int) -> np.ndarray:
        """The ranks between two at which N w is a whole number; the lightest _MAX_KINKS where there are more."""
        at_high, at_low = num_samples * self._weights_at(np.array([high, low]), law)
        first = math.floor(at_high) + 1
        wholes = np.arange(first, min(math.ceil(at_low), first + _MAX_KINKS))
        return (wholes / num_samples * self._total) ** (-1 / law.zipf_exponent)

    def _check_range(self) -> None:
        if self.num_edges > (MAX_EDGES if self.zipf is None else MAX_ZIPF_EDGES):
            raise ConfigError(
                f"world.num_edges={self.num_edges} with load implicit; at most 2^62 of equal weight, and 2^53 under "
                "weights zipf, whose ranks are floats"
            )
        # Half of the range of a float is left to what is multiplied with a weight.
        if (
            self.zipf is not None
            and self.zipf.zipf_exponent * math.log(self.num_edges) > -math.log(sys.float_info.min) / 2
        ):
            raise ConfigError(
                f"{self.zipf.setting} makes weights of {self.num_edges} edges too uneven for a float; ask for a milder "
                "one"
            )


def weight_pieces(world: World, num_samples: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights of all edges, and how many edges have each; of an implicit world by quadrature."""
    if isinstance(world, ImplicitWorld):
        yield from world.weight_quadrature(num_samples)
    else:
        for weights in world.weight_chunks():
            yield weights, np.ones(len(weights))


def _ranks(num_ranks: int, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranks [p], not all whole, and how many each stands for [p]; see ``ImplicitWorld.weight_quadrature``.

    Args:
        num_ranks: E.
        ends: more ends of panels, ranks above EXACT_RANKS + 1/2.
    """
    num_exact = min(EXACT_RANKS, num_ranks)
    yield np.arange(1.0, num_exact + 1), np.ones(num_exact)
    if num_exact == num_ranks:
        return
    low, high = num_exact + 0.5, num_ranks + 0.5
    doublings = low * 2.0 ** np.arange(math.ceil(math.log2(high / low)))
    logs = np.log(np.unique(np.concatenate([doublings, ends, [high]])))
    points, shares = np.polynomial.legendre.leggauss(16)
    half = np.diff(logs)[:, None] / 2
    ranks = np.exp(logs[:-1, None] + half * (1 + points))
    yield ranks.ravel(), (half * shares * ranks).ravel()


class ImplicitSampler:
    """The samples of an implicit world under one seed.

    Uniform weights: floor(bits * E / 2**64) of one word a sample. Zipf's law: its rank by rejection-inversion (Hoermann
    and Derflinger 1996), then the edge that has that rank. Beyond 2**26 ranks nothing is rejected, which errs by less
    than 2**-52; and the last bits of a word are spread over the ranks that a float of the inverse leaves out.
    """

    def __init__(self, world: ImplicitWorld, seed: int) -> None:
        self.world = world
        self._edge_key = key(seed, "sample/edge")
        self._order_key = key(seed, "sample/order")

    def draw(self, ids: np.ndarray) -> np.ndarray:
        """The edge of each sample.  ids [b] int64, not negative -> [b] int64 in [0, E)."""
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        numbers, law = np.empty(len(ids), dtype=np.int64), self.world.zipf
        if law is None:
            _draw_uniform(ids, self._edge_key, np.uint64(self.world.num_edges), numbers)
            return numbers
        _draw_place(ids, self._edge_key, float(law.num_edges), law.zipf_exponent, numbers)
        return law.edges_at(numbers)

    def shuffled(self, ids: np.ndarray, edges: np.ndarray, size: int) -> np.ndarray:
        """The nodes of samples whose edges have one size, in each sample's own order.  [b], [b] -> [b size] int32."""
        return self.world.rows(edges).shuffled(ids, size, self._order_key)


@nb.njit(nb.uint64(nb.uint64, nb.uint64), inline="always", cache=True)
def _high_product(left: np.uint64, right: np.uint64) -> np.uint64:
    """floor(left * right / 2**64)."""
    low = np.uint64(0xFFFFFFFF)
    left_high, left_low = left >> np.uint64(32), left & low
    right_high, right_low = right >> np.uint64(32), right & low
    middle = left_high * right_low + ((left_low * right_low) >> np.uint64(32))
    other = left_low * right_high + (middle & low)
    return left_high * right_high + (middle >> np.uint64(32)) + (other >> np.uint64(32))


@nb.njit(cache=True)
def _draw_uniform(ids: np.ndarray, edge_key: np.uint64, num_edges: np.uint64, edges: np.ndarray) -> None:
    for i in range(len(ids)):
        edges[i] = np.int64(_high_product(random_bits(edge_key, np.uint64(ids[i])), num_edges))


@nb.njit(nb.float64(nb.float64, nb.float64), inline="always", cache=True)
def _integral(log_x: float, s: float) -> float:
    """H(x) = (x^(1 - s) - 1) / (1 - s), an integral of x^-s, given log x; log x itself at s = 1."""
    t = (1 - s) * log_x
    return log_x * (np.expm1(t) / t if abs(t) > 1e-8 else 1 + t / 2)


@nb.njit(nb.float64(nb.float64, nb.float64), inline="always", cache=True)
def _inverse(u: float, s: float) -> float:
    """x with H(x) = u."""
    t = max((1 - s) * u, -1.0)
    x: float = np.exp(u * (np.log1p(t) / t if abs(t) > 1e-8 else 1 - t / 2))
    return x


@nb.njit(cache=True)
def _draw_place(ids: np.ndarray, edge_key: np.uint64, num_ranks: float, s: float, places: np.ndarray) -> None:
    """The rank, less 1, of each sample: proposed by areas of x^-s under k - 1/2 to k + 1/2, accepted in the ratio k^-s.

    Rank 1 has exactly the area 1, so that all of it is accepted.
    """
    low = _integral(np.log(1.5), s) - 1
    high = _integral(np.log(num_ranks + 0.5), s)
    # Ranks nearer than this to where the inverse lands are accepted unseen.
    sure = 2 - _inverse(_integral(np.log(2.5), s) - 2.0**-s, s)
    spacing = max((high - low) * 2.0**-53, max(abs(high), abs(low)) * 2.0**-52)
    for i in range(len(ids)):
        word = random_bits(edge_key, np.uint64(ids[i]))
        attempt = np.uint64(0)
        while True:
            bits = random_bits(word, attempt)
            attempt += np.uint64(1)
            u = low + np.float64(bits >> np.uint64(11)) * 2.0**-53 * (high - low)
            x = min(_inverse(u, s), num_ranks + 0.5)
            x += x**s * spacing * (np.float64(bits & np.uint64(2047)) / 2048 - 0.5)
            rank = min(max(np.floor(x + 0.5), 1.0), num_ranks)
            if rank > 67108864.0 or rank - x <= sure or u >= _integral(np.log(rank + 0.5), s) - rank**-s:
                places[i] = np.int64(rank) - 1
                break
