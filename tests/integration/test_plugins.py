"""A package outside the tree supplies model, generator, law of weights and read-out; nothing of ours is edited."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

OURS = """
'''A colleague's package: it imports torch and numpy, and of hgscale nothing.'''
import numpy as np
import torch
from torch import nn


class Bag(nn.Module):
    '''Which node is hidden, by the sum of the embeddings of those that are seen.'''

    def __init__(self, num_nodes, sizes, hidden_size=16, scale=0.1):
        super().__init__()
        self.seen = nn.Embedding(num_nodes + 1, hidden_size)
        self.hidden = nn.Embedding(max(sizes) + 1, hidden_size)
        self.inner = nn.Linear(hidden_size, 4 * hidden_size)
        self.out = nn.Linear(4 * hidden_size, num_nodes)
        nn.init.normal_(self.seen.weight, std=scale)

    def forward(self, visible, num_masked):
        bag = (self.seen(visible.clamp(min=0)) * (visible >= 0).unsqueeze(-1)).sum(1)
        return self.out(torch.relu(self.inner(bag + self.hidden(num_masked))))


def ring(num_nodes, step=1):
    '''Each node with the one ``step`` further on.'''
    return [(i, (i + step) % num_nodes) for i in range(num_nodes)]


def rising(edges, seed):
    '''Weights 1, 2, 3, ...'''
    return np.arange(1.0, len(edges) + 1)


def by_pairs(conditionals):
    '''p(u, v) = p(u) p(v | u), the two ways averaged.'''
    n = conditionals.num_nodes
    first = np.exp(conditionals.log_probs(np.empty((1, 0), dtype=np.int64), 2))[0]
    second = np.exp(conditionals.log_probs(np.arange(n)[:, None], 1))
    joint = first[:, None] * second
    pairs = [(u, v) for u in range(n) for v in range(u + 1, n)]
    weights = np.array([joint[u, v] + joint[v, u] for u, v in pairs])
    return pairs, weights / weights.sum()


def small_only(conditionals):
    if conditionals.num_nodes > 6:
        raise KeyError("beyond six")
    return by_pairs(conditionals)


def shrunk(edges, counts):
    found = dict(zip(edges, counts / (counts.sum() + 1)))
    law = lambda asked: [found.get(edge, 0) for edge in asked]
    law.unassigned = 1 / (counts.sum() + 1)
    return law


class Wrong(nn.Module):
    def __init__(self, num_nodes, sizes):
        super().__init__()
        self.out = nn.Linear(1, num_nodes + 1)

    def forward(self, visible, num_masked):
        return self.out(num_masked[:, None].float())


def half(conditionals):
    return [(0, 1)], [0.5]


def no_edges(num_nodes):
    return [(0, 0)]
"""

TASK = {
    "world": {
        "generator": "theirs.things:ring",
        "weights": "theirs.things:rising",
        "num_nodes": 8,
        "config": {"step": 3},
    },
    "samples": {"num_samples": 4000},
    "model": {"name": "theirs.things:Bag", "hidden_size": 24, "config": {"scale": 0.2}},
    "train": {"num_steps": 150, "global_batch": 1000, "learning_rate": 0.02},
    "readout": {"method": "theirs.things:by_pairs"},
    "estimators": ["theirs.things:shrunk"],
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which ``theirs`` can be imported."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "theirs").mkdir()
    (folder / "theirs" / "__init__.py").touch()
    (folder / "theirs" / "things.py").write_text(OURS)
    return folder


def hgscale(outside: Path, folder: Path, *args: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose working directory is not where the package lies."""
    path = os.pathsep.join([str(outside), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "HGSCALE_HOME": str(home)}
    command = [sys.executable, "-m", "hgscale", *args]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_pre_training_on_two_ray_workers_takes_all_of_them(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**TASK, "cluster": {"num_workers": 2}}))
    args = ("pretrain", "--config", "own.yaml", "--run_dir", "run")
    done = hgscale(outside, tmp_path, *args, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["num_workers"] == 2
    assert summary["num_edges"] == 8
    assert summary["readout"] == "by_pairs"
    # 4,000 samples of 8 edges: counting errs by 0.04; a model that learnt nothing by more than 1.
    assert summary["recovery_l1"] < 0.15
    assert summary["shrunk_l1"] == pytest.approx(summary["count_l1"], abs=0.01)
    again = hgscale(
        outside, tmp_path, "recover", "--run_dir", "run", "--readout.method", "chain", home=tmp_path / "home"
    )
    assert again.returncode == 0, again.stderr


def test_a_study_on_two_workers_takes_all_of_them(outside: Path, tmp_path: Path) -> None:
    study = {
        "name": "own",
        "base": {**TASK, "train": {**TASK["train"], "num_steps": 40}},
        "axes": {"samples.num_samples": [1000, 4000]},
        "seeds": 2,
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    done = hgscale(outside, tmp_path, "study", "--config", "own.yaml", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "4 of 4 cells finished" in done.stdout
    assert "shrunk l1" in (tmp_path / "home" / "studies" / "own" / "report" / "table.md").read_text()


def test_a_read_out_that_fails_after_the_training_is_one_line_and_the_model_is_kept(
    outside: Path, tmp_path: Path
) -> None:
    here = {"cluster": {"launcher": "none"}, "engine": {"name": "torch"}, "train": {**TASK["train"], "num_steps": 5}}
    tree = {**TASK, **here, "readout": {"method": "theirs.things:small_only"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree))
    done = hgscale(outside, tmp_path, "pretrain", "--config", "own.yaml", "--run_dir", "run", home=tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "hgscale: readout.method=theirs.things:small_only fails (KeyError: 'beyond six'), though it passed its trial"
    )
    assert "Traceback" not in done.stderr
    again = hgscale(
        outside, tmp_path, "recover", "--run_dir", "run", "--readout.method", "chain", home=tmp_path / "home"
    )
    assert again.returncode == 0, again.stderr


def test_a_changed_plug_in_is_another_run(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "things.py").write_text(OURS)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TASK))
    code = "from hgscale import config, PretrainConfig; print(config.load(PretrainConfig, 'own.yaml').fingerprint())"

    def fingerprint() -> str:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    before = fingerprint()
    assert fingerprint() == before
    (tmp_path / "theirs" / "things.py").write_text(OURS + "\n# another\n")
    assert fingerprint() != before


WRONG = {
    "a package that is not there": ({"model.name": "nowhere.things:Bag"}, "nowhere.things cannot be imported"),
    "a name that is not there": ({"model.name": "theirs.things:Bug"}, "did you mean theirs.things:Bag"),
    "a model of another width": (
        {"model.name": "theirs.things:Wrong", "model.hidden_size": 128, "model.config": {}},
        "forward",
    ),
    "an argument that a model has not": ({"model.config": {"scall": 0.2}}, "scall"),
    "a generator of no edges": ({"world.generator": "theirs.things:no_edges", "world.config": {}}, "gave no edges"),
    "a read-out that does not sum to 1": ({"readout.method": "theirs.things:half"}, "theirs.things:half"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_follows_no_protocol_is_one_line_before_anything_starts(name: str, outside: Path, tmp_path: Path) -> None:
    changes, said = WRONG[name]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TASK))
    options = [
        f"--{field}={json.dumps(value) if isinstance(value, dict) else value}" for field, value in changes.items()
    ]
    done = hgscale(
        outside, tmp_path, "pretrain", "--config", "own.yaml", "--run_dir", "run", *options, home=tmp_path / "h"
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()
