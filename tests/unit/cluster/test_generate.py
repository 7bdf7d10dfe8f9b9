"""What `hgscale generate` refuses before it writes anything, and what it says while it works."""

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from hgscale import config as configs
from hgscale.cluster import generate as module
from hgscale.cluster.generate import GenerateConfig, generate
from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.worlds.config import WorldConfig

REPO = Path(__file__).parents[3]
SMALL = {"generator": "uniform", "num_nodes": 10, "num_edges": 20, "size": 3}


def request(out: Path, world: dict[str, Any] | None = None, **fields: Any) -> GenerateConfig:
    return GenerateConfig(world=WorldConfig(**(SMALL | (world or {}))), out=str(out), num_workers=0, **fields)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "more edges than there are sets": ({"num_edges": 121}, {}, "at most 120"),
    "more edges than shards have numbers": (
        {"num_nodes": 10**6, "num_edges": 10**15},
        {},
        "world.load=implicit",
    ),
    # A shard's rows alone are 2^20 edges x 1,000 nodes x 4 bytes = 3.9 GiB.
    "more memory than a worker may take": (
        {"num_nodes": 10**4, "num_edges": 2**20, "size": 1000},
        {"memory_gib": 2.0},
        "GiB in each worker",
    ),
    # 1e10 edges of 4 + 4 + 4 + 8 bytes, and as much again in tables: over any disk of a test machine, below its tests.
    "more disk than there is": ({"num_nodes": 10**6, "num_edges": 10**10}, {}, "GB are free"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_met_is_refused_with_the_number_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, fields, said = REFUSED[name]
    free = namedtuple("usage", "free")(10**11)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(ConfigError, match=said):
        generate(request(tmp_path / "out", world, **fields))
    assert not any(tmp_path.iterdir())


def test_the_memory_that_a_refusal_names_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set memory_gib to ") as refused:
        generate(request(tmp_path / "out", memory_gib=0.01))
    enough = float(str(refused.value).partition("set memory_gib to ")[2].split()[0])
    assert generate(request(tmp_path / "out", memory_gib=enough)).num_written == 1


def test_the_disk_that_is_needed_is_what_the_files_take_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {"num_nodes": 1000, "num_edges": 200_000}
    full = namedtuple("usage", "free")(0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(ConfigError, match="need") as refused:
        generate(request(tmp_path / "out", many))
    needed = float(str(refused.value).partition("need ")[2].split()[0]) * 1e9
    monkeypatch.undo()
    generate(request(tmp_path / "out", many))
    taken = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert needed == pytest.approx(taken, rel=0.05)  # "within a few percent"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    generate(request(tmp_path / "out", many))  # what is finished needs no more room


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_workers": -1}, "0 works in this process"),
        ({"memory_gib": 0}, "not positive"),
        ({"verify": True}, "name the directory"),
        ({"samples": module.SamplesConfig(num_samples=5), "table": False}, "drawn by the tables"),
    ],
)
def test_a_request_without_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GenerateConfig(**fields)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here is no directory\n")
    with pytest.raises(ConfigError, match="cannot be written"):
        generate(request(tmp_path / "file" / "out"))


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work\n")
    with pytest.raises(ConfigError, match="no shards"):
        generate(request(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_directory_of_another_world_is_left_alone(finished: bool, tmp_path: Path) -> None:
    if finished:
        generate(request(tmp_path / "out"))
    else:  # a call that was killed before its first shard
        with module._alone(tmp_path / "out", module.shards.plan(request(tmp_path).world).identity):
            pass
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    with pytest.raises((ConfigError, DataError), match="give another --out"):
        generate(request(tmp_path / "out", {"seed": 1}))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    identity = module.shards.plan(request(tmp_path).world).identity
    with module._alone(tmp_path / "out", identity), pytest.raises(ConfigError, match="another process"):
        generate(request(tmp_path / "out"))


def test_a_world_too_uneven_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too uneven"):
        generate(request(tmp_path / "out", {"weights": "zipf", "zipf_exponent": 400.0}))
    assert not any(tmp_path.iterdir())


def test_a_finished_world_is_not_made_again_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = generate(request(tmp_path / "out"))
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again = generate(request(tmp_path / "out"))
    assert (first.num_written, again.num_written) == (1, 0)
    assert "finished already" in capsys.readouterr().err
    assert again.manifest == first.manifest
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == files


def test_samples_may_be_added_to_a_finished_world_but_not_others_in_their_place(tmp_path: Path) -> None:
    world = generate(request(tmp_path / "out")).manifest
    samples = module.SamplesConfig(num_samples=50, seed=3)
    both = generate(request(tmp_path / "out", samples=samples)).manifest
    assert both.shards == world.shards
    assert (both.samples_seed, sum(entry.num_samples for entry in both.samples)) == (3, 50)
    assert generate(request(tmp_path / "out")).manifest == both  # not asked for, and kept
    with pytest.raises(ConfigError, match="holds 50 samples of seed 3"):
        generate(request(tmp_path / "out", samples=module.SamplesConfig(num_samples=51, seed=3)))


def test_a_shard_that_was_deleted_is_made_again_to_the_same_bytes(tmp_path: Path) -> None:
    first = generate(request(tmp_path / "out", samples=module.SamplesConfig(num_samples=50)))
    (tmp_path / "out" / "edges" / "00000.parquet").unlink()
    (tmp_path / "out" / "samples" / "00000.parquet").unlink()
    again = generate(request(tmp_path / "out"))
    assert again.num_written == 1
    assert again.manifest == first.manifest
    generate(GenerateConfig(out=str(tmp_path / "out"), verify=True))


def test_the_licence_stands_on_the_card_and_may_be_changed_later(tmp_path: Path) -> None:
    generate(request(tmp_path / "out"))
    assert "CC0-1.0" in (tmp_path / "out" / "README.md").read_text()
    generate(request(tmp_path / "out", licence="CC-BY-4.0"))
    assert "CC-BY-4.0" in (tmp_path / "out" / "README.md").read_text()
    assert "CC0-1.0" not in (tmp_path / "out" / "README.md").read_text()


def test_tables_are_written_only_where_asked_for(tmp_path: Path) -> None:
    generate(request(tmp_path / "with"))
    generate(request(tmp_path / "without", table=False))
    assert (tmp_path / "with" / "table" / "00000.npy").exists()
    assert not (tmp_path / "without" / "table").exists()
    assert (tmp_path / "with/edges/00000.parquet").read_bytes() == (
        tmp_path / "without/edges/00000.parquet"
    ).read_bytes()


def test_without_out_the_directory_is_named_after_the_world() -> None:
    one, other = (
        generate(GenerateConfig(world=WorldConfig(**SMALL, seed=seed), num_workers=0)).directory for seed in (0, 1)
    )
    assert one.parent == other.parent == configs.runs_home().absolute()
    assert one != other


def test_progress_is_a_line_per_interval_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with module._Pieces("sample files", 10, 2, "samples") as progress:
        for _ in range(4):
            clock[0] += 10.0
            progress.ended(500)
    # After 20 s 2 of the 8 missing files are done, 50 samples a second, and 6 are left, 10 s each; 40 s: 4 are left.
    assert capsys.readouterr().err.splitlines() == [
        "hgscale: generate sample_files=4/10 samples_per_s=50 left_min=1.0",
        "hgscale: generate sample_files=6/10 samples_per_s=50 left_min=0.7",
    ]


@pytest.mark.parametrize("path", sorted(REPO.glob("configs/world/*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads_and_can_be_planned(path: Path) -> None:
    config = configs.load(GenerateConfig, path)
    module._check_number(config.world)
    plan = module.shards.plan(config.world)
    module._check_memory(plan, config)
    assert f"{plan.num_edges:,} edges in {len(plan.shards)} shards" in path.read_text()
