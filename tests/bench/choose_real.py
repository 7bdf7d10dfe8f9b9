"""Weight decays and the least count of lists in ``configs/study/real.yaml``: by ten folds, without the truth.

    python tests/bench/choose_real.py --data FOLDER [--seed 0] [--processes 2]

For every number of samples N up to the number of edges, the model of the study is trained on nine tenths of the samples
of one seed, once for each decay and each tenth that is left out, and cut to a list at each least count. The study's
number is l1, so the choice is made in l1: the minimum distance estimate of Yatracos (1985; Devroye and Lugosi 2001,
chapter 6). For two lists, A is the set of what the first gives more mass to than the second; a list is judged by how
far its mass of any such A is from the share of the left-out tenth that falls into A, at worst, in the mean over the
tenths. Sets that the nine tenths do not hold count together as one outcome. The least count is one for all: that of the
least distance in the mean over worlds and N, each with the decay that suits it best; then each N takes its decay.
l1 against the truth is shown and has no say.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from hgscale import config as configs
from hgscale.hypergraph import bounds
from hgscale.hypergraph.recovery.readout import cut_of, l1_error, read_out
from hgscale.hypergraph.structure import EdgeSampler, Hypergraph
from hgscale.models.build import ModelConditionals, load_model
from hgscale.pretrain.shares import PretrainShares
from hgscale.pretrain.task import PretrainTask
from hgscale.pretrain.work import train_worker
from hgscale.study.grid import Cell, StudyConfig, cells
from hgscale.train.shares import Share, in_process

ROOT = Path(__file__).resolve().parents[2]
WORLDS = ("mail", "contacts", "drugs")
DECAYS = (5.0, 2.0, 1.0, 0.5, 0.2)
MIN_COUNTS = (0.02, 0.05, 0.1, 0.2, 0.5)
NUM_FOLDS = 10


class Chosen(EdgeSampler):
    """Some of the samples of a seed, numbered anew from 0."""

    def __init__(self, world: Hypergraph, seed: int, ids: np.ndarray) -> None:
        super().__init__(world, seed)
        self._ids = ids

    def draw(self, ids: np.ndarray) -> np.ndarray:
        return super().draw(self._ids[ids])

    def shuffled(self, ids: np.ndarray, edges: np.ndarray, size: int) -> np.ndarray:
        return super().shuffled(self._ids[ids], edges, size)


def trained(task: PretrainTask, decay: float, sampler: Chosen, num_samples: int) -> ModelConditionals:
    """The model of the study, trained on so many chosen samples with a decay."""
    shorter = replace(
        task,
        samples=replace(task.samples, num_samples=num_samples),
        train=replace(task.train, global_batch=min(task.train.global_batch, num_samples)),
        engine=replace(task.engine, weight_decay=decay),
    )

    def source(shares: PretrainShares, start_step: int) -> Generator[Share, None, None]:
        vars(shares)["sampler"] = sampler  # in place of the first samples, the chosen ones
        return in_process(shares, start_step)

    with tempfile.TemporaryDirectory() as folder:
        train_worker(shorter, Path(folder), figure=False, source=source)
        return ModelConditionals(load_model(Path(folder) / "model"))


def minimum_distances(laws: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How far each law is from what was observed, over the sets by which any two laws differ.

    laws [m o] and observed shares [o] of the outcomes -> [m].
    """
    sets = laws[:, None, :] > laws[None, :, :]
    return np.abs(sets @ laws.T - (sets @ shares)[..., None]).max(axis=(0, 1))


def judged(task: PretrainTask, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Leave a tenth out: the distance of each list, and its l1 over that of counting the rest; both [decays counts]."""
    world, num_samples = task.target_world, task.samples.num_samples
    assert isinstance(world, Hypergraph)
    assert num_samples is not None
    left_out = np.arange(num_samples) % NUM_FOLDS == fold
    kept = np.flatnonzero(~left_out)
    sampler = Chosen(world, task.samples.seed, kept)
    edges = sampler.draw(np.arange(len(kept)))
    others = EdgeSampler(world, task.samples.seed).draw(np.flatnonzero(left_out))
    seen = np.unique(edges)
    place = np.where(np.isin(others, seen), np.minimum(np.searchsorted(seen, others), len(seen) - 1), len(seen))
    counting = bounds.count_l1(world.weights, np.bincount(edges, minlength=world.num_edges))
    readout = replace(task.readout, min_count=MIN_COUNTS[0])
    laws, ratios = [], []
    for decay in DECAYS:
        model = trained(task, decay, sampler, len(kept))
        law = read_out(model, world, readout, task.train.seed, num_samples=len(kept)).law
        assert law is not None
        for min_count in MIN_COUNTS:
            listed = cut_of(law, min_count / len(kept)).weights(law.on_support)
            laws.append(np.append(listed[seen], 1 - listed[seen].sum()))
            ratios.append(l1_error(world.weights, listed) / counting)
    shares = np.bincount(place, minlength=len(seen) + 1) / len(others)
    shape = (len(DECAYS), len(MIN_COUNTS))
    return minimum_distances(np.array(laws), shares).reshape(shape), np.reshape(ratios, shape)


def judged_cell(job: tuple[Cell, int]) -> tuple[np.ndarray, np.ndarray]:
    cell, fold = job
    assert isinstance(cell.task, PretrainTask)
    return judged(cell.task, fold)


def is_asked(cell: Cell, seed: int) -> bool:
    task = cell.task
    assert isinstance(task, PretrainTask)
    assert task.samples.num_samples is not None
    few = task.samples.num_samples <= task.target_world.num_edges
    return few and cell.variant in WORLDS and cell.seed == seed


def show(asked: list[Cell], found: np.ndarray) -> None:
    """found [cells folds 2 decays counts]: print the means over the folds, and what is chosen."""
    distances, ratios = found.mean(axis=1).transpose(1, 0, 2, 3)
    count = int(distances.min(axis=1).mean(axis=0).argmin())
    print(f"{'world':>9} {'N':>6} {'decay':>6}   " + "".join(f"  {m:>6g} samples" for m in MIN_COUNTS))
    for cell, of_cell, ratio in zip(asked, distances, ratios, strict=True):
        for row, decay in enumerate(DECAYS):
            numbers = "".join(f"  {d:.4f} ({r:.3f})" for d, r in zip(of_cell[row], ratio[row], strict=True))
            mark = "  <- chosen" if row == of_cell[:, count].argmin() else ""
            print(f"{cell.variant:>9} {cell.axes['samples.num_samples']:>6} {decay:>6g}   {numbers}{mark}")
    means = "".join(f"  {d:.4f}        " for d in distances.min(axis=1).mean(axis=0))
    print(f"{'mean distance, best decays':>24} {means}\nchosen: min_count {MIN_COUNTS[count]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    study = configs.load(StudyConfig, ROOT / "configs" / "study" / "real.yaml")
    study = replace(study, data_dir=str(options.data), seeds=options.seed + 1)
    asked = [cell for cell in cells(study) if is_asked(cell, options.seed)]
    jobs = [(cell, fold) for cell in asked for fold in range(NUM_FOLDS)]
    found = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for number, one in enumerate(pool.imap(judged_cell, jobs), 1):
            found.append(one)
            print(f"{number} of {len(jobs)}", end="\r", flush=True)
    show(asked, np.reshape(np.array(found), (len(asked), NUM_FOLDS, 2, len(DECAYS), len(MIN_COUNTS))))


if __name__ == "__main__":
    main()
