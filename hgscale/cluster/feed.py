"""Feed workers from CPUs that only make batches: one Ray Data pipeline per worker, over step numbers.

    steps    one task without a CPU    cuts the steps that are left into pieces of a few steps
    feeders  actors                    evaluate the worker's shares of a piece (``train.shares``), as bytes
    worker                             takes them in order

What is evaluated is the pure function of the step that a worker would evaluate in its own process: its samples are the
same for any number of feeders and workers, after the death of a feeder, and after a restart at any step. A pipeline of
all workers together (``streaming_split``) could not promise that: its order depends on the number of workers.

Ray Data holds feeders back by bytes: those made and not yet taken stay below ``buffer_mib``.
"""

import math
import pickle
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hgscale.errors import ConfigError
from hgscale.train.shares import Share, Shares

if TYPE_CHECKING:
    import pyarrow as pa

PIECE_SAMPLES = 1 << 15  # of one worker in one piece: a piece costs Ray some 10 ms, whatever is in it
PAUSE_S = 0.25  # that Ray Data's scheduler rests while there are batches to take


@dataclass(frozen=True, kw_only=True)
class FeedConfig:
    """Who makes the batches. Nothing here decides a number."""

    num_feeders: int = 0
    """CPUs that only make batches, through Ray Data, for all workers together. 0: each worker makes its own."""

    buffer_mib: float = 32.0
    """Batches that wait for one worker; feeders stop when there are more."""

    def __post_init__(self) -> None:
        if self.num_feeders < 0:
            raise ConfigError(f"feed.num_feeders={self.num_feeders} is negative; give 0 to make batches in the workers")
        if not self.buffer_mib > 0:
            raise ConfigError(f"feed.buffer_mib={self.buffer_mib} is not positive; 32 is enough for most")

    @property
    def buffer_bytes(self) -> int:
        return int(self.buffer_mib * 2**20)


@dataclass(frozen=True)
class RayFeed:
    """A ``train.shares.Source``, to be called in a process of a Ray cluster.

    Attributes:
        config: how many feeders, and how far ahead.
    """

    config: FeedConfig

    def __call__(self, shares: Shares, start_step: int) -> Generator[Share, None, None]:
        """The shares of steps ``start_step`` to the last, in order; closing it ends the feeders."""
        if start_step >= shares.num_steps:
            return
        pieces = _pieces(shares, start_step, self.config)
        try:
            while (piece := _wait_for(pieces)) is not None:
                yield from piece
        finally:
            del pieces  # the last reference: Ray Data takes the pipeline down


def _pieces(shares: Shares, start_step: int, config: FeedConfig) -> Iterator["pa.Table"]:
    """Open the pipeline of one worker.  -> tables of one row, pickled shares."""
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext, ExecutionResources

    # Every worker has the same number of feeders, at least one; together they take num_feeders CPUs.
    num_feeders = math.ceil(config.num_feeders / shares.world_size)
    cpus_each = math.floor(1e4 * config.num_feeders / (shares.world_size * num_feeders)) / 1e4  # Ray counts so finely

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every row is a block of its own, passed on when it is there
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=config.buffer_bytes)
    context.execution_no_progress_timeout_s = -1  # a worker that reads a model out takes nothing for hours
    context.custom_execution_callback_classes = [_Pause]
    with DataContext.current(context):
        num_steps = shares.num_steps
        steps = ray.data.from_items([{"start": start_step, "stop": num_steps, "each": _steps_of_a_piece(shares)}])
        cut = steps.map_batches(_cut, batch_format="pyarrow", batch_size=None, num_cpus=0)
        made = cut.map_batches(
            _Feeder,
            fn_constructor_args=(shares.fresh(),),
            batch_format="pyarrow",
            batch_size=None,
            compute=ActorPoolStrategy(size=num_feeders),
            num_cpus=cpus_each,
        )
        return iter(made.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=1))


def _steps_of_a_piece(shares: Shares) -> int:
    return max(1, PIECE_SAMPLES * shares.world_size // shares.global_batch)


def _cut(row: "pa.Table") -> Iterator["pa.Table"]:
    """One row (start, stop, each) -> a row (start, stop) for every ``each`` steps."""
    import pyarrow as pa

    start, stop, each = (row[name][0].as_py() for name in ("start", "stop", "each"))
    for first in range(start, stop, each):
        yield pa.table({"start": [first], "stop": [min(first + each, stop)]})


class _Feeder:
    """An actor that evaluates shares."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares

    def __call__(self, piece: "pa.Table") -> "pa.Table":
        """One row (start, stop) -> one row: the shares of these steps, or why there are none."""
        import pyarrow as pa

        made: list[Share] | Exception
        try:
            made = [self.shares.at(step) for step in range(piece["start"][0].as_py(), piece["stop"][0].as_py())]
        except Exception as error:  # raised again by the worker: in Ray Data's wrapping its words would be lost
            made = error
        return pa.table({"made": pa.array([pickle.dumps(made, protocol=5)], pa.large_binary())})


_is_waiting = threading.Event()  # this process waits for a batch


def _wait_for(pieces: Iterator["pa.Table"]) -> list[Share] | None:
    """The next piece; None after the last. Raises what its feeder met."""
    _is_waiting.set()
    piece = next(pieces, None)
    _is_waiting.clear()
    made = None if piece is None else pickle.loads(piece["made"][0].as_buffer())
    if isinstance(made, Exception):
        raise made
    return made


class _Pause:
    """Called by Ray Data after each turn of its scheduler, which lives in a thread of the worker.

    While feeders are held back, which is most of the time, the scheduler turns without a rest and takes most of a core
    from the training (Ray 2.60: 0.8 of one). It wakes up as soon as the worker waits for a batch.
    """

    def on_execution_step(self, executor: Any) -> None:
        _is_waiting.wait(PAUSE_S)

    def before_execution_starts(self, executor: Any) -> None: ...

    def after_execution_succeeds(self, executor: Any) -> None: ...

    def after_execution_fails(self, executor: Any, error: Exception) -> None: ...
