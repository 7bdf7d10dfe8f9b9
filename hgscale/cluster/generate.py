"""The verb ``generate``: a world, and samples of it if asked for, as shards on disk, made by any number of workers.

Every piece of work is a pure function of the config and a number (``data.disk``); decided here is only who does which
piece, and when. So neither workers, nor their order, nor a piece done twice changes a byte.
"""

import fcntl
import json
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hgscale import config as configs
from hgscale import files
from hgscale.cluster.progress import Progress
from hgscale.cluster.signals import stop_on_signal
from hgscale.cluster.workers import cause, ray_cluster
from hgscale.config import RESULT
from hgscale.data.disk import exchange, shards
from hgscale.data.disk import plan as plans
from hgscale.data.disk.columns import write_samples
from hgscale.data.disk.manifest import MANIFEST, Manifest, SamplesEntry, glance, read_manifest
from hgscale.data.disk.mapped import ShardedWorld, open_shards
from hgscale.data.disk.plan import Plan
from hgscale.data.stream import SamplesConfig
from hgscale.errors import ConfigError, RunError
from hgscale.hypergraph.worlds.config import WorldConfig, is_computed, parts_of
from hgscale.hypergraph.worlds.parts import SHARD_EDGES

TICK_S = 0.5
RETRIES = 3  # of a piece whose worker died; one that raises is not tried again
AHEAD = 2  # pieces that a worker has in hand, so that it never waits for the next
PROCESS_BYTES = 300 * 2**20  # of a worker that does nothing yet: Python, Ray, numba, pyarrow
MAX_SHARDS = 100_000  # their names have five digits
LOCK, NOTES = ".lock", ".samples"

T = TypeVar("T")
Piece = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Write a world, and samples of it if asked for, as Parquet shards with a manifest; or check such a directory."""

    world: WorldConfig = field(default_factory=WorldConfig)
    """What is written: a generated world, or one from a file."""

    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """Samples to write beside the world; num_samples null: none."""

    table: bool = True
    """Write tables too, from which pretrain draws edges without holding the world in memory."""

    licence: str = "CC0-1.0"
    """Licence that the data card names."""

    out: str | None = field(default=None, metadata=RESULT)
    """Directory of the shards, seen by all workers; null: world-<identity> under $HGSCALE_HOME or runs."""

    num_workers: int | None = None
    """Ray workers of one core each. Null: as many as there are cores; 0: this process does all, without Ray."""

    address: str | None = None
    """Ray cluster to join, as "auto" or "ray://head:10001"; null: $RAY_ADDRESS, else a private one on this machine."""

    memory_gib: float = 4.0
    """Memory that one worker may take. A world that needs more is refused before anything starts."""

    verify: bool = False
    """Write nothing; read every byte in out, and name each file that is not as it was written."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(f"num_workers={self.num_workers} is negative; 0 works in this process, without Ray")
        if not self.memory_gib > 0:
            raise ConfigError(f"memory_gib={self.memory_gib} is not positive; give a value above 0")
        if self.verify and self.out is None:
            raise ConfigError("verify=true without out; name the directory to check")
        if self.samples.num_samples is not None and not self.table:
            raise ConfigError(
                f"samples.num_samples={self.samples.num_samples} with table=false: samples are drawn by the tables; "
                "set table to true, or num_samples to null"
            )


@dataclass(frozen=True)
class GenerateResult:
    """A finished directory.

    Attributes:
        directory: of the shards.
        manifest: what is in it.
        num_written: shards that this call wrote; the others were there.
        seconds: of this call, the start and end of Ray left out.
    """

    directory: Path
    manifest: Manifest
    num_written: int
    seconds: float

    def text(self) -> str:
        """What the command prints."""
        found = self.manifest
        num_bytes = sum(entry.num_bytes for entry in found.files)
        sizes = ", ".join(f"{size}: {entry['num_edges']:,}" for size, entry in found.sizes.items())
        lines = [
            f"edges         {found.num_edges:,} over {found.num_nodes:,} nodes (by size {sizes})",
            f"shards        {len(found.shards)}, {self.num_written} of them written now; {num_bytes / 1e6:,.1f} MB",
            f"digest        {found.digest}",
            f"seconds       {self.seconds:.2f}",
            f"directory     {self.directory}",
        ]
        if found.samples:
            num_samples = sum(entry.num_samples for entry in found.samples)
            lines.insert(1, f"samples       {num_samples:,}, seed {found.samples_seed}")
        return "\n".join(lines)


def generate(config: GenerateConfig) -> GenerateResult:
    """Write the shards of a world that are not there yet; or, with ``verify``, check those that are.

    A call that was killed is gone on with by the same call; one that has finished is not repeated.

    Raises:
        ConfigError: if the request cannot be met; nothing has been written then.
        DataError: if the world's file is wrong, the directory is of another world, or a file in it is bad.
        RunError: if the disk filled up, or a worker died over and over; what is written stays.
    """
    started = time.monotonic()
    if config.verify:
        assert config.out is not None
        return GenerateResult(Path(config.out), shards.verify(config.out), 0, time.monotonic() - started)
    _check_number(config.world)
    plan = plans.plan(config.world)
    directory = (Path(config.out) if config.out else configs.runs_home() / f"world-{plan.identity}").absolute()
    _check_memory(plan, config)
    with _alone(directory, plan.identity), stop_on_signal():
        todo = _Todo.of(plan, directory, config)
        manifest = todo.finished(config)
        if manifest is None:
            _check_disk(plan, directory, config)
            with _crew(config) as crew:
                started = time.monotonic()
                manifest = _work(todo, crew, config)
                seconds = time.monotonic() - started
        else:
            Progress.say(f"{directory} is finished already; nothing is done again")
            seconds = time.monotonic() - started
    return GenerateResult(directory, manifest, len(todo.missing), seconds)


# What is to be done


@dataclass(frozen=True)
class _Todo:
    """A directory as a call finds it.

    Attributes:
        plan: of its world.
        directory: of the shards.
        missing: numbers of the shards that are not there.
        samples: what is to be drawn: what is asked for, or else what is there.
        drawn: the sample files that are there, by number.
        total: sum of the weights before they were normalised, of a world that was finished.
    """

    plan: Plan
    directory: Path
    missing: tuple[int, ...]
    samples: SamplesConfig
    drawn: dict[int, SamplesEntry]
    total: float | None

    @staticmethod
    def of(plan: Plan, directory: Path, config: GenerateConfig) -> "_Todo":
        done = shards.written(plan, directory, config.table)
        missing = tuple(shard.number for shard in plan.shards if shard.number not in done)
        earlier = read_manifest(directory) if (directory / MANIFEST).exists() else None
        samples, known = config.samples, _noted(directory, config.samples)
        if earlier is not None and earlier.samples:
            assert earlier.samples_seed is not None
            num_samples = sum(entry.num_samples for entry in earlier.samples)
            there = SamplesConfig(num_samples=num_samples, seed=earlier.samples_seed)
            if samples.num_samples is not None and samples != there:
                raise ConfigError(
                    f"{directory}: holds {there.num_samples} samples of seed {there.seed}, {samples.num_samples} of "
                    f"seed {samples.seed} are asked for; give another --out, or leave samples out"
                )
            samples, known = there, known + earlier.samples
        drawn = {entry.first // SHARD_EDGES: entry for entry in known if glance(directory, entry) is None}
        return _Todo(plan, directory, missing, samples, drawn, None if earlier is None else earlier.total)

    @property
    def sample_files(self) -> list[tuple[int, int, int]]:
        """(number, lo, hi) of each."""
        num_samples = self.samples.num_samples or 0
        starts = range(0, num_samples, SHARD_EDGES)
        return [(number, lo, min(lo + SHARD_EDGES, num_samples)) for number, lo in enumerate(starts)]

    def finished(self, config: GenerateConfig) -> Manifest | None:
        """The manifest, if nothing is to be done."""
        if self.missing or self.total is None or len(self.drawn) < len(self.sample_files):
            return None
        # A killed call may have left notes behind, and the licence may be another now: this much is written again.
        return self.finish(self.total, config, self.drawn)

    def finish(self, total: float, config: GenerateConfig, drawn: dict[int, SamplesEntry]) -> Manifest:
        """Write what stands beside shards and samples."""
        manifest = shards.finish(
            self.plan,
            total,
            self.directory,
            table=config.table,
            licence=config.licence,
            samples_seed=self.samples.seed if drawn else None,
            samples=tuple(drawn[number] for number in sorted(drawn)),
        )
        shutil.rmtree(self.directory / NOTES, ignore_errors=True)
        return manifest


def _noted(directory: Path, samples: SamplesConfig) -> tuple[SamplesEntry, ...]:
    """The sample files of these samples that a killed call has written."""
    notes = sorted((directory / NOTES).glob("*.json"))
    written = [json.loads(note.read_text()) for note in notes]
    return tuple(SamplesEntry(**values["entry"]) for values in written if values["samples"] == asdict(samples))


# The work


def _work(todo: _Todo, crew: "_Crew", config: GenerateConfig) -> Manifest:
    """Make what is missing."""
    plan, directory = _exchange(todo.plan, crew, todo.directory), todo.directory
    total = _total(plan, crew, directory)
    with _Pieces("shards", len(plan.shards), len(plan.shards) - len(todo.missing), "edges") as done:
        pieces = [(number, total, directory, config.table) for number in todo.missing]
        for _, entry in crew.each(shards.write_shard, plan, pieces):
            done.ended(entry.num_edges)
    if len(todo.drawn) == len(todo.sample_files):
        return todo.finish(total, config, todo.drawn)
    todo.finish(total, config, {})  # samples are drawn from a finished world
    return todo.finish(total, config, _draw(todo, crew))


def _exchange(plan: Plan, crew: "_Crew", directory: Path) -> Plan:
    """Find the edges of the parts where an edge is no function of its number alone."""
    for part in plan.exchanged:
        while chunks := exchange.next_chunks(plan, part, directory):
            with _Pieces("proposals", len(chunks)) as done:
                for _ in crew.each(exchange.propose_chunk, plan, [(part, chunk, directory) for chunk in chunks]):
                    done.ended()
            pieces = [(part, shard.place, chunks.stop, directory) for shard in plan.shards if shard.part == part]
            with _Pieces("buckets", len(pieces)) as done:
                for _ in crew.each(exchange.merge_bucket, plan, pieces):
                    done.ended()
            exchange.drop_chunks(plan, part, chunks.stop, directory)
    return exchange.settled(plan, directory)


def _total(plan: Plan, crew: "_Crew", directory: Path) -> float:
    """The sum of all weights."""
    masses: dict[int, float] = {}
    with _Pieces("weights", len(plan.shards)) as done:
        pieces = [(shard.number, directory) for shard in plan.shards]
        for (number, _), mass in crew.each(shards.shard_mass, plan, pieces):
            masses[number] = mass
            done.ended()
    return shards.total_of(plan, [masses[shard.number] for shard in plan.shards])


def _draw(todo: _Todo, crew: "_Crew") -> dict[int, SamplesEntry]:
    """Write the sample files that are not there; all of them by number."""
    drawn = dict(todo.drawn)
    files = [piece for piece in todo.sample_files if piece[0] not in drawn]
    with _Pieces("sample files", len(todo.sample_files), len(drawn), "samples") as done:
        pieces = [(todo.samples, number, lo, hi, todo.directory) for number, lo, hi in files]
        for (_, number, *_), entry in crew.each(_write_samples, open_shards(todo.directory), pieces):
            drawn[number] = entry
            done.ended(entry.num_samples)
    return drawn


def _write_samples(
    world: ShardedWorld, samples: SamplesConfig, number: int, lo: int, hi: int, directory: Path
) -> SamplesEntry:
    """In a worker: one file of samples, and a note that it is done."""
    entry = write_samples(world, samples.seed, number, lo, hi, directory)
    note = directory / f"{NOTES}/{number:05d}.json"
    files.write_json(note, {"samples": asdict(samples), "entry": asdict(entry)})
    return entry


# What is refused


def _check_number(world: WorldConfig) -> None:
    """Refuse more edges than shards have numbers, which a plan would list for hours."""
    num_edges = sum(part.num_edges for part in parts_of(world)) if is_computed(world) else 0
    if num_edges > MAX_SHARDS * SHARD_EDGES:
        raise ConfigError(
            f"world.num_edges={num_edges} is more than a directory of shards holds, {MAX_SHARDS * SHARD_EDGES}; train "
            "from such a world as it is, with world.load=implicit"
        )


def _check_memory(plan: Plan, config: GenerateConfig) -> None:
    needed = (PROCESS_BYTES + plan.held_bytes + plan.task_bytes) / 2**30
    if needed > config.memory_gib:
        raise ConfigError(
            f"memory_gib={config.memory_gib:g}: this world needs {needed:.2f} GiB in each worker; set memory_gib to "
            f"{math.ceil(100 * needed) / 100:.2f} or more, or ask for smaller edges or fewer nodes"
        )


def _check_disk(plan: Plan, directory: Path, config: GenerateConfig) -> None:
    """Refuse what the disk has no room for, beyond what the directory holds already."""
    needed = plan.disk_bytes(config.table) * (2 if plan.exchanged else 1)
    needed += (config.samples.num_samples or 0) * (12 + 4 * max(part.size for part in plan.parts))
    needed -= sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    disk = next(place for place in (directory, *directory.parents) if place.is_dir())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise ConfigError(
            f"out={directory}: the files need {needed / 1e9:.3g} GB more, and {free / 1e9:.3g} GB are free; make room, "
            "or name a directory on a larger disk"
        )


@contextmanager
def _alone(directory: Path, identity: str) -> Iterator[None]:
    """Hold a directory against other calls; afterwards no file in it is half a file.

    The lock says whose directory it is before any shard does, and goes when the manifest says so.

    Raises:
        ConfigError: if it cannot be written, is in use, or holds something else.
    """
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in directory.iterdir()]
        if others and LOCK not in others and MANIFEST not in others:
            raise ConfigError(f"out={directory}: holds files that are no shards; name a new or empty directory")
        lock = (directory / LOCK).open("a+")
    except OSError as error:
        raise ConfigError(
            f"out={directory}: cannot be written ({error.strerror}); name a directory you can write to"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"out={directory}: another process writes to it; wait for it, or end it first") from None
        lock.seek(0)
        if (owner := lock.read().strip() or identity) != identity:
            raise ConfigError(
                f"out={directory}: is of world {owner}, this config is {identity}; give another --out, or delete it"
            )
        lock.truncate(0)
        lock.write(identity + "\n")
        lock.flush()
        try:
            yield
        except ConfigError:
            if is_new:
                shutil.rmtree(directory)
            raise
        finally:
            for path in directory.rglob(".*.part"):
                path.unlink(missing_ok=True)
            if (directory / MANIFEST).exists():
                (directory / LOCK).unlink(missing_ok=True)


# Who does it


class _Crew(Protocol):
    """Whoever does the work."""

    def each(self, function: Callable[..., T], shared: Any, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, T]]:
        """Call ``function(shared, *piece)`` for each piece; pieces and results as they are done, in any order."""


class _Here:
    """This process."""

    def each(self, function: Callable[..., T], shared: Any, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, T]]:
        for piece in pieces:
            yield piece, function(shared, *piece)


class _Workers:
    """Ray actors of one core each. One that dies is started again, and its pieces are done again.

    They end with the private cluster, or else when nobody here knows them any more.
    """

    def __init__(self, num_workers: int) -> None:
        import ray

        self.ray = ray
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(_Worker)
        self.workers = [actor.remote() for _ in range(num_workers)]

    def each(self, function: Callable[..., T], shared: Any, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, T]]:
        held, waiting = [self.ray.put(shared)], deque(pieces)
        running: dict[Any, tuple[Any, Piece]] = {}

        def give(worker: Any) -> None:
            if waiting:
                piece = waiting.popleft()
                running[worker.call.remote(function, held, piece)] = worker, piece

        for worker in self.workers * AHEAD:
            give(worker)
        while running:
            ready, _ = self.ray.wait(list(running), num_returns=1, timeout=TICK_S)
            for answer in ready:
                worker, piece = running.pop(answer)
                result = self._result(answer)
                give(worker)
                yield piece, result

    def _result(self, answer: Any) -> Any:
        try:
            return self.ray.get(answer)
        except self.ray.exceptions.RayActorError as error:
            raise RunError(
                f"a worker died {RETRIES + 1} times over the same piece of work (killed, or out of memory); what is "
                "written stays, the same command goes on where this one was"
            ) from error
        except Exception as error:  # Ray wraps what a worker raised in types of its own
            raise cause(error) from error


class _Worker:
    """A process that stays, with what its pieces share."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.shared: list[Any] = []

    def call(self, function: Callable[..., T], held: list[Any], piece: Piece) -> T:
        import ray

        if held != self.held:
            self.shared, self.held = ray.get(held), held
        return function(*self.shared, *piece)


@contextmanager
def _crew(config: GenerateConfig) -> Iterator[_Crew]:
    """This process, or as many workers as asked for.

    Raises:
        ConfigError: if there are fewer cores than workers.
    """
    if config.num_workers == 0:
        yield _Here()
        return
    with ray_cluster(config.address, threads=1):
        import ray

        num_cores = int(ray.cluster_resources().get("CPU", 0))
        num_workers = num_cores if config.num_workers is None else config.num_workers
        if not 0 < num_workers <= num_cores:
            raise ConfigError(
                f"num_workers={config.num_workers} needs a core each, but there are {num_cores}; use at most "
                f"{num_cores}, or 0 for this process"
            )
        yield _Workers(num_workers)


# What is shown


class _Pieces:
    """Counts pieces of one kind as they are done, and the edges or samples in them."""

    def __init__(self, what: str, num_pieces: int, num_done: int = 0, unit: str | None = None) -> None:
        self.what, self.num_pieces, self.num_before, self.unit = what, num_pieces, num_done, unit
        self.num_done, self.num_units, self.started = num_done, 0, time.monotonic()
        self.progress = Progress(what, num_pieces, num_done, leave=False)

    def ended(self, num_units: int = 0) -> None:
        """A piece is done, and so many edges or samples with it."""
        self.num_done += 1
        self.num_units += num_units
        self.progress.show(self.num_done, self._rate().strip(), f"hgscale: {self._line()}")

    def _rate(self) -> str:
        seconds = time.monotonic() - self.started
        return "" if self.unit is None else f" {self.unit}_per_s={self.num_units / seconds:.3g}"

    def _line(self) -> str:
        left_s = (time.monotonic() - self.started) / (self.num_done - self.num_before)
        left_min = left_s * (self.num_pieces - self.num_done) / 60
        name = self.what.replace(" ", "_")
        return f"generate {name}={self.num_done}/{self.num_pieces}{self._rate()} left_min={left_min:.1f}"

    def __enter__(self) -> "_Pieces":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.close()
