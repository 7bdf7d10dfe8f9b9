"""What a pre-training is: its config, what it refuses, and its fingerprint. Knows no torch: planning runs is light."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from hgscale import config as configs
from hgscale.data.masking import ObjectiveConfig
from hgscale.data.stream import SamplesConfig, Stream
from hgscale.data.worlds import kept_world, open_world
from hgscale.errors import ConfigError
from hgscale.hypergraph.identify import identifiability
from hgscale.hypergraph.recovery.estimators import check_estimators
from hgscale.hypergraph.recovery.readout import ReadoutConfig, check_readout, definite
from hgscale.hypergraph.structure import Hypergraph, World
from hgscale.hypergraph.worlds.config import WorldConfig, held_out_config
from hgscale.models.config import ADAPTED, MAX_LOGITS, ModelConfig
from hgscale.plugins import identified
from hgscale.tracking import DataInput
from hgscale.train import sizes as sharing
from hgscale.train.config import EngineConfig, TrainConfig

NUMBER_SECTIONS = ("world", "samples", "objective", "model", "train", "engine", "readout")


@dataclass(frozen=True, kw_only=True)
class PretrainTask:
    """What is trained, on what, and how it is read: the sections that decide numbers."""

    world: WorldConfig = field(default_factory=WorldConfig)
    """The truth: a file or a generator. In Python also a ``Hypergraph``, which is written below $HGSCALE_HOME/worlds,
    where workers and later readers find it."""

    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """The data: edges drawn from the world by weight."""

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What is hidden from the model."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """Steps, batch, learning rate."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    """Who makes the optimizer steps: DeepSpeed or plain torch."""

    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """How the hypergraph is read out of the model."""

    estimators: list[str] = field(default_factory=list)
    """Your own estimators, beside which the model is laid as beside counting, each as package.module:function."""

    def __post_init__(self) -> None:
        if isinstance(self.world, Hypergraph):
            object.__setattr__(self, "world", kept_world(self.world))

    @cached_property
    def target_world(self) -> World:
        """The world, opened once."""
        return _built(json.dumps(configs.to_dict(self.world)), _stamps(self.world.path))

    @cached_property
    def held_out(self) -> Hypergraph | None:
        """The rest of the file, where the world is a part of one."""
        rest = held_out_config(self.world)
        if rest is None:
            return None
        world = _built(json.dumps(configs.to_dict(rest)), _stamps(rest.path))
        assert isinstance(world, Hypergraph)  # only shards are ever mapped, and they have no parts
        return world

    def fingerprint(self) -> str:
        """Of everything that decides numbers. A world from a file counts by its content, not by where the file lies."""
        sections = {name: value for name, value in configs.to_dict(self).items() if name in NUMBER_SECTIONS}
        sections["objective"] = self.objective.decides()
        sections["model"] = self.model.decides()
        sections["train"], sections["engine"] = self.train.decides(), self.engine.decides()
        sections["readout"] = self.readout.decides()
        if self.estimators:
            sections["estimators"] = [identified(name, "estimators") for name in self.estimators]
        if self.world.path is None:
            sections["world"] = self.world.decides()
        else:
            sections["world"] = {"digest": self.target_world.digest}
            if self.held_out is not None:
                sections["world"]["held_out"] = self.held_out.digest
        return configs.fingerprint(sections)

    @property
    def seeded(self) -> tuple[str, ...]:
        """The fields that a repetition's seed is written into."""
        return "world.seed", "samples.seed", "objective.seed", "train.seed"

    def fresh(self) -> Self:
        """Without the opened world."""
        return dataclasses.replace(self)

    def with_seed_in_paths(self, seed: int) -> Self:
        """A world's path may name a file for each seed: worlds of one kind, as repetitions of one point."""
        if self.world.path is None:
            return self
        path = self.world.path.replace("{seed}", str(seed))
        return dataclasses.replace(self, world=dataclasses.replace(self.world, path=path))

    def data_input(self, summary: Mapping[str, Any]) -> DataInput:
        """What a finished run was trained on, by its summary: the world need not be opened again."""
        profile = {name: summary[name] for name in ("num_nodes", "num_edges")}
        source = self.world.path or f"generator {self.world.generator}"
        return DataInput("world", summary["world_digest"], profile, source)

    def with_data_dir(self, data_dir: str | None) -> Self:
        """With absolute paths, relative ones being looked up in a folder."""
        given = {"world.path": self.world.path, "engine.deepspeed_config": self.engine.deepspeed_config}
        paths = {k: str((Path(data_dir or ".") / v).absolute()) for k, v in given.items() if v is not None}
        return configs.with_fields(self, paths)

    def stream(self) -> Stream:
        return Stream(self.samples.num_samples, self.train.global_batch, self.train.seed)

    @property
    def regime(self) -> str:
        """Which statistic this run measures: fresh samples, or a corpus with masks drawn anew or once."""
        if self.samples.num_samples is None:
            return "fresh"
        return "corpus_redrawn_masks" if self.objective.redraw else "corpus_static_masks"

    @property
    def has_data(self) -> bool:
        """A world is read, or made in memory."""
        return True

    def check(self, world_size: int) -> None:
        """Refuse, before anything is started, what could not run or could not mean anything.

        Raises:
            ConfigError: naming the field and the repair.
            DataError: if the world's file is wrong.
        """
        self.check_task()
        sharing.check_share(self, world_size)

    def sizes(self, fewest: int, most: int) -> list[int]:
        """The numbers of workers in a range that can share the global batch, see ``train.sizes``."""
        return sharing.sizes(self, fewest, most)

    def check_task(self) -> None:
        """``check`` as far as it does not depend on the number of workers."""
        self.stream()
        _ = self.held_out  # an empty rest is refused here, not after the training
        if self.samples.num_samples is None:  # each sample is seen once, and so is its mask
            configs.refuse_ignored(self.objective, ["redraw"], "objective", "samples.num_samples=null")
        self.objective.law(self.target_world.distinct_sizes)
        if self.objective.objective().trains == "one_mask":
            self._check_one_mask()
        check_readout(self.target_world, self.readout, self.objective.objective().trains)
        check_estimators(self.estimators, self.target_world.distinct_sizes)
        self._check_model()

    def _check_model(self) -> None:
        """Build a model whose config nothing else can judge."""
        if self.model.kind().fields is None:
            from hgscale.models.build import build_model

            build_model(self.model, self.target_world, seed=0)
        most = max(1, MAX_LOGITS // self.target_world.num_nodes)
        shared_out = self.engine.name == "deepspeed" and self.engine.zero_stage == 3
        if shared_out and self.model.kind() is ADAPTED and (self.train.micro_batch or self.train.global_batch) > most:
            raise ConfigError(
                f"engine.zero_stage=3 with model.name={self.model.name}: workers would call it for different numbers "
                f"of chunks of logits, and wait for one another; set train.micro_batch to at most {most}, or "
                "engine.zero_stage to 2"
            )

    def _check_one_mask(self) -> None:
        world = self.target_world
        if not isinstance(world, Hypergraph):
            raise ConfigError(
                f"objective.masking={self.objective.masking}: whether it identifies a world of {world.num_edges} edges "
                "is told only of worlds held in memory; set objective.masking to random_subset, or world.load to memory"
            )
        known = identifiability(world)
        if not known.one_mask and not self.readout.allow_unidentified:
            raise ConfigError(
                f"objective.masking={self.objective.masking} cannot recover this world: {known.reason}; {known.remedy}"
            )

    def effective_readout(self) -> ReadoutConfig:
        """``auto`` made definite where the objective decides: one mask is never read by chains."""
        return definite(self.target_world, self.readout, self.objective.objective().trains)


@lru_cache(maxsize=4)
def _built(world: str, stamps: tuple[tuple[str, int, int], ...]) -> World:
    """A world by its config as JSON: runs that follow one another in a process often share theirs."""
    return open_world(WorldConfig(**json.loads(world)))


def _stamps(path: str | None) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of the files a world is read from; none where there are none."""
    if path is None:
        return ()
    place = Path(path)
    files = sorted(place.iterdir()) if place.is_dir() else [place] if place.exists() else []
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
