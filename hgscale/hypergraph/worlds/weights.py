"""Laws of weights: what edge j of a generated world weighs is a function of j, or of its nodes, alone.

Weights are not normalised here: whoever holds or scans the whole world adds them up with ``mass_of``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numba as nb
import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError
from hgscale.rng import open_unit, random_bits


class WeightLaw(ABC):
    """What each edge of a world weighs, up to a common factor."""

    setting: str = "world.weights"
    """The field of the config to change where weights are too uneven, and its value."""

    @abstractmethod
    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The weights of some edges.

        Args:
            index: [b] int64, their numbers in the whole world.
            rows: [b, k] integers, their nodes, ascending.

        Returns:
            [b] float64, positive, not normalised.
        """


@dataclass(frozen=True)
class UniformLaw(WeightLaw):
    """All edges weigh the same."""

    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.ones(len(index))


@dataclass(frozen=True)
class TwoLevelLaw(WeightLaw):
    """1 or kappa with equal chance; edges 0 and 1 get one of each, so that max / min is kappa.

    Raises:
        ConfigError: if kappa is below 1 or not finite.

    Source: the {1, 3} weights of arXiv 2406.11249.
    """

    kappa: float
    seed: int

    def __post_init__(self) -> None:
        check_kappa(self.kappa)

    @property
    def setting(self) -> str:  # type: ignore[override]
        return f"world.kappa={self.kappa}"

    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return _two_level(index, self.kappa, rng.key(self.seed, "world/weights"))


@dataclass(frozen=True)
class ZipfLaw(WeightLaw):
    """rank^-zipf_exponent, ranks 1 to E dealt to the edges by a random permutation.

    Raises:
        ConfigError: if the exponent is negative or not finite.
    """

    num_edges: int
    zipf_exponent: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.zipf_exponent < math.inf:
            raise ConfigError(f"world.zipf_exponent={self.zipf_exponent} is outside [0, inf); 1 is Zipf's law")

    @property
    def setting(self) -> str:  # type: ignore[override]
        return f"world.zipf_exponent={self.zipf_exponent}"

    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self.ranks(index) ** -self.zipf_exponent

    def ranks(self, index: np.ndarray) -> np.ndarray:
        """[b] int64 -> [b] float64: the ranks of edges, from 1, the heaviest."""
        return (rng.permute(index, self.num_edges, self._key) + 1).astype(np.float64)

    def edges_at(self, places: np.ndarray) -> np.ndarray:
        """[b] int64 from 0 -> [b] int64: the edges of ranks places + 1, the inverse of ``ranks``."""
        return rng.unpermute(places, self.num_edges, self._key)

    @property
    def _key(self) -> np.uint64:
        return rng.key(self.seed, "world/weights")


@dataclass(frozen=True)
class DirichletLaw(WeightLaw):
    """Gamma variables, which normalised are one draw of the symmetric Dirichlet law; the smaller alpha, the less even.

    Raises:
        ConfigError: if dirichlet_alpha is not positive and finite.
    """

    dirichlet_alpha: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.dirichlet_alpha < math.inf:
            raise ConfigError(f"world.dirichlet_alpha={self.dirichlet_alpha} is not a positive finite number")

    @property
    def setting(self) -> str:  # type: ignore[override]
        return f"world.dirichlet_alpha={self.dirichlet_alpha}"

    def of(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        key = rng.key(self.seed, "world/weights")
        return _exponential(index, key) if self.dirichlet_alpha == 1 else _gamma(index, self.dirichlet_alpha, key)


LAWS: Mapping[str, Callable[..., WeightLaw]] = {
    "uniform": UniformLaw,
    "two_level": TwoLevelLaw,
    "zipf": ZipfLaw,
    "dirichlet": DirichletLaw,
}
"""What ``world.weights`` may name. A law gets, by the names of its arguments, fields of the config, and num_edges."""


@nb.njit(cache=True)
def mass_of(weights: np.ndarray) -> float:
    """The sum of [b] float64, in their order, with the lost halves of each addition carried along (Neumaier 1974)."""
    total = lost = 0.0
    for weight in weights:
        new = total + weight
        lost += (total - new) + weight if total >= weight else (weight - new) + total
        total = new
    return total + lost


def check_even(law: WeightLaw, smallest: float, total: float, num_edges: int) -> None:
    """Refuse a world in which an edge's share of the total is too small for a float: it would never occur."""
    if not 0 < total < math.inf or smallest / total < np.finfo(np.float64).tiny:
        raise ConfigError(
            f"{law.setting} makes weights of {num_edges} edges too uneven for a float; ask for a milder one"
        )


@nb.njit(cache=True)
def _two_level(index: np.ndarray, kappa: float, key: np.uint64) -> np.ndarray:
    weights = np.empty(len(index))
    for i in range(len(index)):
        # Edge 1 takes the coin of edge 0, turned over.
        side = random_bits(key, np.uint64(0 if index[i] == 1 else index[i])) >> np.uint64(63)
        heavy = (side == np.uint64(1)) != (index[i] == 1)
        weights[i] = kappa if heavy else 1.0
    return weights


@nb.njit(cache=True)
def _exponential(index: np.ndarray, key: np.uint64) -> np.ndarray:
    weights = np.empty(len(index))
    for i in range(len(index)):
        weights[i] = -np.log(open_unit(random_bits(key, np.uint64(index[i]))))
    return weights


@nb.njit(cache=True)
def _gamma(index: np.ndarray, alpha: float, key: np.uint64) -> np.ndarray:
    """Marsaglia and Tsang 2000, words counted from each edge's own key; below alpha = 1, gamma(alpha + 1) U^(1/alpha).

    Normal variables by Box and Muller 1958, one of each pair.
    """
    weights = np.empty(len(index))
    d = (alpha if alpha >= 1.0 else alpha + 1.0) - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    for i in range(len(index)):
        edge_key = random_bits(key, np.uint64(index[i]))
        word = np.uint64(0)
        while True:
            radius = np.sqrt(-2.0 * np.log(open_unit(random_bits(edge_key, word))))
            x = radius * np.cos(2.0 * np.pi * open_unit(random_bits(edge_key, word + np.uint64(1))))
            coin = open_unit(random_bits(edge_key, word + np.uint64(2)))
            word += np.uint64(3)
            v = (1.0 + c * x) ** 3
            if v > 0.0 and np.log(coin) < 0.5 * x * x + d - d * v + d * np.log(v):
                break
        weights[i] = d * v
        if alpha < 1.0:
            weights[i] *= open_unit(random_bits(edge_key, word)) ** (1.0 / alpha)
    return weights


def check_kappa(kappa: float) -> None:
    if not 1 <= kappa < math.inf:
        raise ConfigError(f"world.kappa={kappa} is outside [1, inf): largest weight over smallest; the paper's is 3")
