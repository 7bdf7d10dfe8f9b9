"""What the machinery asks of a task, whatever it trains: ``cluster`` and ``study`` know a task by this face alone.

A task is a frozen config dataclass. Whoever adds one writes it in a room of its own, with a function that each worker
calls, a ``train.reports.Measures`` and a ``Costs``, and one row in ``verbs.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from hgscale.tracking import DataInput
from hgscale.train.config import EngineConfig, TrainConfig
from hgscale.train.supervise import Attempt


class Task(Protocol):
    """What is trained, on what: the sections of a config that decide numbers."""

    @property
    def train(self) -> TrainConfig:
        """How long, how large and how fast."""

    @property
    def engine(self) -> EngineConfig:
        """Who makes the steps."""

    @property
    def seeded(self) -> tuple[str, ...]:
        """The fields, dotted, that a repetition's seed is written into."""

    def fingerprint(self) -> str:
        """16 hex digits of everything that decides numbers, and of nothing else; files count by their content."""

    @property
    def has_data(self) -> bool:
        """Whether its data are there; without them ``check_task`` makes them first."""

    def check_task(self) -> None:
        """Refuse, before anything starts, what could not run or could not mean anything.

        Raises:
            ConfigError: naming the field and the repair.
            DataError: if a file is wrong.
        """

    def check(self, world_size: int) -> None:
        """``check_task``, and that so many workers can share a step."""

    def sizes(self, fewest: int, most: int) -> list[int]:
        """The numbers of workers in a range that can share the global batch, ascending.

        Raises:
            ConfigError: if there is none.
        """

    def fresh(self) -> Self:
        """The same, without what it has opened: small to send, and each worker opens it for itself."""

    def with_data_dir(self, data_dir: str | None) -> Self:
        """With absolute paths; relative ones are looked up in a folder, null: in the working directory."""

    def with_seed_in_paths(self, seed: int) -> Self:
        """With the seed in place of ``{seed}`` in paths: a repetition may have files of its own."""

    def data_input(self, summary: Mapping[str, Any]) -> DataInput:
        """What a finished run was trained on, for MLflow, by its summary: the data need not be opened again."""


class TrainWorker(Protocol):
    """What each worker of a group calls; every one with the same arguments."""

    def __call__(
        self,
        task: Any,
        run_dir: Path,
        threads: int = 1,
        device: str = "cpu",
        figure: bool = True,
        attempt: Attempt | None = None,
    ) -> None:
        """Train to the end from the newest checkpoint; rank 0 leaves ``summary.json`` last.

        Args:
            task: the config.
            run_dir: shared by all workers.
            threads: torch threads of this worker.
            device: "cpu" or "cuda".
            figure: draw figures.
            attempt: who may stop it, see ``loop.run``.
        """


class Planned(Protocol):
    """A training on machines that may not be there."""

    @property
    def needed_bytes(self) -> float:
        """Of one worker's device, at its most."""

    @property
    def room_bytes(self) -> float:
        """Of a device, that training may use."""

    def remedies(self) -> list[str]:
        """Options with which it would fit; the least change first."""

    def text(self) -> str:
        """A table for a terminal."""


class Costs(Protocol):
    """What a training takes, asked before it starts; None: not known."""

    @property
    def assumed(self) -> str:
        """What the bytes assume, in words."""

    def about(self, task: Any) -> str:
        """The data in a line, as "245 edges over 50 nodes"."""

    def worker_bytes(self, task: Any, num_workers: int) -> float | None:
        """That one worker holds at its most, beside an idle process."""

    def checkpoint_bytes(self, task: Any) -> float | None:
        """Of one checkpoint, over all workers."""

    def smaller(self, task: Any, num_workers: int) -> str:
        """Options that make a worker smaller."""

    def planned(self, task: Any, machines: str, utilisation: float) -> Planned:
        """A plan for assumed machines, as 4x8xH200.

        Raises:
            ConfigError: if the machines are not known, or the task cannot be planned.
        """
