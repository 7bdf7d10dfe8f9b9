"""The leak audit: it finds what is known to leak, and nothing where nothing does."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from hgscale.errors import DataError
from hgscale.finetune.data.audit import Audit, audit, gate
from hgscale.finetune.data.config import PlantedConfig, RelationDataConfig
from hgscale.finetune.data.open import open_data


def write_crop_lists(mnre: str, folder: Path, law: str) -> Path:
    """Crop lists keyed by instance, as they are shipped. ``published``: 2 crops for None and part_of, else 3 or 4."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        lists = {}
        for at, line in enumerate(Path(mnre, f"mnre_{split}.txt").read_text().split("\n")):
            if not line:
                continue
            instance = ast.literal_eval(line)
            few = instance["relation"] in ("None", "/misc/misc/part_of")
            num = {"published": 2 if few else draw.integers(3, 5), "uniform": draw.integers(2, 5)}[law]
            lists[at] = [f"{instance['img_id']}_{at}_{number}.jpg" for number in range(num)]
        (folder / f"mre_{split}_dict.json").write_text(json.dumps(lists))
    return folder


@pytest.fixture(scope="module")
def published(mnre, tmp_path_factory) -> RelationDataConfig:
    folder = write_crop_lists(mnre, tmp_path_factory.mktemp("crops") / "txt", "published")
    return RelationDataConfig(root=mnre, boxes=str(folder), pair_order="file")


def row_of(found: Audit, feature: str):
    return next(row for row in found.rows if row.feature == feature)


def test_the_published_crop_lists_and_the_order_of_mnre_are_found_to_leak(published):
    found = audit(open_data(published), words=False)
    assert {"third present", "number of the pair's crops", "head behind tail"} <= set(found.leaks)
    third, order = row_of(found, "third present"), row_of(found, "head behind tail")
    part_of = [pair.label == 21 for context in open_data(published).test for pair in context.pairs]
    assert third.balanced_accuracy == pytest.approx(1 - sum(part_of) / 640 / 2)  # the related pairs without a third
    # By hand, from the published counts: 211 of 640 related behind, 971 of 974 None not.
    assert order.balanced_accuracy == pytest.approx((211 / 640 + 971 / 974) / 2)
    assert order.low < order.balanced_accuracy < order.high


@pytest.mark.slow
def test_the_third_crop_lifts_a_bag_of_words_by_what_was_published(published):
    data = open_data(published)
    found = audit(data, num_resamples=200)
    third = row_of(found, "third present")
    # Another bag of words is published as 46.5, and 65.0 with the crop.
    assert found.f1_words == pytest.approx(0.465, abs=0.02)
    assert third.f1_with_words == pytest.approx(0.650, abs=0.03)
    assert 0.15 < third.gain_low < third.gain < third.gain_high
    assert "LEAK" in found.text()
    assert json.loads(json.dumps(found.to_dict()))["leaks"] == list(found.leaks)


def test_the_gate_names_only_inputs_that_the_config_uses(mnre, published):
    data = open_data(published)
    assert {row.input for row in gate(data, published).rows} == {"pair_order", "boxes"}
    assert "data.pair_order and data.boxes: the label is given away by head behind" in gate(data, published).complaint()
    plain = RelationDataConfig(root=mnre)
    assert gate(open_data(plain), plain).complaint() is None
    heads_first = RelationDataConfig(root=mnre, pair_order="file")
    assert gate(open_data(heads_first), heads_first).leaks == ("head behind tail",)


def test_crop_lists_that_are_drawn_without_the_label_are_no_leak(mnre, tmp_path):
    config = RelationDataConfig(root=mnre, boxes=str(write_crop_lists(mnre, tmp_path / "txt", "uniform")))
    data = open_data(config)
    assert gate(data, config).leaks == ()
    assert {"first present", "second present"}.isdisjoint(row.feature for row in gate(data, config).rows)
    found = audit(data, words=False)
    assert found.leaks == ("head behind tail",)
    assert found.complaint() is None  # pairs come in the order of the text
    assert "LEAK, not used" in found.text()
    for row in found.rows:
        if row.input == "boxes":
            assert abs(row.balanced_accuracy - 0.5) < 0.1


def test_words_tell_what_types_tell_and_objects_add_nothing_without_pixels():
    planted = PlantedConfig(num_contexts=400, num_eval_contexts=300)
    data = open_data(RelationDataConfig(name="planted", planted=planted, max_objects=4))
    found = audit(data, num_resamples=200)
    # The types are in the words: related pairs are known, and which of two relations it is is a coin.
    assert found.f1_words == pytest.approx(0.5, abs=0.08)
    counts = row_of(found, "number of objects")
    assert counts.f1_with_words - found.f1_words == pytest.approx(counts.gain)
    assert counts.gain_low < 0 < counts.gain_high
    assert f"F1 {100 * found.f1_words:.1f} on test" in found.text()


@pytest.mark.parametrize("mode", ["ambiguous", "three_way"])
def test_planted_objects_are_no_leak(mode):
    planted = PlantedConfig(mode=mode, num_contexts=150, num_eval_contexts=150)
    config = RelationDataConfig(name="planted", planted=planted)
    found = gate(open_data(config), config)
    assert found.leaks == ()
    assert any(row.kind == "content" for row in found.rows)
    assert found.complaint() is None


def test_training_pairs_without_a_relation_cannot_be_audited(tmp_path):
    line = {"token": ["a", "b"], "h": {"name": "a", "pos": [0, 1]}, "t": {"name": "b", "pos": [1, 2]}}
    for split in ("train", "val", "test"):
        (tmp_path / f"mnre_{split}.txt").write_text(f"{line | {'img_id': 'x.jpg', 'relation': 'None'}}\n")
    with pytest.raises(DataError, match="are all related or all None"):
        audit(open_data(RelationDataConfig(root=str(tmp_path))), words=False)
