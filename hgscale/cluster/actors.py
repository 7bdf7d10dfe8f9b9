"""Features of frozen encoders by actors of Ray Data: each holds the encoder; each chunk of items becomes one file.

Items are known by their content (``finetune.store``), and computed as in one process (``finetune.features``).
"""

import pickle
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from hgscale.cluster.workers import ClusterConfig, cause, check_room, ray_cluster
from hgscale.errors import HgscaleError, RunError
from hgscale.finetune.features import CHUNK, Computer, FeatureJob, chunks, compute_here, missing_items, open_store
from hgscale.finetune.store import Item
from hgscale.models.config import EncoderConfig

if TYPE_CHECKING:
    import pyarrow as pa

FEW = 128  # items that this process computes also with launcher=ray: a cluster takes longer to start
CHUNKS_EACH = 4  # that a worker computes at least, if there are items enough: so none waits long for the last


def compute_features(
    items: Sequence[Item], encoder: EncoderConfig, directory: str | Path, cluster: ClusterConfig
) -> int:
    """Put the features of items into the store of a frozen encoder, as far as they are missing.

    A call that was killed is gone on with by the same call. Read them with ``open_store(...).read(item.keys)``.

    Args:
        items: all texts, or all images.
        encoder: of texts or of images, as the items.
        directory: of the stores; all workers see it.
        cluster: launcher ray with more than ``FEW`` items: as many actors as workers, each with their resources.

    Returns:
        How many items were computed, each counted once.

    Raises:
        ConfigError: if there is no such encoder, it is not frozen, or the cluster has no room.
        DataError: naming an image that is missing, broken, or has nothing in its box.
        RunError: if the disk is full, workers died over and over, or what they wrote is not seen here.
    """
    store = open_store(directory, encoder)
    wanted = missing_items(items, store)
    if not wanted:
        return 0
    job = FeatureJob.of(encoder, directory, cluster.device)
    is_small = cluster.launcher == "none" or len(wanted) <= FEW
    computed = compute_here(wanted, Computer(_at_hand(job))) if is_small else _with_ray(job, wanted, cluster)
    with tqdm(total=len(wanted), desc="features", unit="", leave=False, disable=not sys.stderr.isatty()) as bar:
        for num_items in computed:
            bar.update(num_items)
    store.refresh()
    if left := store.missing(key for item in wanted for key in item.keys):
        raise RunError(
            f"{store.directory}: {len(left)} features that workers computed are not there; let all nodes see this "
            f"directory, and the same files as encoder.path={encoder.path}"
        )
    return len(wanted)


def _at_hand(job: FeatureJob) -> FeatureJob:
    """Few items are computed here even where only the workers have GPUs."""
    import torch

    return job if torch.cuda.is_available() else replace(job, device="cpu")


def _with_ray(job: FeatureJob, items: Sequence[Item], config: ClusterConfig) -> Iterator[int]:
    """Chunks by a pool of actors.  -> the number of items of each, as they are done."""
    size = min(CHUNK, -(-len(items) // (CHUNKS_EACH * config.min_workers)))
    notes = Path(job.directory) / f".{uuid.uuid4().hex}"
    rows = [{"items": pickle.dumps(chunk)} for chunk in chunks(items, size)]
    with ray_cluster(config.address, config.threads_per_worker):
        import ray.data
        from ray.data import ActorPoolStrategy, DataContext

        check_room(config, is_joined=True)
        context = DataContext.get_current().copy()
        context.enable_progress_bars = False
        try:
            with DataContext.current(context):
                pieces = ray.data.from_items(rows, override_num_blocks=len(rows))
                computed = pieces.map_batches(
                    _Computer,
                    fn_constructor_args=(job, notes, config.max_failures),
                    batch_format="pyarrow",
                    batch_size=None,
                    compute=ActorPoolStrategy(min_size=config.min_workers, max_size=config.max_workers),
                    num_cpus=config.cpus_per_worker,
                    num_gpus=1 if config.use_gpu else None,
                )
                answers = computed.iter_batches(batch_format="pyarrow", batch_size=None)
                for answer in answers:
                    for pickled in answer["computed"]:
                        yield _result(pickle.loads(pickled.as_buffer()))
        except HgscaleError:
            raise
        except Exception as error:  # Ray wraps in types of its own what an actor died of
            raise cause(error) from error
        finally:
            shutil.rmtree(notes, ignore_errors=True)


def _result(computed: int | Exception) -> int:
    if isinstance(computed, HgscaleError):
        raise computed
    if isinstance(computed, Exception):
        raise cause(computed) from computed
    return computed


class _Computer(Computer):
    """A computer for chunks out of a table. Ray Data makes actors of it."""

    def __init__(self, job: FeatureJob, notes: Path, max_failures: int) -> None:
        """``notes``: a folder where actors note what they begin; ``max_failures``: deaths that a chunk may cost."""
        super().__init__(job)
        self.notes, self.max_failures = notes, max_failures

    def __call__(self, rows: "pa.Table") -> "pa.Table":
        """Rows (items) -> rows (computed): how many, or why not."""
        import pyarrow as pa

        answers: list[int | Exception] = []
        for row in rows["items"]:
            try:
                items = pickle.loads(row.as_buffer())
                self._note(items[0])
                answers.append(self.compute(items))
            except Exception as error:  # raised again by the caller: in Ray Data's wrapping its words would be lost
                answers.append(error)
        return pa.table({"computed": pa.array([pickle.dumps(answer) for answer in answers], pa.large_binary())})

    def _note(self, first: Item) -> None:
        """Note that a chunk is begun; refuse one that actors died of: Ray Data would give it to new ones for ever."""
        self.notes.mkdir(parents=True, exist_ok=True)
        note = self.notes / first.keys[0]
        with note.open("ab") as file:
            file.write(b".")
        if note.stat().st_size > self.max_failures + 1:
            raise RunError(
                f"features: workers died {self.max_failures + 1} times over the same items, {str(first)[:100]}... "
                "(killed, or out of memory); what is written stays, the same command goes on where this one was"
            )
