import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hgscale.data.masking import Contexts, Masker, ObjectiveConfig
from hgscale.errors import ConfigError, DataError
from hgscale.hypergraph.structure import PAD, EdgeSampler, Hypergraph
from hgscale.hypergraph.worlds.config import WorldConfig
from hgscale.models.build import ModelConditionals, build_model, load_model, save_model
from hgscale.models.config import MAX_LOGITS, ModelConfig
from hgscale.models.losses import ContextTensors, MaskedLoss, MicroBatch
from hgscale.pretrain.task import PretrainTask
from hgscale.train.config import EngineConfig, TrainConfig

WORLD = Hypergraph.from_edges([[0, 1], [1, 2], [0, 2, 3], [1, 3, 4, 5]], num_nodes=7)
# Losses are sums of some hundred terms below 10 in float32.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.fixture(autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package outside the tree."""
    folder = tmp_path_factory.mktemp("site") / "own_pkg"
    folder.mkdir()
    (folder / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("own.py"), folder / "models.py")
    monkeypatch.syspath_prepend(str(folder.parent))
    for name in ("own_pkg", "own_pkg.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def config(name: str = "MyEncoder", **fields) -> ModelConfig:
    return ModelConfig(name=f"own_pkg.models:{name}", **fields)


def own(name: str = "MyEncoder", seed: int = 0, **fields) -> torch.nn.Module:
    return build_model(config(name, **fields), WORLD, seed)


def micro_batch(world: Hypergraph = WORLD) -> MicroBatch:
    ids = np.arange(120)
    batch = Masker(EdgeSampler(world, 0), ObjectiveConfig(), every_bucket=True).batch(ids, ids % 4)
    return MicroBatch([tensors(b) for b in batch.buckets], torch.tensor(batch.size_counts), 1 / 120)


def tensors(contexts: Contexts) -> ContextTensors:
    present = {name: torch.tensor(array) for name, array in vars(contexts).items() if array is not None}
    return ContextTensors(**present)


def test_a_module_gets_the_nodes_the_sizes_the_common_fields_that_it_names_and_the_config():
    model = own(hidden_size=12, config={"depth": 3})
    assert model.network.nodes.weight.shape == (7, 12)
    assert model.network.hidden.weight.shape == (5, 12)
    assert len(model.network.body) == 3 + 2
    assert (model.config.num_nodes, model.config.sizes) == (7, [2, 3, 4])
    assert own("TakesAny", config={"depth": 2}).network.nodes.weight.shape == (7, 4)
    assert model.training


def test_its_initial_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(5)
    first = own(seed=3).network.nodes.weight
    torch.manual_seed(6)
    assert torch.equal(own(seed=3).network.nodes.weight, first)
    assert not torch.equal(own(seed=4).network.nodes.weight, first)


def test_its_loss_is_the_cross_entropy_of_its_logits_over_the_nodes_not_seen():
    model, batch = own(), micro_batch()
    expected = torch.zeros(())
    for bucket in batch.buckets:
        logits = model.network(bucket.visible, bucket.num_masked)
        for row, target, weight in zip(bucket.rows.tolist(), bucket.targets.tolist(), bucket.weights, strict=True):
            left = [node for node in range(7) if node not in bucket.visible[row].tolist()]
            expected = expected - weight * torch.log_softmax(logits[row, left], 0)[left.index(target)]
    torch.testing.assert_close(model.nll(batch.buckets, 1 << 20), expected, **CLOSE)


@pytest.mark.parametrize("rows_at_once", [1, 3, 8])
def test_chunks_give_the_same_loss_and_gradients(rows_at_once):
    model, batch = own(), micro_batch()
    whole = MaskedLoss(model)(batch)
    chunked = MaskedLoss(model, max_logits=7 * rows_at_once)(batch)
    torch.testing.assert_close(chunked, whole, **CLOSE)
    parameters = list(model.parameters())
    for got, wanted in zip(
        torch.autograd.grad(chunked, parameters), torch.autograd.grad(whole, parameters), strict=True
    ):
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_its_conditionals_are_laws_over_the_nodes_not_seen_in_whatever_order_they_are_asked():
    asked = ModelConditionals(own())
    for visible in (np.zeros((2, 0), dtype=np.int64), np.array([[3], [6]]), np.array([[5, 1, 4], [6, 0, 2]])):
        law = np.exp(asked.log_probs(visible, 1))
        np.testing.assert_allclose(law.sum(axis=1), 1, rtol=1e-12)
        assert (np.take_along_axis(law, visible, axis=1) == 0).all()
    found, turned = (asked.log_probs(np.array([nodes]), 1) for nodes in ([5, 1, 4], [1, 4, 5]))
    assert np.array_equal(found, turned)


@pytest.mark.parametrize("name", ["MyEncoder", "Tied"])
def test_a_saved_module_gives_the_same_conditionals(name, tmp_path: Path):
    model = own(name, hidden_size=12)
    torch.nn.init.normal_(model.size_logits)
    save_model(model, tmp_path / "model")
    kept, again = ModelConditionals(model), ModelConditionals(load_model(tmp_path / "model"))
    assert (again.num_nodes, again.sizes) == (7, (2, 3, 4))
    assert np.array_equal(again.size_law(), kept.size_law())
    visible = np.array([[0, 1], [2, 5]])
    assert np.array_equal(again.log_probs(visible, 1), kept.log_probs(visible, 1))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["name"] == f"own_pkg.models:{name}"


def test_a_saved_module_whose_class_has_changed_is_refused(tmp_path: Path, package: Path):
    save_model(own(), tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"arguments": {"hidden_size": 6}}))
    with pytest.raises(DataError, match=r"its weights do not fit own_pkg\.models:MyEncoder"):
        load_model(tmp_path / "model")
    file.write_text(json.dumps(about | {"name": "own_pkg.models:MyEncodr"}))
    with pytest.raises(ConfigError, match=r"did you mean own_pkg\.models:MyEncoder"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("NoForward", {}, ["forward(visible, num_masked)"]),
        ("NoModule", {}, ["torch.nn.Module"]),
        ("not_a_class", {}, ["no class with forward(visible, num_masked)"]),
        ("Missing", {}, ["has no Missing"]),
        ("NoSizes", {}, ["__init__ takes no sizes"]),
        ("NoParameters", {}, ["no parameters to train"]),
        ("Refuses", {}, ["__init__ raised ValueError: not with these sizes"]),
        ("NeedsMore", {}, ["__init__ needs temperature", "model.config.temperature"]),
        ("MyEncoder", {"config": {"dept": 3}}, ["model.config.dept", "did you mean depth?"]),
        ("MyEncoder", {"config": {"depth": "x"}}, ["__init__ raised TypeError"]),
        ("MyEncoder", {"config": {"hidden_size": 3}}, ["set model.hidden_size"]),
        ("MyEncoder", {"config": {"num_nodes": 3}}, ["model.config.num_nodes"]),
        ("MyEncoder", {"num_hidden_layers": 3}, ["model.num_hidden_layers=3 has no meaning"]),
        ("MyEncoder", {"activation_checkpointing": True}, ["model.activation_checkpointing=True has no meaning"]),
        ("OneArgument", {}, ["forward(visible [3, 2], num_masked [3]) raised TypeError"]),
        ("WrongShape", {}, ["returns [3, 1, 7]", "logits [3, 7]"]),
        ("Whole", {}, ["int64", "logits [3, 7]"]),
        ("Pair", {}, ["returns a tuple", "logits [3, 7]"]),
        ("GivesNan", {}, ["forward returns a logit that is not finite"]),
        ("MeanOfNothing", {}, ["not finite behind no visible node, a row of -1"]),
        ("ReadsPads", {}, ["other logits when visible has more -1"]),
        ("TooFewNodes", {}, ["forward(visible [3, 2], num_masked [3]) raised IndexError"]),
    ],
)
def test_what_does_not_keep_to_the_protocol_is_refused_in_one_line_that_names_the_member(name, fields, words):
    with pytest.raises(ConfigError) as error:
        own(name, **fields)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert all(word in str(error.value) for word in words), str(error.value)


def test_the_trial_passes_in_worlds_of_the_smallest_sizes():
    for edges, num_nodes in ([[[0], [1]], 2], [[[0, 1]], 2], [[[0, 1], [1, 2]], 3]):
        world = Hypergraph.from_edges(edges, num_nodes=num_nodes)
        model = build_model(config(), world, 0)
        assert torch.isfinite(MaskedLoss(model)(micro_batch(world)))


def task(name: str = "MyEncoder", **sections) -> PretrainTask:
    world = WorldConfig(generator="uniform", num_nodes=9, num_edges=20, size=3, weights="dirichlet")
    return PretrainTask(world=world, model=config(name, hidden_size=10), **sections)


TRAIN = """
import pickle, sys
from pathlib import Path
from hgscale.pretrain.work import train_worker
train_worker(pickle.load(sys.stdin.buffer), Path(sys.argv[1]), figure=False)
"""


def test_a_task_refuses_it_before_anything_starts_and_its_source_is_in_the_fingerprint(package: Path):
    with pytest.raises(ConfigError, match="GivesNan: forward returns a logit that is not finite"):
        task("GivesNan").check_task()
    task().check_task()
    before = task().fingerprint()
    assert task().fingerprint() == before
    (package / "models.py").write_text((package / "models.py").read_text() + "# changed\n")
    assert task().fingerprint() != before


def test_chunks_that_workers_would_make_in_different_numbers_are_refused_where_weights_are_shared_out():
    train = TrainConfig(global_batch=MAX_LOGITS // 9 + 1)
    with pytest.raises(ConfigError, match=r"engine\.zero_stage=3 .* train\.micro_batch to at most 7456540"):
        task(train=train, engine=EngineConfig(zero_stage=3)).check_task()
    task(train=train, engine=EngineConfig(zero_stage=2)).check_task()


def test_the_kinds_of_models_say_what_they_can():
    kinds = {name: ModelConfig(name=name).kind() for name in ("set_encoder", "bert", "own_pkg.models:MyEncoder")}
    assert {name: kind.sees_order for name, kind in kinds.items()} == {
        "set_encoder": False,
        "bert": True,
        "own_pkg.models:MyEncoder": False,
    }
    assert [name for name, kind in kinds.items() if kind.planned] == ["set_encoder"]
    assert [name for name, kind in kinds.items() if kind.node_embedding] == ["set_encoder"]


def test_padding_is_never_nothing_at_all():
    # A module is shown one -1 where a bucket has no column.
    model = own()
    nothing = torch.zeros(4, 0, dtype=torch.int64)
    hidden = torch.full((4,), 2)
    padded = torch.full((4, 1), PAD)
    assert torch.equal(model.log_probs(nothing, hidden), model.log_probs(padded, hidden))


def test_a_plain_module_is_asked_with_its_nodes_and_its_law_of_sizes():
    model = own().network
    law = {4: 0.25, 2: 0.75}
    asked = ModelConditionals(model, 7, law)
    assert asked.sizes == (2, 4)
    assert asked.size_law().tolist() == [0, 0, 0.75, 0, 0.25]
    logits = model(torch.tensor([[2, 5]]), torch.tensor([2])).detach().double()[0]
    left = [0, 1, 3, 4, 6]
    np.testing.assert_allclose(asked.log_probs(np.array([[5, 2]]), 2)[0, left], torch.log_softmax(logits[left], 0))
    assert ModelConditionals(model, 7, [3]).size_law().tolist() == [0, 0, 0, 1]
    for wrong in ([2, 3], {2: 0.5, 3: 0.6}, [], {0: 1.0}):
        with pytest.raises(ConfigError, match="no law of sizes"):
            ModelConditionals(model, 7, wrong)


@pytest.mark.parametrize("engine", ["torch", 0, 1, 2, 3])
def test_it_trains_under_every_engine_to_the_same_model(engine, tmp_path: Path):
    name = {"name": "torch"} if engine == "torch" else {"name": "deepspeed", "zero_stage": engine}
    train = TrainConfig(num_steps=200, global_batch=256, learning_rate=0.02, log_every=100)
    job = task("Tied", train=train, engine=EngineConfig(**name))
    run = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path)],
        input=pickle.dumps(job),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    # Knowing nothing is 1.5 off. Engines differ by roundings of float32, which 200 steps spread.
    assert summary["recovery_l1"] == pytest.approx(0.34994, abs=1e-4)
    asked = ModelConditionals(load_model(tmp_path / "model"))
    assert (asked.num_nodes, asked.sizes) == (9, (3,))
