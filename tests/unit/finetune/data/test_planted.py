"""Planted data: the limits are those of an oracle that reads text and pixels; nothing but the stated object decides."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgscale.errors import ConfigError
from hgscale.finetune.data import planted as law
from hgscale.finetune.data.config import PlantedConfig, RelationDataConfig
from hgscale.finetune.data.contexts import Context, Pair
from hgscale.finetune.data.open import open_data
from hgscale.hypergraph import io

SMALL = {"num_contexts": 30, "num_eval_contexts": 500, "max_entities": 4}
OF_MODE = {"names": {"num_mentions": 3000}}
SHOWN = {"max_distractors": 4}  # of the modes with images
COLOUR_OF = {rgb: word for word, rgb in law.COLOURS.items()}


def config_of(mode: str, **fields) -> RelationDataConfig:
    planted = PlantedConfig(mode=mode, **(SMALL | OF_MODE.get(mode, SHOWN) | fields))
    return RelationDataConfig(name="planted", planted=planted, seed=3)


SEEN = pytest.mark.parametrize("mode", ["ambiguous", "three_way"])
EVERY = pytest.mark.parametrize("mode", ["ambiguous", "three_way", "names"])


def drawn(context: Context) -> list[tuple[str, str, bool]]:
    """Left colour, right colour, filled: of each object, out of the pixels."""
    pixels = np.asarray(Image.open(context.image))
    found = []
    for one in context.objects:
        x0, y0, x1, y1 = map(int, one.box)
        middle = tuple(pixels[(y0 + y1) // 2, (x0 + x1) // 2].tolist())
        left, right = (COLOUR_OF[tuple(pixels[y0, x].tolist())] for x in (x0, x1 - 1))
        found.append((left, right, middle != law.BACKGROUND))
    return found


def shown(context: Context, pair: Pair) -> int:
    """The label that text and pixels say, by the words of the law; 0 where no person is in the pair."""
    words = [context.entities[node].name.split() for node in (pair.first, pair.second)]
    types = [word[1] for word in words]
    if "person" not in types:
        return 0
    decider, other = words if types[0] == "person" else words[::-1]
    shapes = drawn(context)
    three_way = any(left != right for left, right, _ in shapes)
    for left, right, filled in shapes:
        if {left, right} == ({decider[0], other[0]} if three_way else {decider[0]}):
            return {"person": 1, "place": 3, "group": 5}[other[1]] + (not filled)
    return {"person": 1, "place": 3, "group": 5}[other[1]]


def f1(said: list[int], truth: list[int]) -> float:
    hits = sum(a == b != 0 for a, b in zip(said, truth, strict=True))
    return 2 * hits / (sum(a != 0 for a in said) + sum(b != 0 for b in truth))


@SEEN
def test_an_oracle_that_sees_reaches_the_limit_of_images_and_one_that_does_not_that_of_text(mode):
    config = config_of(mode)
    data = open_data(config)
    said, truth = [], []
    for context in data.test:
        said += [shown(context, pair) for pair in context.pairs]
        truth += [pair.label for pair in context.pairs]
    blind = [label and (label - 1) // 2 * 2 + 1 for label in truth]
    limits, num = law.limits(config), sum(label != 0 for label in truth)
    assert f1(said, truth) == pytest.approx(limits["images"], abs=4 * np.sqrt(0.05 * 0.95 / num))
    # Pairs of one context share an object, so that their coins are not all independent: at least one a context is.
    assert f1(blind, truth) == pytest.approx(limits["text"], abs=4 * np.sqrt(0.25 / len(data.test)))


def test_an_oracle_of_left_out_objects_reaches_their_limit():
    config = config_of("ambiguous", hidden_frac=0.4, max_distractors=1)
    data = open_data(config)
    said = [shown(context, pair) for context in data.test for pair in context.pairs]
    truth = [pair.label for context in data.test for pair in context.pairs]
    assert f1(said, truth) == pytest.approx(law.limits(config)["images"], abs=4 * np.sqrt(0.25 / len(data.test)))
    assert law.limits(config)["images"] == pytest.approx(0.6 * 0.95 + 0.4 * 0.5)
    assert min(len(context.objects) for context in data.test) == 0


def test_oracles_of_names_reach_their_limits():
    config = config_of("names", num_eval_contexts=1500)
    data = open_data(config)
    names = law._names(config.planted, config.seed)
    kind = {name: at % 4 for at, name in enumerate(names)}
    trained = {entity.name for context in data.train for entity in context.entities}
    assert trained <= set(names[:200])
    known = set(names[:200])
    said: dict[str, list[int]] = {"world": [], "text": []}
    truth = []
    for context in data.test:
        for pair in context.pairs:
            ends = [context.entities[node].name for node in (pair.first, pair.second)]
            same = kind[ends[0]] == kind[ends[1]]
            said["world"].append(kind[ends[0]] + 1 if same else 0)
            told = [kind[name] for name in ends if name in known]
            said["text"].append(0 if not told or len(set(told)) == 2 else told[0] + 1)
            truth.append(pair.label)
    limits = law.limits(config)
    assert f1(said["world"], truth) == pytest.approx(limits["world"], abs=0.02)
    assert f1(said["text"], truth) == pytest.approx(limits["text"], abs=0.03)
    assert limits["text"] < 0.5 < limits["world"]


@pytest.mark.parametrize(("num_decoys", "max_entities"), [(1, 3), (2, 3), (4, 2)])
def test_an_object_shows_both_colours_of_a_pair_and_votes_of_those_that_show_one_reach_their_limit(
    num_decoys, max_entities
):
    """The object that decides is one of several that fit the head, and of several that fit the tail."""
    sizes = {"num_eval_contexts": 1500, "max_entities": max_entities, "max_distractors": 1}
    config = config_of("three_way", num_decoys=num_decoys, **sizes)
    said, truth = [], []
    for context in open_data(config).test:
        colours = [entity.name.split()[0] for entity in context.entities]
        shapes = drawn(context)
        shows = np.array([[colour in shape[:2] for colour in colours] for shape in shapes])
        assert (shows.sum(axis=0) == len(colours) - 1 + num_decoys).all()  # one for each pair of it, and decoys
        assert sum(row.sum() == 2 for row in shows) == len(context.pairs)
        filled = np.array([1 if shape[2] else -1 for shape in shapes])
        votes = filled @ shows
        for pair in context.pairs:
            if pair.label:
                said.append(np.sign(votes[pair.first] + votes[pair.second]))
                truth.append(1 if pair.label % 2 else -1)
    right = np.equal(said, truth).mean() + np.equal(said, 0).mean() / 2
    limits = law.limits(config)
    # Pairs of a context share objects: as if each context were one coin.
    assert right == pytest.approx(limits["votes"], abs=4 * np.sqrt(0.25 / 1500))
    assert limits["votes"] + 0.1 < limits["images"]


def test_how_many_objects_are_filled_tells_little_of_a_pair_in_three_way_data():
    """Regression: objects that balanced the shapes of each colour gave the deciding shape away by their number."""
    table: dict[tuple[int, int], list[int]] = {}
    for context in open_data(config_of("three_way", num_eval_contexts=1500, max_entities=3, max_distractors=0)).test:
        shapes = drawn(context)
        for pair in context.pairs:
            if pair.label:
                table.setdefault((len(shapes), sum(shape[2] for shape in shapes)), [0, 0])[pair.label % 2] += 1
    best = sum(map(max, table.values())) / sum(map(sum, table.values()))
    assert best < 0.71  # 3 or 6 coins, of which one decides: 0.75 and 0.66, then noise of labels


@EVERY
def test_planted_data_are_a_function_of_their_config(mode, tmp_path):
    config = config_of(mode, num_eval_contexts=40)
    digest = open_data(config).digest
    assert open_data(dataclasses.replace(config, root=str(tmp_path / "there"))).digest == digest
    assert (tmp_path / "there" / "planted.json").is_file()
    with pytest.raises(ConfigError, match=r"holds data planted with other seed; name a new folder"):
        open_data(dataclasses.replace(config, root=str(tmp_path / "there"), seed=4))
    assert open_data(dataclasses.replace(config, seed=4)).digest != digest


@EVERY
def test_fewer_planted_contexts_are_the_first_of_more(mode):
    more, fewer = (open_data(config_of(mode, num_contexts=num, num_eval_contexts=5)).train for num in (30, 10))
    assert [(one.tokens, one.objects, one.pairs) for one in fewer] == [
        (one.tokens, one.objects, one.pairs) for one in more
    ][:10]


def test_who_comes_second_takes_what_is_there(tmp_path):
    config = dataclasses.replace(config_of("ambiguous", num_eval_contexts=5), root=str(tmp_path / "there"))
    digest = open_data(config).digest
    stamp = (tmp_path / "there" / "planted.json").stat().st_mtime_ns
    law._make(config, tmp_path / "there", law._made_from(config))  # began before the first was done
    assert open_data(config).digest == digest
    assert (tmp_path / "there" / "planted.json").stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_of_other_files_is_not_planted_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    config = RelationDataConfig(name="planted", root=str(tmp_path), planted=PlantedConfig(**SMALL))
    with pytest.raises(ConfigError, match="holds other files than planted data; name a new folder"):
        open_data(config)


@EVERY
def test_objects_and_order_do_not_tell_whether_a_pair_is_related(mode):
    data = open_data(config_of(mode))
    pairs = [(context, pair) for context in data.test for pair in context.pairs]
    related = np.array([pair.label != 0 for _, pair in pairs])
    statistics = data.test.statistics()
    behind = statistics["head_behind_tail_related"] / related.sum()
    assert behind == pytest.approx(0.5, abs=0.06)
    if mode != "names":
        counts = np.array([len(context.objects) for context, _ in pairs])
        assert counts[related].mean() == pytest.approx(counts[~related].mean(), abs=0.25)
        assert related.mean() == pytest.approx(0.5, abs=0.06)


def test_the_world_of_names_joins_names_of_one_class():
    config = config_of("names", num_eval_contexts=5)
    root = Path(law.made(config).root)
    world = io.read(root / "world.json")
    names = law._names(config.planted, config.seed)
    kind = {name.lower(): at % 4 for at, name in enumerate(names)}
    assert set(world.labels) == set(kind)
    mass = sum(
        weight
        for at, weight in enumerate(world.weights)
        if len({kind[world.labels[node]] for node in world.edge(at)}) == 1
    )
    assert mass == pytest.approx(0.9 + 0.1 / 4, abs=0.02)  # strays, but for those that happen to fit


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_entities": 1}, "wanted 2 to 7 in mode ambiguous"),
        ({"mode": "three_way", "max_entities": 5}, "wanted 2 to 4 in mode three_way"),
        ({"mode": "three_way", "hidden_frac": 0.1}, "hidden_frac=0.1 has no meaning with data.planted.mode=three_way"),
        ({"label_noise_frac": 0.5}, "label_noise_frac=0.5 is not in"),
        ({"mode": "names", "num_names": 40}, "8 seen names for each"),
        ({"image_size": 16}, "image_size=16 is below 32"),
        ({"min_distractors": 3, "max_distractors": 2}, "from 3 to 2 distractors"),
        ({"mode": "three_way", "num_decoys": 0}, "num_decoys=0: .* wanted 1 or more decoys"),
        ({"mode": "three_way", "num_decoys": 3}, "num_decoys=3: 12 objects with 3 entities"),
    ],
)
def test_what_cannot_be_planted_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        PlantedConfig(**fields)


@EVERY
def test_labels_are_numbered_by_the_file_that_is_written(mode):
    config = config_of(mode, num_eval_contexts=5)
    labels = json.loads((Path(law.made(config).root) / "rel2id.json").read_text())
    assert list(labels) == list(open_data(config).labels)
