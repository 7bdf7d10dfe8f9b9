"""The weight decays of ``configs/study/real.yaml``: chosen on a held-out tenth of the samples, without the truth.

    python tests/bench/choose_decay.py --data FOLDER [--world mail] [--world contacts] [--world drugs] [--seed 0]

For every number of samples N up to some times the edges, the model of the study is trained on the first nine tenths of
the samples, once for each decay. The study's number is l1, so the choice is made in l1: the minimum distance estimate
of Yatracos (1985; Devroye and Lugosi 2001, chapter 6). For two models, A is the set of what the first gives more mass
to than the second; a model is judged by how far its mass of any such A is from the share of the held-out tenth that
falls into A, at worst. Sets that the nine tenths do not hold count together as one outcome. The log-likelihood of the
held-out tenth, which asks for stronger decay, and l1 against the truth are shown and have no say.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from hgscale import config as configs
from hgscale.hypergraph import bounds
from hgscale.hypergraph.recovery import l1_error, read_out
from hgscale.hypergraph.sampling import EdgeSampler
from hgscale.models.build import ModelConditionals, load_model
from hgscale.study.grid import StudyConfig, cells
from hgscale.train.pretrain import train_worker
from hgscale.train.task import PretrainTask

ROOT = Path(__file__).resolve().parents[2]
DECAYS = (5.0, 2.0, 0.5, 0.2, 0.05)
MOST_SAMPLES_PER_EDGE = 5  # above it the decay hardly matters: the study takes 0.05 and 0.01


@dataclass(frozen=True)
class Judged:
    """What a model trained on nine tenths gives to the outcomes, and how it does.

    Attributes:
        law: [S + 1] probability of each node set among the nine tenths, and of all others together.
        log_likelihood: mean over the held-out tenth, nats.
        ratio: l1 against the truth over that of counting the nine tenths.
    """

    law: np.ndarray
    log_likelihood: float
    ratio: float


def judged(task: PretrainTask, decay: float) -> Judged:
    """Train on the first nine tenths of the samples with a decay."""
    kept, held_out = split(task)
    world = task.target_world
    shorter = replace(
        task,
        samples=replace(task.samples, num_samples=len(kept)),
        train=replace(task.train, global_batch=min(task.train.global_batch, len(kept))),
        engine=replace(task.engine, weight_decay=decay),
    )
    with tempfile.TemporaryDirectory() as folder:
        train_worker(shorter, Path(folder), figure=False)
        model = ModelConditionals(load_model(Path(folder) / "model"))
    recovered = read_out(model, world, replace(task.readout, max_candidates=0), task.train.seed).recovered
    assert recovered is not None
    p = recovered.on_support
    on_seen = p[np.unique(kept)]
    counting = bounds.count_l1(world.weights, np.bincount(kept, minlength=world.num_edges))
    return Judged(
        law=np.append(on_seen, 1 - on_seen.sum()),
        log_likelihood=float(np.log(p[held_out]).mean()),
        ratio=l1_error(world.weights, p) / counting,
    )


def split(task: PretrainTask) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the first nine tenths of the samples, and of the last tenth."""
    num_samples = task.samples.num_samples
    assert num_samples is not None
    edges = EdgeSampler(task.target_world, task.samples.seed).draw(np.arange(num_samples))
    return edges[: -(num_samples // 10)], edges[-(num_samples // 10) :]


def minimum_distances(laws: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How far each law is from what was observed, over the sets by which any two laws differ.

    laws [m o] and observed shares [o] of the outcomes -> [m].
    """
    sets = laws[:, None, :] > laws[None, :, :]
    return np.abs(sets @ laws.T - (sets @ shares)[..., None]).max(axis=(0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--world", choices=("mail", "contacts", "drugs"), action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    study = configs.load(StudyConfig, ROOT / "configs" / "study" / "real.yaml")
    study = replace(study, data_dir=str(options.data), seeds=options.seed + 1)
    print(f"{'world':>9} {'N':>7} {'decay':>6} {'distance':>9} {'held-out nats':>14} {'l1 / counting':>14}", flush=True)
    for cell in cells(study):
        num_samples = cell.task.samples.num_samples or 0
        chosen = cell.variant in (options.world or ("mail", "contacts", "drugs")) and cell.seed == options.seed
        if not chosen or num_samples > MOST_SAMPLES_PER_EDGE * cell.task.target_world.num_edges:
            continue
        found = [judged(cell.task, decay) for decay in DECAYS]
        kept, held_out = split(cell.task)
        seen = np.unique(kept)
        place = np.where(np.isin(held_out, seen), np.searchsorted(seen, held_out), len(seen))
        shares = np.bincount(place, minlength=len(seen) + 1) / len(held_out)
        distances = minimum_distances(np.array([one.law for one in found]), shares)
        for decay, distance, one in zip(DECAYS, distances, found, strict=True):
            mark = "  <- chosen" if distance == distances.min() else ""
            numbers = f"{decay:>6g} {distance:>9.4f} {one.log_likelihood:>14.4f} {one.ratio:>14.3f}"
            print(f"{cell.variant:>9} {num_samples:>7} {numbers}{mark}", flush=True)


if __name__ == "__main__":
    main()
