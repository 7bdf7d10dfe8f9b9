"""The cells of a study: a base config, crossed with variants, axes and seeds; and which of them are missing.

A cell is one training. Seeds are nested: cell (N, seed) sees a prefix of the samples of cell (N' > N, seed), on the
same world, so the points of one curve share their data and curves of one seed are to be resampled together.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from hgscale import config as configs
from hgscale.cluster.cells import CellConfig, ParallelConfig
from hgscale.config import READS
from hgscale.errors import ConfigError, DataError
from hgscale.plugins import imported
from hgscale.study.analysis import AnalysisConfig
from hgscale.study.measures import DEFAULT_TASK
from hgscale.tracking import TrackingConfig
from hgscale.train.protocol import Task
from hgscale.verbs import Trained, trained


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Many trainings that differ in a few fields, and what their errors say together."""

    name: str | None = None
    """Name of the study, and of its directory under $HGSCALE_HOME/studies or runs/studies."""

    task: str = DEFAULT_TASK
    """What a cell is: a verb that trains."""

    base: dict[str, Any] | Any = field(default_factory=dict)
    """What all cells have in common: fields of that verb, as ``hgscale pretrain --help`` names them, but for where it
    runs and is remembered. In Python also a task."""

    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Named sets of fields, each a curve of its own, as {pairs: {world.generator: gnm}}. ``axes`` inside a variant adds
    to the study's, or replaces those of the same name."""

    axes: dict[str, list[Any]] = field(default_factory=dict)
    """Values to cross, by field, as {samples.num_samples: [1e3, 1e4]}. Fields that move together share a line, with a
    list for each point: {"model.hidden_size, train.num_steps": [[32, 500], [64, 1000]]}."""

    seeds: int = 3
    """Repetitions of every point, with seeds 0, 1, ... of the world (if it is made), the samples, the masks and the
    training. In a path, as world.path or data.root, {seed} stands for the seed: each repetition has a file of its
    own."""

    data_dir: str | None = field(default=None, metadata=READS)
    """Folder in which relative paths of worlds and data are looked up. Null: the current one."""

    cell: CellConfig = field(default_factory=CellConfig)
    """What one cell may use."""

    cluster: ParallelConfig = field(default_factory=ParallelConfig)
    """Where cells run, and how many at once."""

    retry_failed: bool = False
    """Run cells again that failed in an earlier call."""

    dry_run: bool = False
    """Print the cells, what each costs and which are done; run none. A cell that could not run is refused, unless its
    data would have to be made first."""

    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    """What the report says."""

    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the study is remembered."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds={self.seeds}: the grid is empty; give at least 1, and 3 for an interval")
        if self.name is not None and (not self.name or set(self.name) & set("/\\\0") or self.name.startswith(".")):
            raise ConfigError(f"name={self.name!r} cannot name a directory; use letters, digits, - and _")
        if not isinstance(self.base, self.task_class):
            # With all fields, so that what is kept of a study says all of it.
            object.__setattr__(self, "base", configs.to_dict(self.base_task))

    @property
    def trained(self) -> Trained:
        """What the verb says of itself."""
        return trained(self.task, "task")

    @property
    def task_class(self) -> type:
        """The config of a cell."""
        found: type = imported(self.trained.task, "task")
        return found

    @cached_property
    def base_task(self) -> Task:
        """``base`` as a task.

        Raises:
            ConfigError: for what is no field of it, or of another type.
        """
        base: Any = self.base
        if dataclasses.is_dataclass(base) and not isinstance(base, self.task_class):
            raise ConfigError(
                f"base is a {type(base).__name__}, but task={self.task} trains a {self.task_class.__name__}; "
                "set task to the verb of the base"
            )
        task: Any = base if dataclasses.is_dataclass(base) else configs.from_mapping(self.task_class, base, "base")
        return cast(Task, task)

    def check_run(self) -> None:
        """``cluster.job.Checked``."""
        cells(self)

    @property
    def directory(self) -> Path:
        """Where the study lives.

        Raises:
            ConfigError: without a name.
        """
        if self.name is None:
            raise ConfigError("name is not given; name the study, as --name samples")
        return (configs.runs_home() / "studies" / self.name).absolute()


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    Attributes:
        fingerprint: of its task; the name of its directory.
        variant: the curve it belongs to, None in a study without variants.
        axes: its place on every axis, by dotted field.
        seed: which repetition.
        task: what is trained.
    """

    fingerprint: str
    variant: str | None
    axes: dict[str, Any]
    seed: int
    task: Task

    @property
    def label(self) -> str:
        """One line that tells it from the other cells."""
        return label(self.variant, self.axes, self.seed)

    def line(self) -> dict[str, Any]:
        """As it stands in grid.jsonl."""
        return {"cell": self.fingerprint, "variant": self.variant, "axes": self.axes, "seed": self.seed}


def label(variant: str | None, axes: Mapping[str, Any], seed: int) -> str:
    """A cell's place in the grid, as a person writes it."""
    parts = [variant] if variant else []
    for name, value in axes.items():
        parts.append(f"{name.rpartition('.')[2]}={f'{value:g}' if isinstance(value, float) else value}")
    return " ".join([*parts, f"seed={seed}"])


def cells(config: StudyConfig) -> list[Cell]:
    """All cells of a study, seeds innermost.

    Raises:
        ConfigError: for an axis that names no field, a value of the wrong type, an empty grid, or two cells that are
            the same training.
        DataError: if a world's file is wrong.
    """
    base = config.base_task.with_data_dir(config.data_dir)
    found: dict[str, Cell] = {}
    variants: list[tuple[str | None, dict[str, Any]]] = [*config.variants.items()] or [(None, {})]
    for variant, changes in variants:
        own = dict(changes)
        axes = {**config.axes, **_own_axes(variant, own)}
        where = f"variants.{variant}" if variant else "axes"
        task = _changed(base, own, where, config.data_dir)
        for point in _points(axes, where):
            for seed in range(config.seeds):
                cell = _cell(task, variant, point, seed, where, config.data_dir)
                if twin := found.get(cell.fingerprint):
                    raise ConfigError(
                        f"two cells are the same training: {twin.label}, and {cell.label}; "
                        "drop one, or change a field that decides a number"
                    )
                found[cell.fingerprint] = cell
    return list(found.values())


def _own_axes(variant: str | None, changes: dict[str, Any]) -> Mapping[str, list[Any]]:
    """Take the axes out of a variant's changes."""
    axes = changes.pop("axes", {})
    if not isinstance(axes, Mapping):
        raise ConfigError(f"variants.{variant}.axes is {axes!r}; a mapping of fields to lists is wanted")
    return axes


def _points(axes: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values, by dotted field."""
    columns = []
    for names, values in axes.items():
        fields = [name.strip() for name in names.split(",")]
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ConfigError(f"{where}: {names} is {values!r}; a list of values is wanted")
        if not values:
            raise ConfigError(f"{where}: {names} has no values, so the grid is empty; give at least one")
        columns.append([_point(fields, value, where) for value in values])
    for combination in itertools.product(*columns):
        yield {name: value for part in combination for name, value in part.items()}


def _point(fields: Sequence[str], value: Any, where: str) -> dict[str, Any]:
    if len(fields) == 1:
        return {fields[0]: value}
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(fields):
        raise ConfigError(f"{where}: {', '.join(fields)}: {value!r} is no list of {len(fields)} values, one per field")
    return dict(zip(fields, value, strict=True))


def _cell(
    task: Task, variant: str | None, point: Mapping[str, Any], seed: int, where: str, data_dir: str | None
) -> Cell:
    changes = {**point, **dict.fromkeys(task.seeded, seed)}
    placed = _changed(task, changes, where, data_dir).with_seed_in_paths(seed)
    # As the config has them: 1e3 is 1000 where a whole number is wanted. A path stays as the user wrote it, wherever
    # the data lie.
    values, paths = configs.flatten(configs.to_dict(placed)), configs.path_fields(type(placed))
    axes = {name: value if name in paths else values.get(name, value) for name, value in point.items()}
    return Cell(placed.fingerprint(), variant, axes, seed, placed)


def check(chosen: Sequence[Cell], num_workers: int) -> None:
    """Refuse, before anything is started, a cell that could not run or could not mean anything.

    Raises:
        ConfigError, DataError: of the first such cell, naming it.
    """
    for cell in chosen:
        try:
            cell.task.fresh().check(num_workers)  # what it opens is not to be kept, once per cell, nor sent to workers
        except (ConfigError, DataError) as error:
            raise type(error)(f"cell {cell.label}: {error}") from None


def _changed(task: Task, changes: Mapping[str, Any], where: str, data_dir: str | None) -> Task:
    try:
        return configs.with_fields(task, changes).with_data_dir(data_dir)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
