"""Shards: the same bytes from anybody, the same world as in memory, and nothing wrong that is not named."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hgscale.data.disk import shards
from hgscale.data.disk.columns import read_world, write_samples
from hgscale.data.disk.mapped import open_shards
from hgscale.errors import ConfigError, DataError, RunError
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph
from hgscale.hypergraph.worlds import memory as generators
from hgscale.hypergraph.worlds import parts
from hgscale.hypergraph.worlds.config import WorldConfig, build_world

MIXED = WorldConfig(generator="uniform", num_nodes=60, num_edges=2500, sizes={2: 0.3, 3: 0.4, 4: 0.3}, weights="zipf")
PULLED = WorldConfig(generator="power_law", num_nodes=400, num_edges=3000, size=3, weights="dirichlet")

FAMILIES = {
    "uniform, several sizes": MIXED,
    "uniform, no ranks": WorldConfig(generator="uniform", num_nodes=10**6, num_edges=2100, size=5, weights="dirichlet"),
    "uniform, one of no ranks": WorldConfig(
        generator="uniform", num_nodes=10**6, num_edges=2100, sizes={2: 0.4, 5: 0.3, 3: 0.3}, weights="two_level"
    ),
    "gnm": WorldConfig(generator="gnm", num_nodes=90),
    "gnm dirichlet": WorldConfig(generator="gnm", num_nodes=90, weights="dirichlet", dirichlet_alpha=0.3),
    "star": WorldConfig(generator="star", num_nodes=1500),
    "chain": WorldConfig(generator="chain", num_nodes=1500, weights="uniform"),
    "cross": WorldConfig(generator="cross", num_nodes=1500, weights="zipf"),
    "power_law": PULLED,
    "power_law, listed": WorldConfig(generator="power_law", num_nodes=40, num_edges=3000, size=3),
    "block": WorldConfig(generator="block", num_nodes=90, num_edges=3000, within_ratio=2.0),
    "block, all sets": WorldConfig(generator="block", num_nodes=20, size=3),
    "block, random": WorldConfig(generator="block", num_nodes=300, num_edges=3000, block_law="random", kappa=9.0),
}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> int:
    """A thousand edges to a shard, so that small worlds have several."""
    monkeypatch.setattr(parts, "SHARD_EDGES", 1000)
    monkeypatch.setattr(generators, "SHARD_EDGES", 1000)
    return 1000


def labelled(folder: Path) -> WorldConfig:
    """A world from a file with labels: 4 edges of 2 and 3 nodes."""
    edges, names = [(0, 1), (1, 2), (0, 1, 3), (2, 3)], ["ant", "bee", "cé", "dog"]
    io.write(Hypergraph.from_edges(edges, [1.0, 2.0, 3.0, 4.0], labels=names), folder / "world.json")
    return WorldConfig(path=str(folder / "world.json"))


def hashes(directory: Path) -> dict[str, str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shards_of_every_family_hold_the_world_that_is_built_in_memory(family, tmp_path, small_shards):
    manifest = shards.write(FAMILIES[family], tmp_path, table=False)
    world = build_world(FAMILIES[family])
    assert read_world(tmp_path).digest == world.digest
    assert manifest.num_edges == world.num_edges
    assert len(manifest.shards) >= world.num_edges // small_shards  # one for every thousand edges, and what is left
    law = world.size_law()
    for size, entry in manifest.sizes.items():
        assert entry["num_edges"] == (world.sizes == int(size)).sum()
        assert entry["mass"] == pytest.approx(law[int(size)], rel=1e-12)  # sums of 3,000 terms: 3,000 x 2^-53


@pytest.mark.slow
def test_a_shard_of_the_full_size_holds_a_part_of_the_world_in_memory(tmp_path):
    config = WorldConfig(generator="uniform", num_nodes=2000, num_edges=2**20 + 5, size=3, weights="dirichlet")
    manifest = shards.write(config, tmp_path)
    assert [shard.num_edges for shard in manifest.shards] == [2**20, 5]
    assert read_world(tmp_path).digest == build_world(config).digest


def test_a_shard_holds_what_its_entry_says(tmp_path, small_shards):
    manifest = shards.write(MIXED, tmp_path)
    for entry in manifest.shards:
        content = pq.read_table(tmp_path / entry.file)
        weights, nodes = content["weight"].to_numpy(), content["nodes"].to_pylist()
        assert (len(nodes), {len(row) for row in nodes}) == (entry.num_edges, {entry.size})
        assert all(row == sorted(set(row)) for row in nodes)
        assert (weights.min(), weights.max()) == (entry.min_weight, entry.max_weight)
        assert entry.mass == pytest.approx(weights.sum(), rel=1e-12)
        table = np.load(tmp_path / entry.table.file)
        assert table["nodes"].tolist() == nodes
        assert (table["weight"] == weights).all()
    assert sum(entry.mass for entry in manifest.shards) == pytest.approx(1, rel=1e-12)


def test_another_process_writes_the_same_bytes_in_another_order(tmp_path, small_shards):
    names = ["addressed", "exchanged"]
    for name, config in zip(names, [MIXED, PULLED], strict=True):
        shards.write(config, tmp_path / "here" / name)
    steps = f"""
from pathlib import Path
from hgscale.data.disk import exchange
from hgscale.data.disk import shards
from hgscale.hypergraph.worlds import parts
from hgscale.hypergraph.worlds.config import WorldConfig
parts.SHARD_EDGES = {small_shards}
for name, config in zip({names!r}, [{MIXED!r}, {PULLED!r}]):
    directory = Path({str(tmp_path / "there")!r}) / name
    plan = exchange.exchange(shards.plan(config), directory)
    numbers = range(len(plan.shards))
    total = shards.total_of(plan, [shards.shard_mass(plan, number, directory) for number in numbers])
    for number in [*reversed(numbers), 1]:  # and one of them twice
        shards.write_shard(plan, number, total, directory)
    shards.finish(plan, total, directory)
"""
    subprocess.run([sys.executable, "-c", steps], check=True)
    assert hashes(tmp_path / "here") == hashes(tmp_path / "there")


def test_another_seed_makes_another_world(tmp_path):
    one = shards.write(MIXED, tmp_path / "one")
    other = shards.write(WorldConfig(**{**vars(MIXED), "seed": 1}), tmp_path / "other")
    assert one.digest != other.digest
    assert one.identity != other.identity


def test_how_a_world_is_opened_changes_no_byte(tmp_path):
    shards.write(MIXED, tmp_path / "one")
    shards.write(WorldConfig(**{**vars(MIXED), "load": "memory"}), tmp_path / "other")
    assert hashes(tmp_path / "one") == hashes(tmp_path / "other")


def test_a_world_from_a_file_comes_back_with_its_labels(tmp_path):
    config = labelled(tmp_path)
    manifest = shards.write(config, tmp_path / "out")
    world, again = build_world(config), read_world(tmp_path / "out")
    assert (again.digest, again.labels) == (world.digest, world.labels)
    assert (manifest.total, [shard.size for shard in manifest.shards]) == (1.0, [2, 3])
    shards.verify(tmp_path / "out")


@pytest.mark.parametrize(("path", "format"), [("benson/NDC-classes", "simplices"), ("nary/JF17K-3/train.txt", "facts")])
def test_real_data_come_back_out_of_their_shards(path, format, shared_data, tmp_path):
    config = WorldConfig(path=str(shared_data / path), format=format)
    shards.write(config, tmp_path)
    world, again = build_world(config), read_world(tmp_path)
    assert (again.digest, again.labels) == (world.digest, world.labels)


def test_a_killed_run_goes_on_where_it_was(tmp_path, small_shards):
    shards.write(MIXED, tmp_path / "whole")
    plan, out = shards.plan(MIXED), tmp_path / "killed"
    total = shards.total_of(plan, [shards.shard_mass(plan, number) for number in range(len(plan.shards))])
    for number in (0, 2):
        shards.write_shard(plan, number, total, out)
    (out / "edges" / ".00001.parquet.123.part").write_bytes(b"half")
    (out / "edges" / "00001.parquet").write_bytes(b"half")
    with (out / "edges" / "00002.parquet").open("ab") as file:
        file.write(b"more")
    assert list(shards.written(plan, out)) == [0]
    with pytest.raises(DataError, match=r"edges/00001\.parquet, edges/00002\.parquet.* not written"):
        shards.finish(plan, total, out)
    shards.write(MIXED, out)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_a_finished_directory_is_left_as_it_is_and_a_lost_shard_is_made_again(tmp_path, small_shards):
    shards.write(MIXED, tmp_path)
    before, stamp = hashes(tmp_path), (tmp_path / "edges/00000.parquet").stat().st_mtime_ns
    (tmp_path / "table/00001.npy").unlink()
    shards.write(MIXED, tmp_path)
    assert hashes(tmp_path) == before
    assert (tmp_path / "edges/00000.parquet").stat().st_mtime_ns == stamp


def test_tables_can_be_left_out_and_made_later(tmp_path, small_shards):
    shards.write(MIXED, tmp_path, table=False)
    assert not (tmp_path / "table").exists()
    assert read_world(tmp_path).num_edges == 2500
    with pytest.raises(DataError, match="has no tables to draw from"):
        open_shards(tmp_path)
    shards.write(MIXED, tmp_path, table=True)
    shards.verify(tmp_path)
    assert open_shards(tmp_path).num_edges == 2500
    shards.write(MIXED, tmp_path, table=False)
    shards.verify(tmp_path)  # no table is left that the manifest does not name


@pytest.fixture
def every_kind_of_file(tmp_path: Path) -> Path:
    """A finished directory with labels and samples."""
    out, config = tmp_path / "out", labelled(tmp_path)
    shards.write(config, out)
    samples = tuple(write_samples(open_shards(out), 7, number, 50 * number, 50 * number + 50, out) for number in (0, 1))
    shards.finish(shards.plan(config), 1.0, out, samples_seed=7, samples=samples)
    shards.verify(out)
    return out


@pytest.mark.parametrize(
    "name", ["edges/00001.parquet", "table/00000.npy", "samples/00001.parquet", "labels.json", "README.md"]
)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_flipped_byte_is_found_and_named(name, place, every_kind_of_file):
    path = every_kind_of_file / name
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
        shards.verify(every_kind_of_file)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_deep_in_a_large_shard_is_found(tmp_path):
    shards.write(WorldConfig(generator="uniform", num_nodes=1000, num_edges=20000, weights="zipf"), tmp_path)
    path = tmp_path / "edges/00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 128
    path.write_bytes(data)
    open_shards(tmp_path)  # which looks at the ends only
    with pytest.raises(DataError, match=r"edges/00000\.parquet: sha256 is"):
        shards.verify(tmp_path)


def test_every_flipped_byte_of_a_manifest_is_found(every_kind_of_file):
    path = every_kind_of_file / "manifest.json"
    text = path.read_bytes()
    for place in range(0, len(text), 7):
        path.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        with pytest.raises(DataError, match=r"manifest\.json"):
            shards.verify(every_kind_of_file)


@pytest.mark.parametrize("name", ["edges/00001.parquet", "table/00001.npy"])
def test_a_missing_shard_is_named(name, tmp_path, small_shards):
    shards.write(MIXED, tmp_path)
    (tmp_path / name).unlink()
    for check in (shards.verify, open_shards):
        with pytest.raises(DataError, match=f"{name} is missing; run `hgscale generate` again"):
            check(tmp_path)


@pytest.mark.parametrize("name", ["edges/00001.parquet", "table/00001.npy"])
def test_a_shard_of_another_world_under_the_right_name_is_named(name, tmp_path, small_shards):
    shards.write(MIXED, tmp_path / "one")
    shards.write(WorldConfig(**{**vars(MIXED), "seed": 1}), tmp_path / "other")
    assert (tmp_path / "one" / name).stat().st_size == (tmp_path / "other" / name).stat().st_size
    shutil.copy(tmp_path / "other" / name, tmp_path / "one" / name)
    for check in (shards.verify, open_shards):
        with pytest.raises(DataError, match=f"{name} is not the file that the manifest names; delete it and run"):
            check(tmp_path / "one")


def test_a_shard_too_many_is_named(tmp_path, small_shards):
    shards.write(MIXED, tmp_path)
    shutil.copy(tmp_path / "edges/00000.parquet", tmp_path / "edges/00099.parquet")
    with pytest.raises(DataError, match=r"edges/00099\.parquet is not in the manifest"):
        shards.verify(tmp_path)


def test_a_directory_of_another_world_is_not_written_into(tmp_path, small_shards):
    other = WorldConfig(**{**vars(MIXED), "seed": 1})
    shards.write(MIXED, tmp_path / "finished")
    with pytest.raises(DataError, match=r"manifest\.json: is of another world \(world\.seed is 0 there, 1 is asked"):
        shards.write(other, tmp_path / "finished")
    plan = shards.plan(MIXED)
    shards.write_shard(plan, 0, 1.0, tmp_path / "begun")
    with pytest.raises(DataError, match=r"edges/00000\.json: is of another world"):
        shards.write(other, tmp_path / "begun")


def test_the_manifest_of_another_world_names_what_does_not_fit(tmp_path, small_shards):
    shards.write(MIXED, tmp_path / "one")
    shards.write(WorldConfig(**{**vars(MIXED), "seed": 1}), tmp_path / "other")
    shutil.copy(tmp_path / "other/manifest.json", tmp_path / "one/manifest.json")
    with pytest.raises(DataError, match=r"edges/00000\.parquet is not the file that the manifest names"):
        open_shards(tmp_path / "one")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no manifest"),
        ("[]", "is no manifest"),
        ('{"format": "hgscale-shards/9", "sha256": ""}', "this version reads"),
    ],
)
def test_what_is_no_manifest_is_refused(text, complaint, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=complaint):
        open_shards(tmp_path)


def test_a_directory_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json: is missing"):
        open_shards(tmp_path)


def test_shards_are_not_cut_again(tmp_path):
    shards.write(MIXED, tmp_path)
    with pytest.raises(ConfigError, match="holds shards already"):
        shards.plan(WorldConfig(path=str(tmp_path)))


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left on device\); make room, and run `hgscale generate` again"):
        shards.write(MIXED, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_weights_too_uneven_for_a_float_are_refused(tmp_path):
    config = WorldConfig(generator="star", num_nodes=100, weights="zipf", zipf_exponent=200.0)
    with pytest.raises(ConfigError, match=r"world\.zipf_exponent=200"):
        shards.write(config, tmp_path)


def test_a_plan_knows_the_disk_that_its_world_will_take(tmp_path):
    config = WorldConfig(generator="uniform", num_nodes=5000, num_edges=200_000, size=3, weights="dirichlet")
    for table in (True, False):
        shards.write(config, tmp_path / str(table), table=table)
        files = (path for path in (tmp_path / str(table)).rglob("*") if path.is_file())
        assert shards.plan(config).disk_bytes(table) == pytest.approx(sum(map(os.path.getsize, files)), rel=0.05)


def test_samples_are_a_function_of_world_seed_and_id(tmp_path, small_shards):
    shards.write(MIXED, tmp_path)
    world = open_shards(tmp_path)
    write_samples(world, 3, 0, 0, 700, tmp_path)
    write_samples(world, 3, 1, 300, 700, tmp_path)
    whole = pq.read_table(tmp_path / "samples/00000.parquet").to_pydict()
    rest = pq.read_table(tmp_path / "samples/00001.parquet").to_pydict()
    assert whole["id"] == list(range(700))
    assert (whole["id"][300:], whole["nodes"][300:]) == (rest["id"], rest["nodes"])
    drawn = world.rows(world.sampler(3).draw(np.arange(700)))
    sets = [drawn.nodes[drawn.offsets[i] : drawn.offsets[i + 1]].tolist() for i in drawn.index]
    assert [sorted(nodes) for nodes in whole["nodes"]] == sets
    assert whole["nodes"] != sets  # in an order of their own


def test_the_card_names_law_seed_licence_and_schema(every_kind_of_file, tmp_path):
    card = (every_kind_of_file / "README.md").read_text()
    assert card.startswith("---\nlicense: cc0-1.0\n")
    for said in ("`nodes`", "list of int32", "100 samples drawn from it by weight (seed 7)", "samples/*.parquet"):
        assert said in card
    shards.write(MIXED, tmp_path / "mixed", licence="ODbL-1.0")
    card = (tmp_path / "mixed/README.md").read_text()
    assert '"generator": "uniform"' in card
    assert '"seed": 0' in card
    assert "license: odbl-1.0" in card


def read_with_pyarrow(folder: Path) -> list[list[int]]:
    return pq.read_table(folder)["nodes"].to_pylist()


def read_with_pandas(folder: Path) -> list[list[int]]:
    import pandas

    return [nodes.tolist() for nodes in pandas.read_parquet(folder)["nodes"]]


def read_with_datasets(folder: Path) -> list[list[int]]:
    import datasets

    rows = datasets.load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train", streaming=True)
    return [row["nodes"] for row in rows]


def read_with_polars(folder: Path) -> list[list[int]]:
    import polars

    return polars.scan_parquet(f"{folder}/*.parquet").collect()["nodes"].to_list()


@pytest.mark.parametrize("read", [read_with_pyarrow, read_with_pandas, read_with_datasets, read_with_polars])
def test_readers_take_shards_and_samples_as_they_are(read: Callable, every_kind_of_file):
    edges = read(every_kind_of_file / "edges")
    assert edges == [[0, 1], [1, 2], [2, 3], [0, 1, 3]]
    samples = read(every_kind_of_file / "samples")
    assert len(samples) == 100
    assert {tuple(sorted(nodes)) for nodes in samples} <= {tuple(nodes) for nodes in edges}


def test_datasets_read_the_directory_by_its_card(every_kind_of_file):
    import datasets

    rows = datasets.load_dataset(str(every_kind_of_file), "edges", split="train", streaming=True)
    assert [row["weight"] for row in rows] == [0.1, 0.2, 0.4, 0.3]


@pytest.fixture
def mixed_edges(tmp_path: Path, small_shards: int) -> list[list[int]]:
    shards.write(MIXED, tmp_path / "mixed")
    return read_with_pyarrow(tmp_path / "mixed/edges")


def test_xgi_computes_the_same_degrees_and_sizes(mixed_edges):
    import xgi

    theirs, world = xgi.Hypergraph(mixed_edges), build_world(MIXED)
    degrees = np.bincount(world.nodes, minlength=world.num_nodes)
    assert theirs.nodes.degree.asdict() == {node: degree for node, degree in enumerate(degrees) if degree}
    assert sorted(theirs.edges.size.aslist()) == sorted(world.sizes)


def test_hypergraphx_computes_the_same_degrees_and_sizes(mixed_edges):
    import hypergraphx

    theirs, world = hypergraphx.Hypergraph(mixed_edges), build_world(MIXED)
    degrees = np.bincount(world.nodes, minlength=world.num_nodes)
    assert {node: theirs.degree(node) for node in theirs.get_nodes()} == {
        node: degree for node, degree in enumerate(degrees) if degree
    }
    assert sorted(theirs.get_sizes()) == sorted(world.sizes)


def test_the_manifest_is_plain_json_that_names_every_file(every_kind_of_file):
    manifest = json.loads((every_kind_of_file / "manifest.json").read_text())
    assert manifest["format"] == "hgscale-shards/1"
    assert [shard["file"] for shard in manifest["shards"]] == ["edges/00000.parquet", "edges/00001.parquet"]
    data = (every_kind_of_file / "edges/00001.parquet").read_bytes()
    assert manifest["shards"][1]["sha256"] == hashlib.sha256(data).hexdigest()
    named = {entry["file"] for key in ("shards", "samples") for entry in manifest[key]}
    named |= {shard["table"]["file"] for shard in manifest["shards"]} | {"labels.json", "README.md", "manifest.json"}
    assert named == set(hashes(every_kind_of_file))
