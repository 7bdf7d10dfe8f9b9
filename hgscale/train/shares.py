"""A worker's share of each step: a pure function of the step, wherever it is evaluated. Knows no torch."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, Self


@dataclass(frozen=True)
class Share:
    """What one worker trains on in one step.

    Attributes:
        step: counted from 0.
        micro_batches: its samples, as its task wants them; picklable.
        ids_hash: ``data.stream.ids_hash`` of the ids that were drawn for them.
    """

    step: int
    micro_batches: tuple[Any, ...]
    ids_hash: int


class Shares(Protocol):
    """The shares of one worker of a task. Small when pickled: whoever evaluates them opens the data."""

    @property
    def world_size(self) -> int:
        """Number of workers."""

    @property
    def num_steps(self) -> int:
        """Of the training."""

    @property
    def global_batch(self) -> int:
        """Samples of a step over all workers."""

    def at(self, step: int) -> Share:
        """The share of one step."""

    def fresh(self) -> Self:
        """The same, without what it has opened."""


class Source(Protocol):
    """Who evaluates shares for a worker: the worker itself, or others for it."""

    def __call__(self, shares: Shares, start_step: int) -> Generator[Share, None, None]:
        """The shares of steps ``start_step`` to the last, in order; closing it ends what works for it."""


def in_process(shares: Shares, start_step: int) -> Generator[Share, None, None]:
    """Evaluate each share when it is asked for."""
    for step in range(start_step, shares.num_steps):
        yield shares.at(step)
