"""Chunks of work by a pool of Ray Data actors: each holds one worker; each chunk is one call of it.

What a worker does with a chunk, and where it leaves what it made, is its own business: only a count comes back.
"""

import os
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hgscale.cluster.workers import ClusterConfig, cause, check_room, ray_cluster
from hgscale.config import runs_home
from hgscale.errors import HgscaleError, RunError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


def in_actors(
    worker: Callable[..., Callable[[Sequence[T]], int]],
    arguments: tuple[Any, ...],
    chunks: Sequence[Sequence[T]],
    cluster: ClusterConfig,
    directory: Path,
    what: str,
) -> Iterator[int]:
    """Give chunks to as many actors as workers, each with their resources.

    Args:
        worker: makes a worker in each actor, out of ``arguments``; it is called with a chunk and returns a count, as
            how many items it has done. Picklable, as all that follows.
        arguments: of ``worker``.
        chunks: none of them empty; a chunk whose actor died is given to another one.
        cluster: where; a chunk may cost ``max_failures`` actors their lives.
        directory: that all actors see; deaths are noted in it while this lasts.
        what: is made, in an error.

    Returns:
        The count of each chunk, as they are done, in any order.

    Raises:
        ConfigError: if the cluster has no room.
        RunError: if actors died over and over of one chunk.
        HgscaleError: what a worker raised.
    """
    notes, home = directory / f".{uuid.uuid4().hex}", str(runs_home())
    rows = [{"number": number, "chunk": pickle.dumps(chunk)} for number, chunk in enumerate(chunks)]
    with ray_cluster(cluster.address, cluster.threads_per_worker):
        import ray.data
        from ray.data import ActorPoolStrategy, DataContext

        check_room(cluster, is_joined=True)
        context = DataContext.get_current().copy()
        context.enable_progress_bars = False
        try:
            with DataContext.current(context):
                pieces = ray.data.from_items(rows, override_num_blocks=len(rows))
                counted = pieces.map_batches(
                    _Actor,
                    fn_constructor_args=(worker, arguments, _Deaths(notes, cluster.max_failures, what), home),
                    batch_format="pyarrow",
                    batch_size=None,
                    compute=ActorPoolStrategy(min_size=cluster.min_workers, max_size=cluster.max_workers),
                    num_cpus=cluster.cpus_per_worker,
                    num_gpus=1 if cluster.use_gpu else None,
                )
                for answer in counted.iter_batches(batch_format="pyarrow", batch_size=None):
                    for pickled in answer["count"]:
                        yield _count(pickle.loads(pickled.as_buffer()))
        except HgscaleError:
            raise
        except Exception as error:  # Ray wraps in types of its own what an actor died of
            raise cause(error) from error
        finally:
            shutil.rmtree(notes, ignore_errors=True)


def _count(answer: int | Exception) -> int:
    if isinstance(answer, HgscaleError):
        raise answer
    if isinstance(answer, Exception):
        raise cause(answer) from answer
    return answer


class _Actor:
    """A worker for chunks out of a table. Ray Data makes actors of it."""

    def __init__(
        self,
        worker: Callable[..., Callable[[Sequence[Any]], int]],
        arguments: tuple[Any, ...],
        deaths: "_Deaths",
        home: str,
    ) -> None:
        """``home``: of the caller, whose working directory may be another."""
        os.environ["HGSCALE_HOME"] = home
        self.worker, self.deaths = worker(*arguments), deaths

    def __call__(self, rows: "pa.Table") -> "pa.Table":
        """Rows (number, chunk) -> rows (count): a number, or why there is none."""
        import pyarrow as pa

        answers: list[int | Exception] = []
        for number, pickled in zip(rows["number"], rows["chunk"], strict=True):
            try:
                chunk = pickle.loads(pickled.as_buffer())
                self.deaths.begin(number.as_py(), chunk)
                answers.append(self.worker(chunk))
            except Exception as error:  # raised again by the caller: in Ray Data's wrapping its words would be lost
                answers.append(error)
        return pa.table({"count": pa.array([pickle.dumps(answer) for answer in answers], pa.large_binary())})


class _Deaths:
    """Counts how often each chunk was begun: Ray Data would give one that actors die of to new ones for ever."""

    def __init__(self, notes: Path, max_failures: int, what: str) -> None:
        """``notes``: a folder; ``max_failures``: deaths that a chunk may cost."""
        self.notes, self.max_failures, self.what = notes, max_failures, what

    def begin(self, number: int, chunk: Sequence[Any]) -> None:
        """Note that a chunk is begun.

        Raises:
            RunError: if it was begun too often before.
        """
        self.notes.mkdir(parents=True, exist_ok=True)
        note = self.notes / str(number)
        with note.open("ab") as file:
            file.write(b".")
        if note.stat().st_size > self.max_failures + 1:
            raise RunError(
                f"{self.what}: workers died {self.max_failures + 1} times over the same items, "
                f"{str(chunk[0])[:100]}... (killed, or out of memory); what is written stays, the same command goes "
                "on where this one was"
            )
