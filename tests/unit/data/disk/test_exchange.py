"""The exchange: exactly the first distinct proposals, whoever draws them in whatever pieces."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hgscale.data.disk import exchange, shards
from hgscale.errors import ConfigError
from hgscale.hypergraph.worlds import parts
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.hypergraph.worlds.parts import ExchangedPart, bucket_of

PULLED = WorldConfig(generator="power_law", num_nodes=400, num_edges=3000, size=3, weights="dirichlet")
DRAWN = WorldConfig(generator="uniform", num_nodes=10**6, num_edges=2500, size=5)
ACROSS = WorldConfig(generator="block", num_nodes=300, num_edges=3000)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SHARD_EDGES", 700)


def by_hand(part: ExchangedPart) -> list[list[tuple[int, ...]]]:
    """The edges of each bucket: proposals one after the other, the first of each set, until there are enough."""
    firsts: dict[tuple[int, ...], int] = {}
    rows, counters = part.propose(0, 20 * part.num_edges)
    for row, counter in zip(rows.tolist(), counters.tolist(), strict=True):
        if len(firsts) < part.num_edges:
            firsts.setdefault(tuple(row), counter)
    assert len(firsts) == part.num_edges
    buckets: list[list[tuple[int, ...]]] = [[] for _ in range(part.num_buckets)]
    for edge in sorted(firsts, key=firsts.__getitem__):
        buckets[bucket_of(np.array([edge], dtype=np.int32), part.num_buckets)[0]].append(edge)
    return buckets


def exchanged_rows(plan: shards.Plan, part: int, directory: Path) -> list[list[tuple[int, ...]]]:
    chosen = [shard for shard in plan.shards if shard.part == part]
    rows = [exchange.rows_of_bucket(plan, part, shard.place, shard.num_edges, directory) for shard in chosen]
    return [[tuple(row) for row in bucket.tolist()] for bucket in rows]


@pytest.mark.parametrize("config", [PULLED, DRAWN, ACROSS], ids=["pulled", "drawn", "across"])
@pytest.mark.parametrize("chunk", [97, 700, 10_000])
def test_the_edges_are_the_first_distinct_proposals_whatever_the_chunks(config, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "_chunk", lambda law: chunk)
    plan = exchange.exchange(shards.plan(config), tmp_path)
    assert plan.exchanged
    for part in plan.exchanged:
        assert exchanged_rows(plan, part, tmp_path) == by_hand(plan.parts[part])


def test_shards_of_exchanged_and_addressed_parts_number_the_edges_without_gaps(tmp_path):
    plan = exchange.exchange(shards.plan(ACROSS), tmp_path)
    ends = [shard.start + shard.num_edges for shard in plan.shards]
    assert [shard.start for shard in plan.shards] == [0, *ends[:-1]]
    assert ends[-1] == plan.num_edges == 3000


def test_a_plan_without_exchanged_parts_is_settled_already(tmp_path):
    plan = shards.plan(WorldConfig(generator="star", num_nodes=1000))
    assert plan.exchanged == ()
    assert exchange.exchange(plan, tmp_path) == plan


@pytest.mark.parametrize("killed_in", ["chunks", "merge", "drop"])
def test_a_killed_exchange_goes_on_with_what_it_left(killed_in, tmp_path):
    whole = exchange.exchange(shards.plan(PULLED), tmp_path / "whole")
    plan, out = shards.plan(PULLED), tmp_path / "killed"
    chunks = exchange.next_chunks(plan, 0, out)
    for chunk in chunks[: 1 if killed_in == "chunks" else None]:
        exchange.propose_chunk(plan, 0, chunk, out)
    if killed_in != "chunks":
        for bucket in range(2 if killed_in == "merge" else plan.parts[0].num_buckets):
            exchange.merge_bucket(plan, 0, bucket, chunks.stop, out)
            exchange.merge_bucket(plan, 0, bucket, chunks.stop, out)  # a retry changes nothing
    again = exchange.exchange(plan, out)
    assert again.shards == whole.shards
    assert exchanged_rows(again, 0, out) == exchanged_rows(whole, 0, tmp_path / "whole")


def test_what_another_world_left_is_not_taken(tmp_path):
    other = dataclasses.replace(PULLED, seed=1)
    exchange.exchange(shards.plan(other), tmp_path)
    plan = exchange.exchange(shards.plan(PULLED), tmp_path)
    assert exchanged_rows(plan, 0, tmp_path) == by_hand(plan.parts[0])


def test_a_part_too_dense_to_draw_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parts.ExchangedPart, "max_proposals", property(lambda part: part.num_edges // 2))
    with pytest.raises(ConfigError, match=r"world\.num_edges=3000 is too dense to draw: 1500 draws gave \d+ distinct"):
        exchange.exchange(shards.plan(PULLED), tmp_path)


def test_an_exchange_leaves_nothing_in_a_finished_directory(tmp_path):
    shards.write(PULLED, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "edges", "manifest.json", "table"]
