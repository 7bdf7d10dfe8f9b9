"""A generator, a law of weights, a read-out and an estimator of a user, through one pre-training."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hgscale.config import save, with_fields
from hgscale.errors import ConfigError
from hgscale.hypergraph.recovery.readout import ReadoutConfig
from hgscale.pretrain.recover import RecoverConfig, recover
from hgscale.pretrain.task import PretrainTask
from hgscale.pretrain.work import train_worker

SOURCE = """
import itertools
import numpy as np

def ring(num_nodes): return [(i, (i + 1) % num_nodes) for i in range(num_nodes)]
def ends(edges, heavy): return [heavy if 0 in edge else 1 for edge in edges]

def product(conditionals):
    n = conditionals.num_nodes
    p = np.exp(conditionals.log_probs(np.arange(n)[:, None], 1))
    pairs = list(itertools.combinations(range(n), 2))
    weights = np.array([p[u, v] * p[v, u] for u, v in pairs])
    return pairs, weights / weights.sum()

def even(edges, counts):
    seen = set(edges)
    return lambda sets: [1 / len(seen) if s in seen else 0 for s in sets]

def bad(conditionals): return [(0, 1)], [0.5]
def worse(edges, counts): return lambda sets: [1.0 for s in sets]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainTask:
    """A task whose every part that may be a user's is one."""
    (tmp_path / "their_parts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_parts", raising=False)
    fields: dict[str, Any] = {
        "world.generator": "their_parts:ring",
        "world.weights": "their_parts:ends",
        "world.config": {"heavy": 4},
        "world.num_nodes": 5,
        "readout.method": "their_parts:product",
        "estimators": ["their_parts:even"],
        "objective.masking": "one_mask",
        "samples.num_samples": 500,
        "train.num_steps": 20,
        "train.global_batch": 100,
        "model.hidden_size": 16,
        "model.num_hidden_layers": 1,
        "engine.name": "torch",
    }
    return with_fields(PretrainTask(), fields)


def test_a_run_is_made_of_a_users_parts_and_is_read_out_again(own: PretrainTask, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    own.check(1)
    save(own, run_dir / "config.yaml")
    train_worker(own, run_dir, figure=False)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["readout"], summary["num_edges"], summary["kappa"]) == ("product", 5, pytest.approx(4))
    truth = np.array([4, 4, 1, 1, 1]) / 11
    assert summary["even_l1"] == pytest.approx(np.abs(truth - 0.2).sum())
    again = recover(RecoverConfig(run_dir=str(run_dir), readout=ReadoutConfig(method="their_parts:product"))).summary
    assert (again["recovery_l1"], again["even_l1"]) == (summary["recovery_l1"], summary["even_l1"])
    other = recover(RecoverConfig(run_dir=str(run_dir))).summary
    assert (other["readout"], other["even_l1"]) == ("stationary", summary["even_l1"])


def test_what_a_user_made_wrong_is_refused_before_the_training(own: PretrainTask) -> None:
    for fields, complaint in (
        ({"readout.method": "their_parts:bad"}, "sum to 0.5, not 1; my_readout"),
        ({"estimators": ["their_parts:worse"]}, "a law that sums to 6 over all node sets"),
        ({"estimators": ["their_parts:absent"]}, "their_parts has no absent"),
        ({"world.config": {}}, "their_parts:ends needs heavy; give world.config.heavy"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            with_fields(own, fields).check_task()


def test_what_a_users_files_say_decides_the_fingerprint(own: PretrainTask, tmp_path: Path) -> None:
    before = own.fingerprint()
    assert before != with_fields(own, {"estimators": []}).fingerprint()
    assert before != with_fields(own, {"world.config": {"heavy": 5}}).fingerprint()
    (tmp_path / "their_parts.py").write_text(SOURCE + "# changed")
    assert own.fingerprint() != before
