"""Make weighted hypergraphs: `hgscale generate` against vectorised numpy, XGI and HypergraphX; and what a worker adds.

    PYTHONPATH=. python tests/bench/bench_generate.py [--num_edges 4194304] [--num_rounds 5] [--folder DIR]

Against numpy: 3-uniform over a million nodes, Dirichlet(1) weights, in Parquet, the same number of edges and the same
columns on both sides, one core each, side by side in one run. The numpy side draws, sorts within rows, drops rows with
a repeated node, makes them distinct by one integer key each, tops up, weighs and writes; it keeps the whole world in
memory, and writes neither hashes nor a manifest nor alias tables. It comes twice: with `np.unique`, as one writes it,
and with a sort of the keys in its place, which takes less time; ratios are to the faster. Both sides' files are read
back and checked: exact number of edges, nodes ascending and within range, all distinct, weights positive, of sum 1.

Against XGI and HypergraphX, where installed: edges alone, in memory, without weights or files, at a size that they end.

Weak scaling: 1 worker with E edges and 2 workers with 2 E, from the command line, Ray's start included and left out;
peak memory is the sum of the proportional set sizes of the whole process tree.
"""

import argparse
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rounds import CLOCK, alternate, spread

from hgscale.cluster.generate import GenerateConfig, generate
from hgscale.hypergraph.worlds.config import WorldConfig

NUM_NODES = 1_000_000
SIZE = 3
NODE_BITS = 20  # 3 x 20 fit one int64 key
ROW_GROUP = 1 << 20
SMALL_NODES, SMALL_EDGES = 2_000, 20_000
POLL_S = 0.2


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_edges", type=int, default=1 << 22)
    parser.add_argument("--num_rounds", type=int, default=5)
    parser.add_argument("--scaling_edges", type=int, default=1 << 25)
    parser.add_argument("--folder", help="where the files go for a while; a temporary folder if left out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        against_numpy(Path(folder), args.num_edges, args.num_rounds)
        against_libraries(Path(folder), args.num_rounds)
        weak_scaling(Path(folder), args.scaling_edges, args.num_rounds)


def against_numpy(folder: Path, num_edges: int, num_rounds: int) -> None:
    """One core each, the same world law, the same columns."""
    ours, plain = folder / "ours", folder / "plain.parquet"
    sides = {
        "hgscale generate": lambda: make(ours, num_edges, SIZE, NUM_NODES, table=False),
        "hgscale generate, alias tables too": lambda: make(ours, num_edges, SIZE, NUM_NODES, table=True),
        "numpy, np.unique": lambda: numpy_world(plain, num_edges, np.unique),
        "numpy, sorted keys": lambda: numpy_world(plain, num_edges, sorted_distinct),
    }
    seconds = alternate(sides, num_rounds)
    make(ours, num_edges, SIZE, NUM_NODES, table=False)
    check("hgscale", sorted((ours / "edges").glob("*.parquet")), num_edges)
    check("numpy", [plain], num_edges)
    print(f"{num_edges:,} edges of {SIZE} nodes out of {NUM_NODES:,}, Dirichlet(1), to Parquet; {num_rounds} rounds")
    print(f"  {CLOCK}")
    best = seconds[min((name for name in seconds if name.startswith("numpy")), key=lambda name: seconds[name].min())]
    for name, spent in seconds.items():
        ratio = f"x {spread(best / spent)} of numpy"
        print(f"  {name:36} {spread(num_edges / spent / 1e6, ' M edges/s'):34} {ratio}")


def make(folder: Path, num_edges: int, size: int, num_nodes: int, table: bool) -> None:
    """`hgscale generate` in this process."""
    shutil.rmtree(folder, ignore_errors=True)
    world = WorldConfig(
        generator="uniform",
        num_nodes=num_nodes,
        num_edges=num_edges,
        size=size,
        weights="dirichlet",
        dirichlet_alpha=1.0,
    )
    generate(GenerateConfig(world=world, out=str(folder), num_workers=0, table=table))


def numpy_world(path: Path, num_edges: int, distinct: Callable[[np.ndarray], np.ndarray]) -> None:
    """The same with numpy: everything in arrays, no loop over edges."""
    draw = np.random.Generator(np.random.SFC64(0))
    rows = distinct_rows(draw, num_edges, distinct)
    weights = draw.standard_exponential(num_edges)  # Dirichlet(1) is exponentials over their sum
    weights /= weights.sum()
    offsets = np.arange(0, rows.size + 1, SIZE, dtype=np.int32)
    nodes = pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.ravel()))
    table = pa.table({"nodes": nodes, "weight": weights})
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=ROW_GROUP)


def sorted_distinct(keys: np.ndarray) -> np.ndarray:
    """What `np.unique` returns; numpy 2.4 has a hash table for it, which takes many times as long as its sort."""
    keys = np.sort(keys)
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])]


def distinct_rows(
    draw: np.random.Generator, num_edges: int, distinct: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """[num_edges, SIZE] int32: distinct, nodes ascending."""
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < num_edges:
        missing = num_edges - len(keys)
        drawn = draw.integers(0, NUM_NODES, size=(missing + missing // 1000 + 100, SIZE), dtype=np.int32)
        drawn.sort(axis=1)
        drawn = drawn[(drawn[:, 1:] != drawn[:, :-1]).all(axis=1)].astype(np.int64)
        new = (drawn[:, 0] << 2 * NODE_BITS) | (drawn[:, 1] << NODE_BITS) | drawn[:, 2]
        keys = distinct(np.concatenate([keys, new]))
    if len(keys) > num_edges:  # leave out at random: the keys are sorted
        keys = np.delete(keys, draw.choice(len(keys), len(keys) - num_edges, replace=False))
    mask = (1 << NODE_BITS) - 1
    return np.stack([keys >> 2 * NODE_BITS, (keys >> NODE_BITS) & mask, keys & mask], axis=1).astype(np.int32)


def check(side: str, paths: list[Path], num_edges: int) -> None:
    """Refuse files that do not hold what they are to hold."""
    tables = [pq.read_table(path, columns=["nodes", "weight"]) for path in paths]
    rows = np.concatenate([column_of_lists(table) for table in tables]).astype(np.int64)
    weights = np.concatenate([table["weight"].to_numpy() for table in tables])
    assert len(rows) == len(weights) == num_edges, side
    assert (np.diff(rows, axis=1) > 0).all(), side
    assert rows.min() >= 0, side
    assert rows.max() < NUM_NODES, side
    keys = (rows[:, 0] << 2 * NODE_BITS) | (rows[:, 1] << NODE_BITS) | rows[:, 2]
    assert len(np.unique(keys)) == num_edges, side
    assert weights.min() > 0, side
    assert abs(math.fsum(weights) - 1) < 1e-9, side  # E roundings of relative 1e-16, and the total's own


def column_of_lists(table: pa.Table) -> np.ndarray:
    """[r, SIZE] int32."""
    return table["nodes"].combine_chunks().flatten().to_numpy().reshape(-1, SIZE)


def against_libraries(folder: Path, num_rounds: int) -> None:
    """Edges alone on their side; edges, weights, files and hashes on ours."""
    probability = SMALL_EDGES / math.comb(SMALL_NODES, SIZE)
    sides: dict[str, Callable[[], Any]] = {
        "hgscale generate": lambda: make(folder / "small", SMALL_EDGES, SIZE, SMALL_NODES, table=True)
    }
    if importlib.util.find_spec("xgi"):
        import xgi

        sides["XGI uniform_erdos_renyi_hypergraph"] = lambda: xgi.uniform_erdos_renyi_hypergraph(
            SMALL_NODES, SIZE, probability
        )
    else:
        print("XGI is not installed")
    if importlib.util.find_spec("hypergraphx"):
        from hypergraphx.generation.random import random_uniform_hypergraph

        sides["HypergraphX random_uniform_hypergraph"] = lambda: random_uniform_hypergraph(
            SMALL_NODES, SIZE, SMALL_EDGES
        )
    else:
        print("HypergraphX is not installed")
    seconds = alternate(sides, num_rounds)
    print(f"{SMALL_EDGES:,} edges of {SIZE} nodes out of {SMALL_NODES:,}; XGI's number is right on average only")
    for name, spent in seconds.items():
        print(f"  {name:40} {spread(SMALL_EDGES / spent / 1e3, ' k edges/s')}")


def weak_scaling(folder: Path, num_edges: int, num_rounds: int) -> None:
    """Wall time of the command: E edges on 1 worker, 2 E on 2."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    works: dict[int, list[float]] = {1: [], 2: []}
    peaks: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(num_rounds):
        for num_workers in (1, 2) if turn % 2 else (2, 1):
            wall_s, work_s, peak_gib = run_command(folder / "scaling", num_edges * num_workers, num_workers)
            walls[num_workers].append(wall_s)
            works[num_workers].append(work_s)
            peaks[num_workers].append(peak_gib)
    print(f"weak scaling, {num_edges:,} edges per worker; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for num_workers in (1, 2):
        wall, work, peak = (np.array(values[num_workers]) for values in (walls, works, peaks))
        print(
            f"  {num_workers} workers: {spread(wall, ' s')}, without start {spread(work, ' s')}; {spread(peak, ' GiB')}"
        )
    for name, seconds in (("with Ray's start", walls), ("without", works)):
        print(f"  efficiency {name}: {spread(np.array(seconds[1]) / np.array(seconds[2]))}")


def run_command(out: Path, num_edges: int, num_workers: int) -> tuple[float, float, float]:
    """Wall seconds of the command, seconds of it in which shards were made, and peak GiB of its process tree."""
    shutil.rmtree(out, ignore_errors=True)
    config = out.parent / "scaling.yaml"
    world = {
        "generator": "uniform",
        "num_nodes": NUM_NODES,
        "num_edges": num_edges,
        "size": SIZE,
        "weights": "dirichlet",
    }
    config.write_text(yaml.safe_dump({"world": world, "num_workers": num_workers}))
    command = [sys.executable, "-m", "hgscale", "generate", "--config", str(config), "--out", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak = Peak(process.pid)
    output, _ = process.communicate()
    wall_s = time.perf_counter() - started
    assert process.returncode == 0, output
    assert json.loads((out / "manifest.json").read_text())["num_edges"] == num_edges
    return wall_s, work_seconds(output), peak.close()


def work_seconds(output: str) -> float:
    """From the command's last lines: how long the shards took."""
    (line,) = (line for line in output.splitlines() if line.startswith("seconds"))
    return float(line.split()[1].replace(",", ""))


class Peak:
    """The largest sum of proportional set sizes of a process and all below it, looked at several times a second."""

    def __init__(self, pid: int) -> None:
        self.root, self.gib, self.done = psutil.Process(pid), 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.done.wait(POLL_S):
            try:
                tree = [self.root, *self.root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            self.gib = max(self.gib, sum(map(pss_bytes, tree)) / 2**30)

    def close(self) -> float:
        self.done.set()
        self.thread.join()
        return self.gib


def pss_bytes(process: psutil.Process) -> int:
    """0 for a process that has just ended."""
    try:
        return process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


if __name__ == "__main__":
    main()
