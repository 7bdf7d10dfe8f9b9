"""What a study costs besides its training: overhead per small cell, and the time of a dry run and a report.

    python tests/bench/bench_study.py [--cells 1000] [--small_cells 40]

Prints medians. The overhead of a cell is the time from when a warm worker gets it to when its end is written, less its
training steps; the second line divides the whole time between the first and the last end by the cells, less their
training, so that what the scheduler and MLflow take is in it as well.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hgscale import config as configs
from hgscale.study.grid import StudyConfig, cells

BASE: dict[str, Any] = {
    "world": {"generator": "star", "num_nodes": 6},
    "objective": {"masking": "one_mask"},
    "train": {"num_steps": 60, "global_batch": 500, "log_every": 60, "checkpoint_every": 60},
    "model": {"hidden_size": 32, "num_hidden_layers": 1},
    "engine": {"name": "torch"},
}
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--small_cells", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HGSCALE_HOME"] = folder
        overhead(Path(folder), args.small_cells)
        large(Path(folder), args.cells)


def overhead(folder: Path, num_cells: int) -> None:
    """Run a study of cells that last a second."""
    config = write(folder, "small", num_cells)
    run("study", "--config", str(config))
    files = list((folder / "studies/small/cells").glob("*/cell.json"))
    ends = [json.loads(file.read_text()) for file in files]
    assert all(end["overhead_s"] is not None for end in ends), "a cell went on from an earlier try"
    in_worker = statistics.median(end["overhead_s"] for end in ends)
    trained = statistics.mean(end["seconds"] - end["overhead_s"] for end in ends)
    workers = os.cpu_count() or 1
    apart = float(np.ptp([file.stat().st_mtime for file in files])) * workers / (len(ends) - workers)
    print(f"overhead of a small cell, in its worker     {in_worker:6.2f} s")
    print(f"overhead of a small cell, scheduler and all {apart - trained:6.2f} s")


def large(folder: Path, num_cells: int) -> None:
    """Time a dry run and a report of a study whose cells have all finished."""
    path = write(folder, "large", num_cells)
    pretend(configs.load(StudyConfig, path))
    for verb, args in (
        ("study --dry_run", ["study", "--config", str(path), "--dry_run", "true"]),
        ("report", ["report", "--study", "large"]),
    ):
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            out = run(*args)
            times.append(time.perf_counter() - started)
        assert f"{num_cells} " in out.replace(",", "")
        print(f"{verb:16} of {num_cells:,} finished cells        {statistics.median(times):6.2f} s")


def write(folder: Path, name: str, num_cells: int) -> Path:
    seeds = 5
    points = np.unique(np.geomspace(1000, 1e6, num_cells // seeds).astype(int) + np.arange(num_cells // seeds)).tolist()
    path = folder / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({"name": name, "base": BASE, "axes": {"samples.num_samples": points}, "seeds": seeds})
    )
    return path


def pretend(config: StudyConfig) -> None:
    """Write what finished cells leave behind, of errors on top of the floor."""
    grid = cells(config)
    draw = np.random.default_rng(0)
    config.directory.mkdir(parents=True)
    configs.save(config, config.directory / "study.yaml")
    (config.directory / "grid.jsonl").write_text("".join(json.dumps(cell.line()) + "\n" for cell in grid))
    for cell in grid:
        folder = config.directory / "cells" / cell.fingerprint
        folder.mkdir(parents=True)
        num_samples = cell.task.samples.num_samples
        floor = num_samples**-0.5
        error = float(floor * draw.lognormal(0.05, 0.1))
        summary = {
            "recovery_l1": error, "count_l1": floor, "count_floor_l1": floor, "ratio_to_floor": error / floor,
            "ratio_to_count": error / floor, "num_samples": num_samples, "num_edges": 5, "num_nodes": 6,
            "half_norm": 5.0, "num_steps": 60, "seconds": 1.0, "train_s": 0.8, "world_digest": "0" * 32,
            "fingerprint": cell.fingerprint,
        }  # fmt: skip
        end = {
            "cell": cell.fingerprint, "status": "FINISHED", "error": None, "attempts": 1, "seconds": 1.0,
            "overhead_s": 0.2, "commit": None, "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "cell.json").write_text(json.dumps(end))


def run(*args: str) -> str:
    command = [sys.executable, "-m", "hgscale", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
