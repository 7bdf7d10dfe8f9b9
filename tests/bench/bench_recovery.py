"""Recovery against the floor and against counting: five worlds or seeds, mean and 95% interval, core-minutes.

    python tests/bench/bench_recovery.py SUITE [--data FOLDER] [--runs 5] [--field value ...]

Suites: paper-10, paper-20, paper-50, paper-100 (ratio to floor; one published world per run), uniform3 (ratio to count;
a world and its samples per seed), contact-high-school and ndc-classes (ratio to count; samples per seed). Every run is
the verb ``pretrain`` with the shipped config, in this process with the torch engine, so that its CPU time is its own.
``--data`` is the folder of the published worlds and real hypergraphs. Further options override the config.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

import hgscale
from hgscale import config as configs

ROOT = Path(__file__).resolve().parents[2]
PRETRAIN = ROOT / "configs" / "pretrain"


def arguments_of(suite: str, data: Path, run: int) -> list[str]:
    """The command line of one run of a suite."""
    if suite.startswith("paper-"):
        world = data / "paper-worlds" / f"WCGNM_n{suite.removeprefix('paper-')}_p0.2_k3_{run}.csv"
        return [f"--config={PRETRAIN / 'paper.yaml'}", f"--world.path={world}", *seeds(run)]
    if suite == "uniform3":
        return [f"--config={PRETRAIN / 'uniform3.yaml'}", f"--world.seed={run}", *seeds(run)]
    name = {"contact-high-school": "contact-high-school", "ndc-classes": "NDC-classes"}[suite]
    return [f"--config={PRETRAIN / 'simplex.yaml'}", f"--world.path={data / 'benson' / name}", *seeds(run)]


def seeds(run: int) -> list[str]:
    return [f"--{section}.seed={run}" for section in ("samples", "objective", "train")]


def interval(values: list[float]) -> str:
    """Mean and 95% interval by Student's t."""
    mean, half = np.mean(values), 0.0
    if len(values) > 1:
        half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--runs", type=int, default=5)
    options, overrides = parser.parse_known_args()
    columns = ("recovery_l1", "count_l1", "count_floor_l1", "off_support_mass", "ratio_to_floor", "ratio_to_count")
    print(f"{'run':>3} {'minutes':>8} " + " ".join(f"{name:>16}" for name in columns), flush=True)
    rows = []
    for run in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            fixed = ["--cluster.launcher=none", "--engine.name=torch", "--tracking.enabled=false"]
            args = [*arguments_of(options.suite, options.data, run), *fixed, f"--run_dir={folder}/run", *overrides]
            config = configs.parse(hgscale.PretrainConfig, args)
            started = time.process_time()
            summary = hgscale.pretrain(config).summary
            minutes = (time.process_time() - started) / 60
        rows.append(summary | {"minutes": minutes})
        print(f"{run:>3} {minutes:8.2f} " + " ".join(f"{summary[name]:16.4f}" for name in columns), flush=True)
    print(f"\n{options.suite}: mean and 95% interval over {len(rows)} runs")
    for name in ("ratio_to_floor", "ratio_to_count", "minutes"):
        print(f"  {name:<16} {interval([row[name] for row in rows])}")


if __name__ == "__main__":
    main()
