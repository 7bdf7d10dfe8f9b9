"""Fine-tuning as a user runs it, on planted sentences and PNG files and tiny encoders made on the spot."""

import csv
import json
import math
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import hgscale
from hgscale import config as configs
from hgscale.cli import main
from hgscale.errors import ConfigError
from hgscale.finetune import features as feature_module
from hgscale.finetune.batches import Contexts
from hgscale.finetune.data.audit import audit
from hgscale.finetune.parts import Parts
from hgscale.finetune.store import FeatureStore
from hgscale.finetune.task import FinetuneTask
from hgscale.finetune.work import train_worker
from hgscale.hypergraph import io
from hgscale.models.config import VmhanConfig
from hgscale.models.encoders import TextEncoder, TextReader, VisionEncoder
from hgscale.models.vmhan import Vmhan
from hgscale.train import loop
from tests.chaos.state import state_of
from tests.unit.finetune.data.test_more import LINES as MORE_LINES
from tests.unit.finetune.data.test_more import write as write_more
from tests.unit.models.tiny import save_text_encoder

SMALL = {"num_contexts": 48, "num_eval_contexts": 24, "image_size": 32}
STEPS = {"num_steps": 12, "global_batch": 8, "learning_rate": 0.003, "log_every": 3, "checkpoint_every": 6}


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_text_encoder(tmp_path_factory.mktemp("encoders") / "bert"))


@pytest.fixture(scope="module")
def planted_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One place for the planted files of all runs."""
    return str(tmp_path_factory.mktemp("planted") / "ambiguous")


@pytest.fixture
def tree(text_encoder: str, planted_root: str, tmp_path: Path) -> dict[str, Any]:
    """A run of seconds, in this process, with the torch engine."""
    return {
        "data": {"name": "planted", "root": planted_root, "planted": SMALL},
        "text": {"path": text_encoder, "tuning": "full", "max_length": 64},
        "model": {"hidden_size": 32, "top_objects": 4},
        "train": STEPS,
        "engine": {"name": "torch"},
        "cluster": {"launcher": "none"},
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        "run_dir": str(tmp_path / "run"),
    }


def config_of(tree: dict[str, Any], tmp_path: Path, **changes: Any) -> "hgscale.FinetuneConfig":
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(tree))
    return configs.load(hgscale.FinetuneConfig, path, **changes)


def task_of(tree: dict[str, Any], tmp_path: Path, **changes: Any) -> FinetuneTask:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(tree))
    return configs.load(FinetuneTask, path, also_known=hgscale.FinetuneConfig, **changes)


def losses(run_dir: Path) -> list[float]:
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def with_eyes(tree: dict[str, Any], tuning: str = "full") -> dict[str, Any]:
    return {**tree, "vision": {"path": "scratch:resnet", "tuning": tuning}}


def test_a_run_leaves_its_scores_its_predictions_its_model_and_one_finished_mlflow_run(tree, tmp_path):
    result = hgscale.finetune(config_of(with_eyes(tree), tmp_path))
    summary, run_dir = result.summary, result.run_dir
    assert {"test_f1", "test_accuracy", "val_f1", "test_ece", "num_contexts", "data_digest", "leaks"} <= summary.keys()
    assert summary["num_contexts"] == 48
    assert summary["sees_images"] is True
    for name in ("scores.png", "attention.png"):
        assert (run_dir / name).read_bytes().startswith(b"\x89PNG")
    for folder in ("vmhan", "text", "vision"):
        assert (run_dir / "model" / folder / "config.json").is_file()
    predictions = [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]
    test = task_of(tree, tmp_path).relations.test
    assert len(predictions) == test.num_pairs
    labels = [(one.id, pair.label) for one in test for pair in one.pairs]
    names = task_of(tree, tmp_path).relations.labels
    assert [(p["context"], p["label"]) for p in predictions] == [(c, names[label]) for c, label in labels]
    for one in predictions:
        assert sum(look["weight"] for look in one["looks"]) + one["other_weight"] == pytest.approx(1, abs=1e-5)
    # Every planted context has objects, so each pair has a hyperedge with one.
    told = [{node for look in one["looks"] for node in look["nodes"]} for one in predictions]
    assert all(any(node.startswith("object ") for node in nodes) for nodes in told)
    hits = np.mean([one["label"] == one["predicted"] for one in predictions])
    assert summary["test_accuracy"] == pytest.approx(hits)
    rows = list(csv.DictReader((run_dir / "per_class.csv").open()))
    assert sum(int(row["support"]) for row in rows) == len(predictions)

    from mlflow.tracking import MlflowClient

    run = MlflowClient(tree["tracking"]["uri"]).get_run(result.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/test_f1"] == summary["test_f1"]
    assert run.data.tags["hgscale.leaks"] == "none"
    assert run.inputs.dataset_inputs[0].dataset.name == "relations"


def test_a_run_that_is_finished_is_not_repeated(tree, tmp_path):
    first = hgscale.finetune(config_of(tree, tmp_path))
    stamp = (first.run_dir / "log.jsonl").stat().st_mtime_ns
    assert hgscale.finetune(config_of(tree, tmp_path)).summary == first.summary
    assert (first.run_dir / "log.jsonl").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("engine", [{"name": "torch"}, {"name": "deepspeed", "zero_stage": 2}])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not_bit_for_bit(tree, tmp_path, monkeypatch, engine):
    tree = {**with_eyes(tree), "engine": engine}
    whole = hgscale.finetune(config_of(tree, tmp_path, run_dir=str(tmp_path / "whole"))).run_dir
    learning_rate_at = loop.TrainConfig.learning_rate_at

    def interrupted(self: loop.TrainConfig, step: int) -> float:
        if step == 8:
            raise KeyboardInterrupt
        return learning_rate_at(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainConfig, "learning_rate_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hgscale.finetune(config_of(tree, tmp_path))
    cut = hgscale.finetune(config_of(tree, tmp_path)).run_dir
    attempts = [json.loads(line)["start_step"] for line in (cut / "attempts.jsonl").read_text().splitlines()]
    assert attempts == [0, 6]
    assert losses(cut) == losses(whole)
    assert state_of(cut) == state_of(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__variational": False},
        {"model__structure": "pairwise"},
        {"model__products": False},
        {"model__images": False},
        {"model__objects": False, "model__top_objects": VmhanConfig().top_objects},
        {"model__top_objects": 1},
        {"model__pairs": "one_by_one"},
        {"model__weight_kl": 0.3},
        {"model__weight_reconstruction": 0.5},
        {"model__weight_classification": 2.0},
        {"model__reconstruct": "incidence"},
        {"model__kl_warmup_frac": 1.0},
        {"text__tuning": "lora"},
        {"text__markers": False},
        {"text__learning_rate": 1e-3},
        {"vision__tuning": "frozen"},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
def test_every_switch_changes_what_is_trained_and_the_fingerprint(tree, tmp_path, changes):
    tree = {**with_eyes(tree), "train": {**STEPS, "num_steps": 3}}
    base, other = task_of(tree, tmp_path), task_of(tree, tmp_path, **changes)
    assert base.fingerprint() != other.fingerprint()
    train_worker(base, _made(tmp_path / "base"), figure=False)
    train_worker(other, _made(tmp_path / "other"), figure=False)
    assert losses(tmp_path / "base") != losses(tmp_path / "other")


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_features_that_are_kept_are_those_of_the_encoders(tree, tmp_path):
    """Frozen encoders, looked up, against the same encoders in the model, without dropout."""
    kept = Parts(task_of(with_eyes(tree, "frozen"), tmp_path, text__tuning="frozen"))
    live = Parts(task_of(with_eyes(tree), tmp_path))
    ids = np.arange(6)
    split = live.task.relations.train
    looked_up, computed = (parts.contexts(split).batch(ids, 1.0, 1.0, 1.0) for parts in (kept, live))
    assert looked_up.text is None
    assert looked_up.visual is not None
    model = kept.model().eval()
    with torch.no_grad():
        ours, theirs = model.encoded(looked_up), live.model().eval().encoded(computed)
        wanted = {name: model.text(getattr(theirs, name)) for name in ("mentions", "sentence")}
        wanted |= {name: model.vision(getattr(theirs, name)) for name in ("image", "objects")}
    there = {"mentions": ours.entity_mask, "objects": ours.object_mask, "image": ours.image_mask}
    for name, features in wanted.items():
        mask = there.get(name, torch.ones(len(features), dtype=torch.bool))
        # Sums over up to 64 pieces of width 16, in another order of texts: a few hundred roundings of 2**-24.
        torch.testing.assert_close(getattr(ours, name)[mask], features[mask], rtol=1e-3, atol=1e-4, msg=name)
    for name in ("entity_mask", "image_mask", "object_mask", "pairs", "labels"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize(("text", "vision"), [("full", "frozen"), ("frozen", "full")])
def test_more_evaluations_build_and_read_no_more_and_change_no_number(tree, tmp_path, monkeypatch, text, vision):
    tree = with_eyes(tree, vision)
    Parts(task_of(tree, tmp_path, text__tuning=text))  # features that are frozen are there from here on
    counts: Counter[str] = Counter()

    def counted(owner: type, name: str) -> None:
        plain = getattr(owner, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            counts[f"{owner.__name__}.{name}"] += 1
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner in (TextEncoder, VisionEncoder, Vmhan, Contexts):
        counted(owner, "__init__")
    counted(FeatureStore, "read")
    counted(TextReader, "tokenize")
    found = []
    for name, eval_every in (("never", None), ("twice", 4), ("often", 3)):
        counts.clear()
        task = task_of(tree, tmp_path, text__tuning=text, train__eval_every=eval_every)
        train_worker(task, _made(tmp_path / name), figure=False)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        found.append(
            (dict(counts), losses(tmp_path / name), {k: v for k, v in summary.items() if k.startswith("test")})
        )
    assert found[0] == found[1] == found[2]
    assert counts["Contexts.__init__"] == 3
    assert counts["Vmhan.__init__"] == 2  # the one that is trained, and a copy that is evaluated


@pytest.mark.parametrize("pairs", ["together", "one_by_one"])
def test_a_batch_holds_the_pairs_of_its_contexts_with_their_nodes(tree, tmp_path, pairs):
    parts = Parts(task_of(with_eyes(tree, "frozen"), tmp_path, text__tuning="frozen", model__pairs=pairs))
    split = parts.task.relations.train
    contexts = parts.contexts(split)
    ids = np.array([5, 0, 17, 3])
    batch = contexts.batch(ids, 1.0, 1.0, 1.0)
    wanted = [(split[int(i)], pair) for i in ids for pair in split[int(i)].pairs]
    assert batch.labels.tolist() == [pair.label for _, pair in wanted]
    assert contexts.labels.tolist() == [pair.label for one in split for pair in one.pairs]
    if pairs == "one_by_one":
        assert batch.pairs.tolist() == [[row, 0, 1] for row in range(len(wanted))]
        assert batch.entity_mask.sum(1).tolist() == [2] * len(wanted)
    else:
        found = [tuple(nodes) for _, *nodes in batch.pairs.tolist()]
        assert found == [(pair.first, pair.second) for _, pair in wanted]
        assert batch.entity_mask.sum(1).tolist() == [len(split[int(i)].entities) for i in ids]
    assert contexts.num_pairs[ids].tolist() == [len(split[int(i)].pairs) for i in ids]


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_bfloat16_trains_with_frozen_encoders_and_with_others(tree, tmp_path, stage):
    """DeepSpeed makes bf16 of weights and buffers, features come as fp32: a step of each kind has to fit."""
    engine = {"name": "deepspeed", "zero_stage": stage, "precision": "bf16"}
    tree = {**with_eyes(tree, "frozen"), "engine": engine, "train": {**STEPS, "num_steps": 3}}
    fine = task_of({**tree, "engine": {"name": "torch"}}, tmp_path, text__tuning="frozen", model__variational=False)
    coarse = task_of(tree, tmp_path, text__tuning="frozen", model__variational=False)
    train_worker(fine, _made(tmp_path / "fine"), figure=False)
    train_worker(coarse, _made(tmp_path / "coarse"), figure=False)
    # bf16 rounds to 2**-9; a dozen layers, one after the other.
    assert losses(tmp_path / "coarse") == pytest.approx(losses(tmp_path / "fine"), rel=0.05)
    live = task_of(tree, tmp_path, vision__tuning="full")
    train_worker(live, _made(tmp_path / "live"), figure=False)
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "live"))


def test_two_workers_train_what_one_does(tree, tmp_path, monkeypatch):
    """Without noise the losses agree to rounding; ZeRO shares out what one worker holds alone.

    Paths that are relative to the caller's working directory, which is not the workers', are found.
    """
    tree = with_eyes(tree)
    still = {"model__variational": False, "model__dropout": 0.0, "text__tuning": "frozen", "vision__tuning": "frozen"}
    one = hgscale.finetune(config_of(tree, tmp_path, run_dir=str(tmp_path / "one"), **still))
    ray = {"cluster__launcher": "ray", "cluster__num_workers": 2, "engine__name": "deepspeed", "engine__zero_stage": 2}
    monkeypatch.chdir(tmp_path)
    places = {"data__root": tree["data"]["root"], "text__path": tree["text"]["path"], "run_dir": tmp_path / "two"}
    relative = {name: os.path.relpath(path) for name, path in places.items()}
    two = hgscale.finetune(config_of(tree, tmp_path, **relative, **still, **ray))
    assert two.summary["num_workers"] == 2
    logs = [[json.loads(line) for line in (r.run_dir / "log.jsonl").read_text().splitlines()] for r in (one, two)]
    assert [r["ids_hash"] for r in logs[0] if "ids_hash" in r] == [r["ids_hash"] for r in logs[1] if "ids_hash" in r]
    # 12 AdamW steps of 0.003, each moved by rounding (2**-24 of a gradient, sums of hundreds) by at most 1e-4 of it.
    assert losses(two.run_dir) == pytest.approx(losses(one.run_dir), rel=1e-3)
    assert two.summary["test_f1"] == pytest.approx(one.summary["test_f1"], abs=0.1)


def test_with_a_relative_home_nothing_is_made_but_below_it_and_features_are_computed_once(tree, tmp_path, monkeypatch):
    monkeypatch.delenv("HGSCALE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(feature_module, "FEW", 10)  # actors compute them
    del tree["data"]["root"]
    ray = {"cluster__launcher": "ray", "cluster__num_workers": 2, "text__tuning": "frozen", "train__num_steps": 3}
    with tempfile.TemporaryDirectory(prefix="r") as ray_dir:  # a short path: sockets lie below it
        monkeypatch.setenv("RAY_TMPDIR", ray_dir)
        result = hgscale.finetune(config_of(with_eyes(tree, "frozen"), tmp_path, **ray))
        made = {path.name for path in Path(ray_dir).rglob("*")}
    assert result.summary["num_workers"] == 2
    assert not {name for name in made if name.endswith((".parquet", ".part")) or name in ("planted.json", "runs")}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"planted", "features", "encoders"}
    stores = list((tmp_path / "runs/features").iterdir())
    assert len(stores) == 2
    for store in stores:
        keys = [key for file in store.glob("*.parquet") for key in pq.read_table(file)["key"].to_pylist()]
        assert len(keys) == len(set(keys)) > 0


def test_the_order_artefact_of_mnre_is_refused_unless_allowed_and_then_tagged(text_encoder, tmp_path, shared_data):
    tree = {
        "data": {"name": "mnre", "root": str(shared_data / "mnre-text"), "pair_order": "file", "num_contexts": 1000},
        "text": {"path": text_encoder, "tuning": "frozen", "max_length": 64},
    }
    with pytest.raises(ConfigError, match=r"data.pair_order: the label is given away by .*allow_leaks"):
        config_of(tree, tmp_path).check_task()
    allowed = config_of(tree, tmp_path, data__allow_leaks=True)
    allowed.check_task()
    assert allowed.gate.leaks


@pytest.mark.parametrize("eyes", [False, True])
def test_more_relates_entities_to_objects(text_encoder, tmp_path, eyes):
    """Files in the format of MORE, a context in each split, through training to predictions."""
    root = write_more(tmp_path / "MORE", MORE_LINES)
    data = {"name": "more", "root": str(root)} | ({"images": str(root / "img_org")} if eyes else {})
    tree = {
        "data": data,
        "text": {"path": text_encoder, "max_length": 64},
        "model": {"hidden_size": 32},
        "train": {**STEPS, "num_steps": 3, "global_batch": 1},
        "engine": {"name": "torch"},
    }
    task = task_of(with_eyes(tree) if eyes else tree, tmp_path)
    train_worker(task, _made(tmp_path / "run"), figure=False)
    predictions = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert [one["label"] for one in predictions] == ["hold", "none", "wear"]
    assert all(one["second"].startswith("object ") for one in predictions)


def test_the_audit_is_a_table(tree, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(tree))
    assert main(["finetune", "--config", str(path), "--audit", "true"]) == 0
    assert "no leak in what these data show" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert audit(config_of(tree, tmp_path).relations).rows


def test_names_of_a_pre_trained_world_are_known(tree, tmp_path, planted_root):
    names = {"mode": "names", "num_names": 40, "num_classes": 2, "num_mentions": 400}
    names |= {"num_contexts": 48, "num_eval_contexts": 24}
    root = tmp_path / "names"
    tree = {**tree, "data": {"name": "planted", "root": str(root), "planted": names}}
    relations = task_of(tree, tmp_path).relations
    world = tmp_path / "world.yaml"
    world.write_text(
        json.dumps(
            {
                "world": {"path": str(root / "world.json")},
                "samples": {"num_samples": 400},
                "train": {"num_steps": 5, "global_batch": 200, "log_every": 5},
                "model": {"hidden_size": 16, "num_hidden_layers": 1},
                "engine": {"name": "torch"},
                "cluster": {"launcher": "none"},
                "tracking": {"enabled": False},
                "run_dir": str(tmp_path / "pretrained"),
            }
        )
    )
    hgscale.pretrain(configs.load(hgscale.PretrainConfig, world))
    task = task_of(tree, tmp_path, model__init_from=str(tmp_path / "pretrained"))
    task.check_task()
    parts = Parts(task)
    assert parts.prior is not None
    labels = io.read(root / "world.json").labels
    assert labels is not None
    name = relations.train[0].entities[0].name
    assert name.lower() in {label.lower() for label in labels}
    assert parts.prior(name).any()
    assert not parts.prior("nobody of that name").any()
    assert task.fingerprint() != task_of(tree, tmp_path).fingerprint()
    batch = parts.contexts(relations.train).batch(np.arange(3), 1.0, 1.0, 1.0)
    first = parts.prior(relations.train[0].entities[0].name)
    np.testing.assert_array_equal(batch.prior[0, 0].numpy(), first)
    _made(tmp_path / "run")
    train_worker(task, tmp_path / "run", figure=False)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["known_names_frac"] == 1.0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"train__global_batch": 64}, r"train.global_batch=64 is more than the 48 training contexts; use at most 48"),
        ({"model__init_from": "/nowhere"}, r"model.init_from=/nowhere: holds no finished pretrain run"),
        ({"text__path": "/nowhere"}, r"encoder.path=/nowhere: no such directory"),
        ({"vision__path": "scratch:vgg"}, r"vgg is not made from scratch; use scratch:resnet, scratch:vit"),
        ({"train__micro_batch": 3}, r"train.global_batch=8 is not a multiple of micro_batch"),
    ],
)
def test_a_wrong_request_is_one_line_and_nothing_is_written(tree, tmp_path, capsys, changes, complaint):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(tree))
    options = [f"--{name.replace('__', '.')}={value}" for name, value in changes.items()]
    assert main(["finetune", "--config", str(path), *options]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    import re

    assert re.search(complaint, said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("configs/finetune/*.yaml")), ids=lambda path: path.stem
)
def test_every_config_loads(path):
    config = configs.load(hgscale.FinetuneConfig, path)
    assert configs.to_dict(config).keys() >= yaml.safe_load(path.read_text()).keys()
    assert config.sizes(1, 1) == [1]


def test_a_study_of_fine_tunings_is_reported_by_its_scores(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path / "home"))
    cell = {name: tree[name] for name in ("data", "text", "model", "train", "engine")}
    study = {
        "name": "relations",
        "task": "finetune",
        "base": {**cell, "train": {**STEPS, "num_steps": 3}},
        "variants": {"together": {}, "one by one": {"model.pairs": "one_by_one"}},
        "seeds": 2,
        "analysis": {"x": "num_contexts"},
        "tracking": {"enabled": False},
    }
    del study["base"]["data"]["root"]  # each seed has data of its own
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(study))
    result = hgscale.run_study(configs.load(hgscale.StudyConfig, path))
    assert result.count("FINISHED") == 4
    digests = {row.seed: row.summary["data_digest"] for row in result.rows}
    assert len(set(digests.values())) == 2
    assert result.report is not None
    table = result.report.table_md.read_text()
    assert "test F1" in table
    assert "one by one" in table
    assert [figure.name for figure in result.report.figures] == ["scores.png"]
    assert all(math.isfinite(value) for value in result.report.metrics.values())
