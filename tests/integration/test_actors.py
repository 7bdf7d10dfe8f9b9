"""A pool of actors of a private Ray around a worker that has nothing to do with any task."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hgscale import config as configs
from hgscale.cluster.actors import in_actors
from hgscale.cluster.workers import ClusterConfig, ray_cluster
from hgscale.errors import DataError, RunError

TWO = ClusterConfig(num_workers=2)


@pytest.fixture(scope="module", autouse=True)
def one_cluster():
    with ray_cluster(None, threads=1):
        yield


class Writer:
    """Writes its process into a file for each number; one number is refused, one kills as often as it is told."""

    def __init__(self, folder: Path, deaths: int = 0, refused: int = -1) -> None:
        self.folder, self.deaths, self.refused = folder, deaths, refused

    def __call__(self, chunk: Sequence[int]) -> int:
        for number in chunk:
            if number == self.refused:
                raise DataError(f"{number}: is refused; leave it out")
            tries = self.folder / f"tries-{number}"
            if number == 13 and self.deaths:
                with tries.open("ab") as file:
                    file.write(b".")
                if tries.stat().st_size <= self.deaths:
                    os.kill(os.getpid(), signal.SIGKILL)
            (self.folder / str(number)).write_text(str(os.getpid()))
        return len(chunk)


CHUNKS = [list(range(start, start + 3)) for start in range(0, 30, 3)]


def test_every_chunk_is_done_by_one_of_the_pool_and_its_count_comes_back(tmp_path):
    counts = list(in_actors(Writer, (tmp_path,), CHUNKS, TWO, tmp_path, "numbers"))
    assert counts == [3] * 10
    done = {int(path.name): int(path.read_text()) for path in tmp_path.iterdir()}
    assert sorted(done) == list(range(30))
    assert os.getpid() not in done.values()
    assert 1 <= len(set(done.values())) <= 2


def _home_into(folder: Path) -> Callable[[Sequence[int]], int]:
    def worker(chunk: Sequence[int]) -> int:
        (folder / str(chunk[0])).write_text(str(configs.runs_home()))
        return 1

    return worker


def test_actors_work_below_the_home_of_their_caller(tmp_path, monkeypatch):
    monkeypatch.delenv("HGSCALE_HOME")
    monkeypatch.chdir(tmp_path)
    assert list(in_actors(_home_into, (tmp_path,), [[0], [1]], TWO, tmp_path, "homes")) == [1, 1]
    assert {path.read_text() for path in tmp_path.glob("[0-9]")} == {str(tmp_path / "runs")}


def test_a_chunk_whose_actor_died_is_done_by_another(tmp_path):
    assert sum(in_actors(Writer, (tmp_path, 1), CHUNKS, TWO, tmp_path, "numbers")) == 30
    assert (tmp_path / "tries-13").stat().st_size == 2


def test_a_chunk_that_actors_die_of_is_given_up(tmp_path):
    once = ClusterConfig(num_workers=1, max_failures=1)
    with pytest.raises(RunError, match=r"^numbers: workers died 2 times over the same items, 12\.\.\. \(killed"):
        list(in_actors(Writer, (tmp_path, 10**6), CHUNKS, once, tmp_path, "numbers"))
    assert not list(tmp_path.glob(".*"))  # the notes of deaths


def test_what_a_worker_raises_is_raised_here(tmp_path):
    with pytest.raises(DataError, match=r"^7: is refused; leave it out$"):
        list(in_actors(Writer, (tmp_path, 0, 7), CHUNKS, TWO, tmp_path, "numbers"))
