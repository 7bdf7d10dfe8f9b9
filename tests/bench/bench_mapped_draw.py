"""Draw edges by weight and gather their nodes from shards mapped from disk, beside SciPy's alias urn in memory.

    PYTHONPATH=. python tests/bench/bench_mapped_draw.py [--num_edges 10000000] [--dir DIR] [--num_rounds 9]

Both sides draw from the same world of 3-node edges with exponential weights (a Dirichlet law): ours from the records of
its shards, in two levels, a pure function of (seed, id); SciPy's DiscreteAliasUrn over all weights at once and numpy's
take from all rows, both in memory, while they fit (--most_in_memory; 1e8 edges take 8 GiB). The records are written in
a folder of their own and removed afterwards; edges are random numbers, as only where they lie matters. Ours is held to
its law: chi-square of the counts of groups of edges against their weights.

Pages of the files are read before the first round: what is measured is memory, not the disk. A file larger than memory
is drawn from at the speed of its disk, at one read a sample.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rounds import CLOCK, alternate, spread
from scipy.stats import chisquare
from scipy.stats.sampling import DiscreteAliasUrn

from hgscale.data.disk.manifest import FORMAT, FileEntry, Manifest, ShardEntry, digest_of, write_file, write_manifest
from hgscale.data.disk.mapped import ShardedWorld, open_shards, table_bytes
from hgscale.hypergraph.worlds.parts import SHARD_EDGES

SIZE = 3
NUM_NODES = 1_000_000
CALLS = {"a million a call": 1 << 20, "4,096 a call": 1 << 12}
NUM_DRAWS = 1 << 20  # of one round
NUM_GROUPS = 4096  # of edges, for chi-square
ALARM = 1e-4  # smallest p that passes


def make(folder: Path, num_edges: int) -> ShardedWorld:
    """A world of shards with tables and without Parquet, as fast as it can be written."""
    generator = np.random.Generator(np.random.SFC64(0))
    shards: list[ShardEntry] = []
    (folder / "edges").mkdir()
    for number, lo in enumerate(range(0, num_edges, SHARD_EDGES)):
        count = min(SHARD_EDGES, num_edges - lo)
        weights = generator.standard_exponential(count) / num_edges
        rows = generator.integers(0, NUM_NODES, (count, SIZE), dtype=np.int32)
        table = write_file(folder, f"table/{number:05d}.npy", table_bytes(rows, weights))
        stub = vars(write_file(folder, f"edges/{number:05d}.parquet", b"no Parquet here"))
        limits = {"mass": float(weights.sum()), "min_weight": weights.min(), "max_weight": weights.max()}
        shards.append(ShardEntry(**stub, size=SIZE, num_edges=count, **limits, table=table))
    manifest = Manifest(
        format=FORMAT,
        identity="bench",
        world={},
        num_nodes=NUM_NODES,
        num_edges=num_edges,
        sizes={},
        total=1.0,
        shards=tuple(shards),
        digest=digest_of(NUM_NODES, tuple(shards)),
        labels=None,
        card=FileEntry(file="README.md", num_bytes=0, sha256="", ends=""),
        samples_seed=None,
        samples=(),
        versions={},
    )
    write_manifest(manifest, folder)
    return open_shards(folder)


def contenders(world: ShardedWorld, most_in_memory: int) -> dict[str, Callable[[], object]]:
    """Each draws NUM_DRAWS edges by weight, in calls of some length; all but the draw alone gather their nodes."""
    sampler, turn = world.sampler(0), iter(range(10**9))

    def ours(draw: Callable[[np.ndarray], object], length: int) -> Callable[[], object]:
        def call() -> None:
            first = next(turn) * NUM_DRAWS  # never the same samples: their memory would be near
            for lo in range(first, first + NUM_DRAWS, length):
                draw(np.arange(lo, lo + length))

        return call

    sides = {
        f"hgscale draw_nodes, {name}": ours(lambda ids: sampler.draw_nodes(ids, SIZE), length)
        for name, length in CALLS.items()
    }
    sides |= {f"hgscale draw, {name}": ours(sampler.draw, length) for name, length in CALLS.items()}
    if world.num_edges <= most_in_memory:
        weights = np.concatenate(list(world.weight_chunks()))
        rows = world.rows(np.arange(world.num_edges)).nodes.reshape(-1, SIZE)
        urn = DiscreteAliasUrn(weights, random_state=np.random.Generator(np.random.SFC64(0)))

        def scipys(length: int) -> Callable[[], object]:
            return lambda: [rows.take(urn.rvs(length), axis=0) for _ in range(NUM_DRAWS // length)]

        sides |= {f"scipy urn, take, {name}": scipys(length) for name, length in CALLS.items()}
    return sides


def fit_p(world: ShardedWorld, num_draws: int) -> float:
    """p of how often groups of edges are drawn, against their weights."""
    width = -(-world.num_edges // NUM_GROUPS)
    weights = np.concatenate(list(world.weight_chunks()))
    mass = np.add.reduceat(weights, np.arange(0, world.num_edges, width))
    drawn = world.sampler(1).draw(np.arange(num_draws)) // width
    counts = np.bincount(drawn, minlength=len(mass))
    return float(chisquare(counts, mass * (num_draws / mass.sum())).pvalue)


def main() -> None:
    """Make, check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num_edges", "--edges", type=float, default=1e7)
    parser.add_argument("--num_rounds", type=int, default=9)
    parser.add_argument("--most_in_memory", type=float, default=1e8)
    parser.add_argument("--dir", type=Path, help="where the files go for a while; by default the temporary folder")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mapped-draw-", dir=args.dir))
    try:
        started = time.monotonic()
        world = make(folder, int(args.num_edges))
        num_bytes = sum(table.nbytes for table in world.tables)
        print(f"{world.num_edges:,} edges of {SIZE} nodes in {len(world.tables)} shards, {num_bytes / 2**30:.2f} GiB")
        print(f"records written in {time.monotonic() - started:.0f} s; clock: {CLOCK}")
        p = fit_p(world, 1 << 24)
        print(f"chi-square of counts by weight: p = {p:.3f}")
        assert p > ALARM, "not the law that was asked for"
        seconds = alternate(contenders(world, int(args.most_in_memory)), args.num_rounds)
        print(f"{'median [quartiles] of ' + str(args.num_rounds) + ' rounds':<40} {'million samples/s':>22}")
        for name, spent in seconds.items():
            print(f"{name:<40} {spread(NUM_DRAWS / spent / 1e6):>22}")
        for name in CALLS:
            if f"scipy urn, take, {name}" in seconds:
                ratios = seconds[f"scipy urn, take, {name}"] / seconds[f"hgscale draw_nodes, {name}"]
                print(f"ours is {spread(ratios)} times SciPy, {name}")
        print("wanted from 1e8 edges: 3 million/s, aimed at: 8")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
