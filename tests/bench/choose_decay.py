"""The weight decays of ``configs/study/real.yaml``: chosen on a held-out tenth of the samples, without the truth.

    python tests/bench/choose_decay.py --data FOLDER [--world mail|contacts|drugs] [--seed 0]

For every number of samples N of a world, the model of the study is trained on the first nine tenths of the samples,
once for each decay, and read out at the node sets of the last tenth. The decay with the highest mean log-likelihood
of these is what the study uses. The last column, the error against the truth, is shown and has no say.
"""

import argparse
import os
import tempfile
from dataclasses import replace
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
DECAYS = (5.0, 2.0, 0.5, 0.2, 0.05, 0.01)


def held_out_score(task: PretrainTask, decay: float) -> tuple[float, float]:
    """Mean log-likelihood of the last tenth of the samples, nats, and l1 against the truth over that of counting."""
    num_samples = task.samples.num_samples
    assert num_samples is not None
    num_kept = num_samples - max(1, num_samples // 10)
    world, sampler = task.target_world, EdgeSampler(task.target_world, task.samples.seed)
    shorter = replace(
        task,
        samples=replace(task.samples, num_samples=num_kept),
        train=replace(task.train, global_batch=min(task.train.global_batch, num_kept)),
        engine=replace(task.engine, weight_decay=decay),
    )
    with tempfile.TemporaryDirectory() as folder:
        train_worker(shorter, Path(folder), figure=False)
        model = ModelConditionals(load_model(Path(folder) / "model"))
    result = read_out(model, world, replace(task.readout, max_candidates=0), task.train.seed)
    assert result.recovered is not None
    on_support = result.recovered.on_support
    held_out = sampler.draw(np.arange(num_kept, num_samples))
    counted = bounds.count_l1(world.weights, sampler.counts(np.arange(num_kept)))
    return float(np.log(on_support[held_out]).mean()), l1_error(world.weights, on_support) / counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--world", choices=("mail", "contacts", "drugs"), action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    study = configs.load(StudyConfig, ROOT / "configs" / "study" / "real.yaml")
    study = replace(study, data_dir=str(options.data), seeds=options.seed + 1)
    print(f"{'world':>9} {'N':>7} {'decay':>6} {'held-out nats':>14} {'l1 / counting':>14}", flush=True)
    for cell in cells(study):
        if cell.seed != options.seed or cell.variant not in (options.world or ("mail", "contacts", "drugs")):
            continue
        scores, where = {}, f"{cell.variant:>9} {cell.task.samples.num_samples:>7}"
        for decay in DECAYS:
            scores[decay], ratio = held_out_score(cell.task, decay)
            print(f"{where} {decay:>6g} {scores[decay]:>14.4f} {ratio:>14.3f}", flush=True)
        print(f"{where} best: {max(scores, key=scores.__getitem__):g}", flush=True)


if __name__ == "__main__":
    main()
