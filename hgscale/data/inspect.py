"""The verb ``inspect``: what a world is, wherever it is kept."""

from dataclasses import dataclass, field

from hgscale.data.worlds import open_world
from hgscale.errors import ConfigError
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.hypergraph.worlds.inspect import InspectResult, describe


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Describe a world: sizes, weights, identifiability, and the error of counting at given sample sizes."""

    world: WorldConfig = field(default_factory=WorldConfig)
    """The world to describe."""

    num_samples: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Sample sizes N at which to give the count floor."""

    def __post_init__(self) -> None:
        """Refuse sample sizes below 1 before a world is made."""
        for num in self.num_samples:
            if num < 1:
                raise ConfigError(f"num_samples={num} is below 1; the error of counting needs a sample")


def inspect(config: InspectConfig) -> InspectResult:
    """Describe the world of a config.

    Raises:
        ConfigError: if the world cannot be made.
        DataError: if its file is wrong.
    """
    return describe(open_world(config.world), config.num_samples)
