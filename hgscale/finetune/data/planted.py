"""Relation data made on the spot, whose best possible F1 is known: text of MNRE's format, PNG files, boxes.

``ambiguous``: a mention says a colour and a type ("red person"). A pair is related exactly if one of the two is a
person, and the types leave two relations possible. Each entity has one object of its colour in the image; the shape of
the object of the first person of the pair, filled or hollow, says which relation it is.

``three_way``: text likewise. Each pair of entities has one object that shows the colours of both, one in each half, and
its shape decides. Each entity has decoys, objects that show its colour beside one that no entity has. All shapes are
coins of their own. So the objects that fit the head, or fit the tail, are a vote in which one voice knows: only head,
tail and object together tell which.

``names``: a mention is a name, each name has a hidden class, and a pair is related exactly if the classes are equal;
the relation tells the class. Training uses a part of the names. ``world.json`` holds unlabelled sets of names, of one
class but for strays, for pre-training.

Files under the root: ``mnre_{train,val,test}.txt``, ``rel2id.json``, ``images/{train,val,test}/*.png``, ``boxes.json``,
``world.json`` (mode names), ``planted.json`` (what they were made from, written last).
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from hgscale import config as configs
from hgscale import rng
from hgscale.errors import ConfigError, RunError
from hgscale.files import sweep, writing_folder
from hgscale.finetune.data.config import MOST_OBJECTS, PlantedConfig, RelationDataConfig
from hgscale.finetune.data.images import Source
from hgscale.finetune.data.names import co_mentions
from hgscale.finetune.data.text import SPLITS
from hgscale.hypergraph import io

VERSION = 2  # of the law: files of another one are made again

COLOURS = {
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "pink": (255, 0, 255),
    "white": (255, 255, 255),
}
"""Corners of the cube of colours, as far from each other as eight can be, on a grey in its middle."""

BACKGROUND = (128, 128, 128)

RELATIONS = {
    ("person", "person"): ("/person/person/friends", "/person/person/rivals"),
    ("person", "place"): ("/person/place/lives_in", "/person/place/visits"),
    ("person", "group"): ("/person/group/leads", "/person/group/joins"),
}
"""What the types of a pair leave possible: the first if the deciding shape is filled, the second if it is hollow."""

_TYPES = ("person", "place", "group")
_STRAY_FRAC = 0.1  # sets of world.json in which one name is of any class


@dataclass(frozen=True)
class _Shape:
    """An object to draw: its colours, left and right, equal where it has one; and whether it is filled."""

    left: str
    right: str
    filled: bool


@dataclass(frozen=True)
class _Scene:
    """A context to write: mentions (their words), pairs as (head, tail, relation), objects."""

    mentions: list[list[str]]
    pairs: list[tuple[int, int, str]]
    shapes: list[_Shape]


def limits(config: RelationDataConfig) -> dict[str, float]:
    """The best micro-F1 that any classifier reaches on planted data, as the number of test pairs grows.

    ``ambiguous`` and ``three_way``: whether a pair is related is plain from the text. With images, the relation shown
    is the label of a related pair with probability 1 - label_noise_frac, or 1/2 where the object is left out. F1 is
    then the mean of these: all related pairs are answered, and answering one at probability p raises F1 if p is above
    half of it, which 1/2 always is. From text alone, every related pair is a coin.

    ``three_way``, ``votes``: who asks each object which of the two colours it shows, but not whether it shows both, can
    only add: the object that decides has two votes, and each other one that shows a colour of the two has one.

    ``names``: ``world`` is who knows all classes; ``text`` who knows those of the names that training uses. Pairs of
    which one or both are unknown are answered with their likeliest relation where that raises F1; the best set of
    answered pairs takes them by falling probability.

    Returns:
        text and images, and of mode three_way votes; or, of mode names, text and world.

    Source: derived here.
    """
    planted = config.planted
    right = 1 - planted.label_noise_frac
    if planted.mode != "names":
        left_out = planted.hidden_frac
        found = {"text": 0.5, "images": (1 - left_out) * right + left_out / 2}
        if planted.mode == "three_way":
            outvoted = _outvoted_frac(planted)
            found["votes"] = (1 - outvoted) * right + outvoted * planted.label_noise_frac
        return found
    seen, num = _seen_frac(planted), planted.num_classes
    related = 1 / num
    answers = [  # share of all pairs, probability of the best answer
        (seen**2 * related, right),
        (2 * seen * (1 - seen), related * right),
        ((1 - seen) ** 2, related / num),
    ]
    hits = np.cumsum([share * chance for share, chance in answers])
    answered = np.cumsum([share for share, _ in answers])
    return {"text": float((2 * hits / (answered + related)).max()), "world": right}


def _outvoted_frac(planted: PlantedConfig) -> float:
    """Share of the pairs whose object, with its two votes, the others outvote; of a tie, half."""
    numbers = np.arange(planted.min_entities, planted.max_entities + 1)
    # The decoys of the two, and the objects of their pairs with the others.
    voices = 2 * (planted.num_decoys + numbers - 2)
    lost = binom.sf(voices // 2 + 1, voices, 0.5) + binom.pmf(voices // 2 + 1, voices, 0.5) / 2
    return float(np.average(lost, weights=numbers * (numbers - 1)))


def made(config: RelationDataConfig) -> Source:
    """Where the files of a config are, made first if they are not there yet.

    Raises:
        ConfigError: if the folder named holds something else.
        RunError: if the disk refuses.
    """
    wanted, root = _made_from(config), place_of(config)
    if not _is_made(root, wanted):
        _make(config, root, wanted)
    if config.planted.mode == "names":
        return Source(root, None, None)
    return Source(root, root / "images", root / "boxes.json")


def place_of(config: RelationDataConfig) -> Path:
    """Where the files of a config are, or will be: absolute."""
    if config.root is not None:
        return Path(config.root).absolute()
    return configs.runs_home() / "planted" / configs.fingerprint(_made_from(config))


def _made_from(config: RelationDataConfig) -> dict[str, Any]:
    return {"version": VERSION, "seed": config.seed, **dataclasses.asdict(config.planted)}


def _is_made(root: Path, wanted: dict[str, Any]) -> bool:
    try:
        found = json.loads((root / "planted.json").read_text())
    except FileNotFoundError:
        if root.is_dir() and any(root.iterdir()):
            raise ConfigError(f"data.root={root}: holds other files than planted data; name a new folder") from None
        return False
    except (OSError, ValueError) as error:
        raise ConfigError(f"{root}/planted.json: cannot be read ({error}); remove the folder") from None
    if found != wanted:
        different = sorted(name for name in wanted if found.get(name) != wanted[name])
        raise ConfigError(
            f"data.root={root}: holds data planted with other {', '.join(different)}; name a new folder, or null"
        )
    return True


def _make(config: RelationDataConfig, root: Path, wanted: dict[str, Any]) -> None:
    """Write all files beside their place, and put them there at once: who comes second takes what is there."""
    sweep(root)
    with writing_folder(root, "make room, or set data.root", replace=False) as folder:
        _write(config, folder)
        (folder / "planted.json").write_text(json.dumps(wanted, indent=1) + "\n")
    if not _is_made(root, wanted):
        raise RunError(f"{root}: is not what was written there; remove it, and run the same command again")


def _write(config: RelationDataConfig, folder: Path) -> None:
    planted = config.planted
    boxes: dict[str, list[list[int]]] = {}
    for split in SPLITS:
        lines = []
        (folder / "images" / split).mkdir(parents=True)
        num = planted.num_contexts if split == "train" else planted.num_eval_contexts
        for at in range(num):
            # A stream for each context: fewer of them are the first of more.
            draw = rng.stream(config.seed, f"planted {split}", at)
            name = f"{split}_{at:06d}.png"
            scene = _scene(planted, config.seed, split, draw)
            lines += _lines(scene, name)
            if planted.mode != "names":
                boxes[name] = _draw(scene.shapes, planted.image_size, folder / "images" / split / name, draw)
        (folder / f"mnre_{split}.txt").write_text("".join(f"{line!r}\n" for line in lines))
    (folder / "rel2id.json").write_text(json.dumps({name: at for at, name in enumerate(_labels(planted))}))
    (folder / "boxes.json").write_text(json.dumps(boxes))
    if planted.mode == "names":
        names = [name.lower() for name in _names(planted, config.seed)]
        io.write(co_mentions(_mentioned(planted, names, config.seed), names), folder / "world.json")


def _labels(planted: PlantedConfig) -> list[str]:
    if planted.mode == "names":
        return ["None", *(f"/name/name/kind_{kind}" for kind in range(planted.num_classes))]
    return ["None", *itertools.chain.from_iterable(RELATIONS.values())]


@lru_cache(maxsize=2)
def _names(planted: PlantedConfig, seed: int) -> list[str]:
    """All names, in an order of their own; a name's class (mode names) is its place modulo the number of classes."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    order = rng.permute(np.arange(planted.num_names), len(syllables) ** 3, rng.key(seed, "planted names"))
    size = len(syllables)
    return [
        (syllables[at // size**2] + syllables[at // size % size] + syllables[at % size]).title()
        for at in order.tolist()
    ]


def _seen(planted: PlantedConfig) -> int:
    """How many names training contexts use: the first so many."""
    return round(planted.num_names * planted.seen_names_frac)


def _seen_frac(planted: PlantedConfig) -> float:
    return _seen(planted) / planted.num_names


def _mentioned(planted: PlantedConfig, names: list[str], seed: int) -> Iterator[frozenset[str]]:
    """Sets of three names of one class; in some, one is of any class."""
    draw = rng.stream(seed, "planted world")
    for _ in range(planted.num_mentions):
        kind = int(draw.integers(planted.num_classes))
        same = range(kind, len(names), planted.num_classes)
        chosen = [names[same[at]] for at in draw.choice(len(same), 3, replace=False)]
        if draw.random() < _STRAY_FRAC:
            chosen[0] = names[int(draw.integers(len(names)))]
        yield frozenset(chosen)


def _scene(planted: PlantedConfig, seed: int, split: str, draw: np.random.Generator) -> _Scene:
    num = int(draw.integers(planted.min_entities, planted.max_entities + 1))
    if planted.mode == "names":
        names = _names(planted, seed)
        return _named(planted, names[: _seen(planted)] if split == "train" else names, num, draw)
    # The share of pairs without a person is none_frac.
    person = 1 - np.sqrt(planted.none_frac)
    types = [_TYPES[at] for at in draw.choice(3, num, p=[person, (1 - person) / 2, (1 - person) / 2])]
    colours = [str(colour) for colour in draw.permutation(list(COLOURS))]
    own, free = colours[:num], colours[num:]
    mentions = [[own[at], types[at]] for at in range(num)]
    if planted.mode == "ambiguous":
        shown, shapes = _of_one(planted, types, own, draw)
    else:
        shown, shapes = _of_two(planted, own, free, draw)
    pairs = []
    for i, j in itertools.combinations(range(num), 2):
        head, tail = (j, i) if types[i] != "person" and types[j] == "person" else (i, j)
        if types[i] == types[j] or "person" not in (types[i], types[j]):
            head, tail = (i, j) if draw.random() < 0.5 else (j, i)  # the order of the file tells nothing
        relation = "None"
        if types[head] == "person":
            noisy = draw.random() < planted.label_noise_frac
            relation = RELATIONS[types[head], types[tail]][int(shown[i, j] == noisy)]
        pairs.append((head, tail, relation))
    room = MOST_OBJECTS - len(shapes)
    for _ in range(min(room, int(draw.integers(planted.min_distractors, planted.max_distractors + 1)))):
        left = str(draw.choice(free))
        right = str(draw.choice(free)) if planted.mode == "three_way" else left
        shapes.append(_Shape(left, right, bool(draw.random() < 0.5)))
    return _Scene(mentions, pairs, [shapes[at] for at in draw.permutation(len(shapes))])


def _of_one(
    planted: PlantedConfig, types: list[str], own: list[str], draw: np.random.Generator
) -> tuple[dict[tuple[int, int], bool], list[_Shape]]:
    """Which pairs are shown filled, and an object for each entity but those that are left out."""
    filled = draw.random(len(own)) < 0.5
    kept = draw.random(len(own)) >= planted.hidden_frac
    shown = {
        (i, j): bool(filled[i if types[i] == "person" else j]) for i, j in itertools.combinations(range(len(own)), 2)
    }
    shapes = [_Shape(own[at], own[at], bool(filled[at])) for at in range(len(own)) if kept[at]]
    return shown, shapes


def _of_two(
    planted: PlantedConfig, own: list[str], free: list[str], draw: np.random.Generator
) -> tuple[dict[tuple[int, int], bool], list[_Shape]]:
    """Which pairs are shown filled, an object for each pair, and decoys of each entity, which decide nothing."""
    shown = {couple: bool(draw.random() < 0.5) for couple in itertools.combinations(range(len(own)), 2)}
    shapes = [_Shape(own[i], own[j], filled) for (i, j), filled in shown.items()]
    for colour in np.repeat(own, planted.num_decoys):
        left, right = (str(half) for half in draw.permutation([colour, str(draw.choice(free))]))
        shapes.append(_Shape(left, right, bool(draw.random() < 0.5)))
    return shown, shapes


def _named(planted: PlantedConfig, names: list[str], num: int, draw: np.random.Generator) -> _Scene:
    said = [int(at) for at in draw.choice(len(names), num, replace=False)]
    kinds = [at % planted.num_classes for at in said]
    pairs = []
    for i, j in itertools.combinations(range(num), 2):
        head, tail = (i, j) if draw.random() < 0.5 else (j, i)
        relation = "None"
        if kinds[i] == kinds[j]:
            noisy = draw.random() < planted.label_noise_frac
            relation = f"/name/name/kind_{(kinds[i] + noisy) % planted.num_classes}"
        pairs.append((head, tail, relation))
    return _Scene([[names[at]] for at in said], pairs, [])


def _lines(scene: _Scene, image: str) -> list[dict[str, Any]]:
    """The instances of a context, as MNRE has them."""
    tokens = ["RT"]
    spans = []
    for words in scene.mentions:
        tokens.append("and")
        spans.append([len(tokens), len(tokens) + len(words)])
        tokens += words
    tokens.append(".")
    ends = [{"name": " ".join(words), "pos": span} for words, span in zip(scene.mentions, spans, strict=True)]
    return [
        {"token": tokens, "h": ends[head], "t": ends[tail], "img_id": image, "relation": relation}
        for head, tail, relation in scene.pairs
    ]


def _draw(shapes: list[_Shape], size: int, path: Path, draw: np.random.Generator) -> list[list[int]]:
    """Write the image of some objects, each in a cell of a grid as coarse as their number allows; their boxes."""
    from PIL import Image

    pixels = np.full((size, size, 3), BACKGROUND, dtype=np.uint8)
    grid = max(1, int(np.ceil(np.sqrt(len(shapes)))))
    cell = size // grid
    side = max(6, (cell - 2) // 2 * 2)
    boxes = []
    for place, shape in zip(draw.permutation(grid**2), shapes, strict=False):
        x, y = (int(at) * cell + int(draw.integers(cell - side + 1)) for at in (place % grid, place // grid))
        block = np.empty((side, side, 3), dtype=np.uint8)
        block[:, : side // 2], block[:, side // 2 :] = COLOURS[shape.left], COLOURS[shape.right]
        if not shape.filled:
            rim = max(1, side // 5)
            block[rim:-rim, rim:-rim] = BACKGROUND
        pixels[y : y + side, x : x + side] = block
        boxes.append([x, y, x + side, y + side])
    Image.fromarray(pixels).save(path)
    return boxes
