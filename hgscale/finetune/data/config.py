"""Which relation data a run reads. Knows neither torch nor files, so that who only plans runs need not load them."""

from dataclasses import dataclass, field, fields
from typing import Literal

from hgscale.config import READS, refuse_ignored
from hgscale.errors import ConfigError

MOST_OBJECTS = 10  # of a planted context
_OF_NAMES = ("num_names", "num_classes", "seen_names_frac", "num_mentions")
_IGNORED = {
    "ambiguous": ("num_decoys", *_OF_NAMES),
    "three_way": ("hidden_frac", *_OF_NAMES),
    "names": ("num_decoys", "hidden_frac", "min_distractors", "max_distractors", "none_frac", "image_size"),
}
"""Fields of ``PlantedConfig`` that mean nothing in a mode."""


@dataclass(frozen=True, kw_only=True)
class PlantedConfig:
    """Data made on the spot, whose best possible F1 is known."""

    mode: Literal["ambiguous", "three_way", "names"] = "ambiguous"
    """What decides a relation beyond the text. ambiguous: the shape of the object of the head's colour. three_way: the
    shape of the one object that shows the colours of head and tail; every other object shows one of the two at most.
    names: hidden classes of the two names, and no image."""

    num_contexts: int = 2000
    """Contexts of the training split."""

    num_eval_contexts: int = 500
    """Contexts of each of val and test."""

    min_entities: int = 2
    """Fewest entities of a context."""

    max_entities: int = 3
    """Most entities of a context: at most 7, and 4 of mode three_way, whose pairs have an object each."""

    num_decoys: int = 1
    """Objects that show an entity's colour beside one that no entity has, and decide nothing; of each entity (mode
    three_way). With those that decide, at most 10 a context."""

    hidden_frac: float = 0.0
    """Share of the objects that decide which are left out of the image (mode ambiguous)."""

    min_distractors: int = 0
    """Fewest objects that decide nothing."""

    max_distractors: int = 3
    """Most objects that decide nothing. With those that decide, at most 10 a context."""

    none_frac: float = 0.5
    """Share of pairs that are None, which the types of the two tell (mode names: it is 1 - 1 / num_classes)."""

    label_noise_frac: float = 0.05
    """Share of the related pairs whose label is not the one shown, but the other that the text leaves possible (mode
    names: that of the next class)."""

    image_size: int = 64
    """Pixels on a side."""

    num_names: int = 400
    """Names there are, in all classes together (mode names)."""

    num_classes: int = 4
    """Hidden classes of names (mode names)."""

    seen_names_frac: float = 0.5
    """Share of the names that training contexts use; val and test use all of them (mode names)."""

    num_mentions: int = 20_000
    """Co-mentions in ``world.json``: unlabelled sets of names, of one class each but for noise (mode names)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be planted."""
        refuse_ignored(self, _IGNORED[self.mode], "data.planted", f"data.planted.mode={self.mode}")
        for name in ("num_contexts", "num_eval_contexts", "num_mentions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.planted.{name}={getattr(self, name)} is below 1")
        most_entities = 4 if self.mode == "three_way" else 7
        if not 2 <= self.min_entities <= self.max_entities <= most_entities:
            raise ConfigError(
                f"data.planted: from {self.min_entities} to {self.max_entities} entities; wanted 2 to {most_entities} "
                f"in mode {self.mode}"
            )
        most_shown = self.max_entities * (self.max_entities - 1) // 2 + self.num_decoys * self.max_entities
        if self.num_decoys < 1 or (self.mode == "three_way" and most_shown > MOST_OBJECTS):
            raise ConfigError(
                f"data.planted.num_decoys={self.num_decoys}: {most_shown} objects with {self.max_entities} entities; "
                f"wanted 1 or more decoys, and at most {MOST_OBJECTS} objects"
            )
        if not 0 <= self.min_distractors <= self.max_distractors <= 10:
            raise ConfigError(
                f"data.planted: from {self.min_distractors} to {self.max_distractors} distractors; wanted 0 to 10"
            )
        for name, most in (("none_frac", 1), ("label_noise_frac", 0.5), ("hidden_frac", 1)):
            if not 0 <= getattr(self, name) < most:
                raise ConfigError(f"data.planted.{name}={getattr(self, name)} is not in [0, {most})")
        if not 0 < self.seen_names_frac <= 1:
            raise ConfigError(f"data.planted.seen_names_frac={self.seen_names_frac} is not in (0, 1]")
        if self.image_size < 32:
            raise ConfigError(f"data.planted.image_size={self.image_size} is below 32; shapes could not be told apart")
        if self.mode == "names" and not self._names_fit():
            raise ConfigError(
                f"data.planted: {self.num_names} names, {self.seen_names_frac} of them seen, in {self.num_classes} "
                "classes; wanted 2 to 16 classes, and 8 seen names for each"
            )
        if not 16 <= self.num_names <= 100_000:
            raise ConfigError(f"data.planted.num_names={self.num_names}; wanted 16 to 100000")

    def _names_fit(self) -> bool:
        return 2 <= self.num_classes <= 16 and self.num_names * self.seen_names_frac >= 8 * self.num_classes


@dataclass(frozen=True, kw_only=True)
class RelationDataConfig:
    """Relations of entities in sentences with images."""

    name: Literal["mnre", "more", "planted"] = "mnre"
    """mnre: both ends of a pair are in the text. more: the tail is an object of the image. planted: made on the spot,
    in the format of mnre."""

    root: str | None = field(default=None, metadata=READS)
    """Folder of the files: mnre_{train,val,test}.txt or ours_{train,val,test}.txt; {train,valid,test}.txt,
    ent_{train,valid,test}_dict.pth and rel2id.json of more, as published. planted: where they are made; null puts them
    under runs, by what they depend on."""

    images: str | None = field(default=None, metadata=READS)
    """Folder of the images, or of one folder of them for each split; null: text only. planted has its own."""

    boxes: str | None = field(default=None, metadata=READS)
    """Objects of the images of mnre: a file (JSON or .pth) of image -> list, or a folder of one such file for each
    split (names hold train, val or dev, test), whose keys are images or, as in the crop lists shipped with MNRE,
    numbers of instances. An element is [x0, y0, x1, y1] in pixels, {box, label}, or the name of a crop's file."""

    max_objects: int = 10
    """Objects kept of each image: the first so many."""

    broken_images: Literal["refuse", "absent"] = "refuse"
    """What an image that is missing or unreadable does. absent: the context has none, and statistics count it."""

    pair_order: Literal["text", "file"] = "text"
    """text: the two of a pair come in the order of the text, objects behind entities, so that which of them the file
    calls head cannot tell the label. file: head first (in MNRE, a head behind its tail nearly implies a relation)."""

    num_contexts: int | None = None
    """Training contexts used: the first so many in an order by seed, so that fewer are a part of more. Null: all."""

    seed: int = 0
    """Of that order, and of planted data."""

    allow_leaks: bool = False
    """Train on inputs that the audit finds to give the label away. Such a run is tagged."""

    planted: PlantedConfig = field(default_factory=PlantedConfig)
    """Of name=planted."""

    def __post_init__(self) -> None:
        """Refuse what no data could meet."""
        if self.name == "more" and self.boxes is not None:
            raise ConfigError(f"data.boxes={self.boxes}: more has its own (ent_*_dict.pth in data.root); leave it out")
        if self.name == "planted" and (self.images is not None or self.boxes is not None):
            raise ConfigError("data.images and data.boxes are made with data.name=planted; leave them out")
        if self.name != "planted":
            every = [one.name for one in fields(PlantedConfig)]
            refuse_ignored(self.planted, every, "data.planted", f"data.name={self.name}")
        if self.name != "planted" and self.images is None:
            refuse_ignored(self, ("broken_images",), "data", "data.images=null")
        if self.max_objects < 0:
            raise ConfigError(f"data.max_objects={self.max_objects} is below 0")
        if self.num_contexts is not None and self.num_contexts < 1:
            raise ConfigError(f"data.num_contexts={self.num_contexts} is below 1; null takes all")
