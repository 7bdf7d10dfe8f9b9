"""What a pre-training refuses, and what decides its fingerprint."""

from pathlib import Path
from typing import Any

import pytest

from hgscale.config import with_fields
from hgscale.errors import ConfigError
from hgscale.pretrain.task import PretrainTask

SPARSE = {"world.generator": "uniform", "world.num_nodes": 30, "world.num_edges": 9}


def task(**fields: Any) -> PretrainTask:
    return with_fields(PretrainTask(), {name.replace("__", "."): value for name, value in fields.items()})


def test_one_mask_on_a_world_it_cannot_identify_is_refused_unless_that_is_the_question() -> None:
    config = with_fields(task(objective__masking="one_mask"), SPARSE)
    with pytest.raises(ConfigError, match="one_mask cannot recover this world"):
        config.check(1)
    asked = with_fields(config, {"readout.method": "least_squares", "readout.allow_unidentified": True})
    asked.check(1)
    with pytest.raises(ConfigError, match=r"allow_unidentified=True has no meaning with readout.method=chain"):
        with_fields(config, {"readout.method": "chain", "readout.allow_unidentified": True})


def test_a_read_out_that_one_mask_or_the_world_does_not_allow_is_refused_before_the_training() -> None:
    pairs = task(objective__masking="one_mask", world__generator="gnm", world__num_nodes=9, world__num_edges=20)
    pairs.check(1)
    with_fields(pairs, {"readout.min_count": 0.1}).check(1)
    with pytest.raises(ConfigError, match=r"sampled_edges=9 has no meaning with readout.method=auto"):
        with_fields(pairs, {"readout.sampled_edges": 9}).check(1)
    triples = with_fields(
        task(objective__masking="one_mask", world__generator="uniform", readout__min_count=0.1),
        {"world.num_nodes": 6, "world.num_edges": 20},
    )
    with pytest.raises(ConfigError, match=r"min_count=0\.1 has no meaning with readout.method=auto \(least_squares"):
        triples.check(1)
    implicit = with_fields(
        triples, {"world.load": "implicit", "world.weights": "uniform", "objective.masking": "random_subset"}
    )
    with pytest.raises(ConfigError, match=r"min_count=0\.1 compares every edge"):
        implicit.check(1)


@pytest.mark.parametrize("method", ["stationary", "bfs"])
def test_a_read_out_of_pairs_is_refused_on_mixed_sizes_before_the_training(method: str) -> None:
    mixed = task(world__generator="uniform", world__num_nodes=8, world__num_edges=20, world__sizes={2: 0.5, 3: 0.5})
    mixed.check_task()
    with pytest.raises(ConfigError, match=f"method {method} reads pairs; this world has sizes 2, 3"):
        with_fields(mixed, {"readout.method": method}).check_task()


def test_masks_that_are_kept_are_refused_where_no_sample_is_seen_twice() -> None:
    fresh = task(objective__redraw=False)
    with pytest.raises(ConfigError, match=r"objective\.redraw=False has no meaning with samples\.num_samples=null"):
        fresh.check_task()
    with_fields(fresh, {"samples.num_samples": 10_000}).check_task()


def test_runs_that_follow_one_another_share_their_world_until_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("u,v,weight\n0,1,1\n1,2,2\n")
    first, second = task(world__path=str(path)), task(world__path=str(path), train__num_steps=7)
    assert first.target_world is second.target_world
    path.write_text("u,v,weight\n0,1,1\n1,2,30\n")
    assert task(world__path=str(path)).target_world.digest != first.target_world.digest


def test_where_a_file_lies_does_not_decide_a_fingerprint(tmp_path: Path) -> None:
    for name, last in (("a.csv", 2), ("b.csv", 2), ("c.csv", 3)):
        (tmp_path / name).write_text(f"u,v,weight\n0,1,1\n1,2,{last}\n")
    a, b, c = (task(world__path=str(tmp_path / name)).fingerprint() for name in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c


def test_the_held_out_part_decides_the_fingerprint_of_the_first(shared_data: Path) -> None:
    folder = str(shared_data / "benson/email-Enron")
    parts = [task(world__path=folder, world__take="first", world__split_frac=share) for share in (0.1, 0.2)]
    assert all(part.held_out is not None for part in parts)
    assert parts[0].fingerprint() != parts[1].fingerprint()
    assert task(world__path=folder).held_out is None


def test_how_often_a_run_is_looked_at_is_not_in_its_fingerprint() -> None:
    looks = {"train__log_every": 7, "train__eval_every": 3, "train__checkpoint_every": 9}
    assert task(**looks).fingerprint() == task().fingerprint() != task(train__seed=1).fingerprint()
