"""MNRE as contexts: the published counts, numbering and order of nodes, and what is refused."""

import dataclasses
import json
import shutil

import pytest

from hgscale import config as configs
from hgscale.errors import ConfigError, DataError
from hgscale.finetune.data.config import RelationDataConfig
from hgscale.finetune.data.contexts import Entity, Pair, features, head_and_tail
from hgscale.finetune.data.mnre import LABELS
from hgscale.finetune.data.names import write_world
from hgscale.finetune.data.open import open_data
from hgscale.hypergraph import io
from tests.unit.finetune.data.material import (
    ANN,
    BOB,
    COUPLE,
    LIVES,
    NEW_YORK,
    TOKENS,
    YORK,
    instance,
    opened,
    picture,
    write,
)

# Counted in the files by a script that shares no code with the reader.
PUBLISHED = {
    "train": (12247, 7356, 0.632, 0.547, 1375, 22, 7),
    "val": (1624, 931, 0.616, 0.584, 196, 1, 6),
    "test": (1614, 914, 0.603, 0.591, 211, 3, 7),
}


def test_mnre_has_the_published_counts(mnre):
    data = open_data(RelationDataConfig(root=mnre))
    for split, (instances, contexts, none, shared, related, unrelated, entities) in PUBLISHED.items():
        found = data.statistics()[split]
        assert (found["instances"], found["contexts"], found["max_entities"]) == (instances, contexts, entities)
        assert (found["head_behind_tail_related"], found["head_behind_tail_none"]) == (related, unrelated)
        assert found["none_frac"] == pytest.approx(none, abs=5e-4)
        assert found["shared_frac"] == pytest.approx(shared, abs=5e-4)
    assert data.labels == LABELS
    assert len(LABELS) == 23
    assert data.train.dataset.features == features(LABELS)
    assert data.train.num_pairs == 12247


def test_a_context_holds_all_pairs_of_its_text_and_image_and_numbers_nodes_by_the_text(tmp_path):
    lines = [instance(NEW_YORK, ANN, LIVES), instance(), instance(BOB, NEW_YORK, "None"), instance(img_id="b.png")]
    first, second = opened(write(tmp_path / "d", lines)).train
    assert (first.id, second.id) == ("train:1", "train:4")
    assert first.tokens == tuple(TOKENS)
    assert first.entities == (Entity("Ann Lee", 0, 2), Entity("Bob", 3, 4), Entity("New York", 5, 7))
    assert first.pairs == (
        Pair(0, 2, LABELS.index(LIVES), flipped=True),
        Pair(0, 1, LABELS.index(COUPLE), flipped=False),
        Pair(1, 2, 0, flipped=False),
    )
    assert len(second.pairs) == 1


def test_pairs_in_the_order_of_the_file_have_heads_first(tmp_path):
    folder = write(tmp_path / "d", [instance(NEW_YORK, ANN, LIVES)])
    (by_text,), (by_file,) = (opened(folder, pair_order=order).train[0].pairs for order in ("text", "file"))
    assert (by_text.first, by_text.second, by_text.flipped) == (0, 1, True)
    assert (by_file.first, by_file.second, by_file.flipped) == (1, 0, False)
    assert head_and_tail(by_text) == head_and_tail(by_file) == (1, 0)


def test_overlapping_mentions_are_nodes_of_their_own(tmp_path):
    (context,) = opened(write(tmp_path / "d", [instance(NEW_YORK, YORK, "/loc/loc/contain")])).train
    assert [entity.name for entity in context.entities] == ["New York", "York"]


def test_json_lines_other_names_and_odd_line_ends_in_tokens_are_read(tmp_path):
    odd = {"token": ["a\u2028b", "c"], "h": {"name": "a\u2028b", "pos": [0, 1]}, "t": {"name": "c", "pos": [1, 2]}}
    line = json.dumps(instance(**odd), ensure_ascii=False)
    data = opened(write(tmp_path / "d", [line, ""], name="ours"))
    assert data.train[0].tokens == ("a\u2028b", "c")
    (tmp_path / "e").mkdir()
    shutil.move(write(tmp_path / "d", [line], name="ours"), tmp_path / "e" / "txt")
    assert opened(tmp_path / "e").digest == data.digest


def test_a_pair_said_twice_alike_is_one_pair(tmp_path):
    assert opened(write(tmp_path / "d", [instance(), instance(), instance(BOB, ANN)])).train.num_pairs == 1


REFUSED = {
    "span off by one": (
        instance({"name": "Ann Lee", "pos": [1, 3]}),
        r"train.txt:2: h.name is 'Ann Lee', but tokens \[1, 3\) are 'Lee met'; .* it stands at \[0, 2\)",
    ),
    "end included": (
        instance(tail={"name": "Bob", "pos": [3, 3]}),
        r"train.txt:2: t.pos is \[3, 3\) of 7 tokens; wanted",
    ),
    "out of range": (instance({"name": "York", "pos": [6, 8]}), r"h.pos is \[6, 8\) of 7 tokens; .*stands at \[6, 7\)"),
    "nowhere": (instance({"name": "Eve", "pos": [0, 1]}), "it stands nowhere in the text"),
    "no position": (instance({"name": "Bob"}), r"train.txt:2: h is \{'name': 'Bob'\}; wanted a name and pos"),
    "unknown label": (
        instance(BOB, YORK, "/per/per/foes"),
        "train.txt:2: relation is '/per/per/foes'; wanted one of the 23",
    ),
    "two labels": (instance(BOB, ANN, "None"), "train.txt:2: its pair is 'None' here and '/per/per/couple' in line 1"),
    "one mention twice": (instance(BOB, BOB), r"train.txt:2: head and tail are both at \(3, 4\)"),
    "cut off": (repr(instance())[:60], r"train.txt:2: is .*; wanted a dict literal with token, h, t, img_id, relation"),
    "no dict": ("[1, 2]", "train.txt:2: is '\\[1, 2\\]'"),
    "a call": ("__import__('os').getcwd()", "train.txt:2: is "),
    "no image": ({key: value for key, value in instance().items() if key != "img_id"}, "train.txt:2: has no img_id"),
    "no tokens": (instance(token=[]), r"train.txt:2: token is \[\]; wanted a list of words"),
    "image no name": (instance(img_id=7), "train.txt:2: img_id is 7; wanted a name"),
}


@pytest.mark.parametrize(("line", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_line_is_refused_by_its_number(line, message, tmp_path):
    with pytest.raises(DataError, match=message) as error:
        opened(write(tmp_path / "d", [instance(), line], [instance()], [instance()]))
    assert "\n" not in str(error.value)


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"mnre_val.txt: holds no instance"):
        opened(write(tmp_path / "d", [instance()], val=[]))


def test_a_missing_file_is_refused_with_the_names_it_may_have(tmp_path):
    folder = write(tmp_path / "d", [instance()])
    (folder / "mnre_test.txt").unlink()
    with pytest.raises(DataError, match=r"holds no mnre_test.txt or ours_test.txt .*; set data.root to the folder"):
        opened(folder)
    with pytest.raises(DataError, match=r"nowhere: is no folder; set data.root"):
        opened(tmp_path / "nowhere")


def test_a_label_that_training_lacks_is_refused(tmp_path):
    folder = write(tmp_path / "d", [instance()], test=[instance(), instance(BOB, YORK, LIVES)])
    with pytest.raises(
        DataError, match=r"mnre_test.txt:2: relation '/per/loc/place_of_residence' is in test and not in"
    ):
        opened(folder)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    folder = write(tmp_path / "d", [instance()])
    (folder / "mnre_val.txt").write_bytes(b"{'token': ['\xff']}")
    with pytest.raises(DataError, match=r"mnre_val.txt: byte 12 is not UTF-8"):
        opened(folder)


def test_fewer_training_contexts_are_a_part_of_more_and_other_seeds_take_others(tmp_path):
    folder = write(tmp_path / "d", [instance(img_id=f"{at}.png") for at in range(60)])

    def ids(num: int, seed: int = 0) -> list[str]:
        return [one.id for one in opened(folder, num_contexts=num, seed=seed).train]

    few, some = ids(10), ids(30)
    assert (len(few), len(some)) == (10, 30)
    assert set(few) < set(some)
    assert set(ids(10, seed=1)) != set(few) != {f"train:{at}" for at in range(1, 11)}
    assert ids(60) == [f"train:{at}" for at in range(1, 61)]
    assert len(opened(folder, num_contexts=10).test) == 60
    with pytest.raises(ConfigError, match=r"data.num_contexts=61: there are 60 training contexts"):
        ids(61)


def test_what_changes_the_data_changes_the_digest_and_where_they_are_does_not(tmp_path):
    picture(tmp_path / "images" / "a.png")
    one = write(tmp_path / "one", [instance()])
    two = write(tmp_path / "two", [instance()])
    before = opened(one).digest
    assert before == opened(two).digest
    with_image = opened(one, images=str(tmp_path / "images")).digest
    moved = shutil.copytree(tmp_path / "images", tmp_path / "moved" / "images")
    assert opened(one, images=str(moved)).digest == with_image != before
    picture(moved / "a.png", (41, 30))
    assert opened(two, images=str(moved)).digest != with_image
    write(two, [instance(relation="None")])
    assert opened(two).digest != before  # the same config: changed files are read again


def test_the_world_of_co_mentions_joins_names_of_a_context(tmp_path):
    def said(*names: str) -> list[dict]:
        mentions = [{"name": name, "pos": [at, at + 1]} for at, name in enumerate(names)]
        pairs = [(a, b) for at, a in enumerate(mentions) for b in mentions[at + 1 :]]
        return [instance(a, b, token=list(names), img_id="-".join(names)) for a, b in pairs]

    lines = [*said("Ann", "Bob"), *said("bob", "ANN"), *said("Ann", "Bob", "Eve"), *said("Ann", "ann")]
    world = write_world(opened(write(tmp_path / "d", lines)), tmp_path / "world.json")
    assert io.read(tmp_path / "world.json").digest == world.digest
    assert world.labels == ("ann", "bob", "eve")
    assert [(world.edge(at), weight) for at, weight in enumerate(world.weights.tolist())] == [
        ((0, 1), pytest.approx(2 / 3)),
        ((0, 1, 2), pytest.approx(1 / 3)),
    ]


def test_a_config_that_no_data_could_meet_is_refused():
    for fields, message in [
        ({"name": "more", "root": "x", "boxes": "y"}, "more has its own"),
        ({"name": "planted", "images": "x"}, "are made with data.name=planted"),
        ({"root": "x", "num_contexts": 0}, "data.num_contexts=0 is below 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            RelationDataConfig(**fields)
    with pytest.raises(ConfigError, match=r"data.root is not given; name the folder of the files of mnre"):
        open_data(RelationDataConfig())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A verb that reads relation data."""

    data: RelationDataConfig = dataclasses.field(default_factory=RelationDataConfig)
    """The data."""


def test_the_config_is_a_section_of_a_verb(tmp_path):
    (tmp_path / "job.yaml").write_text("data: {name: planted, planted: {mode: three_way, max_entities: 4}}\n")
    job = configs.parse(Job, [f"--config={tmp_path / 'job.yaml'}", "--data.planted.label_noise_frac=0.1"])
    assert job.data.planted.mode == "three_way"
    assert (job.data.planted.max_entities, job.data.planted.label_noise_frac) == (4, 0.1)
