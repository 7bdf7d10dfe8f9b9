from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from hgscale import config
from hgscale.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Samples:
    """How much data there is."""

    num_samples: int | None = None
    """N, edges drawn in all."""
    regime: Literal["fresh", "epochs"] = "fresh"
    """Whether samples come back."""


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How weights move."""

    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"lr={self.lr} is not positive; use 1e-3")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    config: dict[str, Any] = field(default_factory=dict)
    """Fields of the network's own config."""
    sizes: tuple[int, ...] = (2, 3)
    """Sizes it takes."""
    shares: dict[int, float] | None = None
    """Share of each size."""
    name: str = "encoder"
    """What to call it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job with sections."""

    samples: Samples = field(default_factory=Samples)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    second: Optimizer | None = None
    """An optimizer for the rest, or none."""
    path: Path | None = None
    """Where the world is."""
    seed: int = 0
    """What chance depends on."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A job that needs less, and one thing more."""

    world: str
    """A name without a default."""
    samples: Samples = field(default_factory=Samples)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "job.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write_file


def refusal(*args: str, schema: type = Job, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(schema, args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_arguments_give_the_defaults():
    assert config.parse(Job, []) == Job()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--seed", "7"], Job(seed=7)),
        (["--seed=-7"], Job(seed=-7)),
        (["--seed", "1", "--seed", "2"], Job(seed=2)),
        (["--samples.num_samples", "1e6"], Job(samples=Samples(num_samples=1_000_000))),
        (["--samples.num_samples=null"], Job()),
        (["--samples.regime", "epochs"], Job(samples=Samples(regime="epochs"))),
        (["--optimizer.lr", "3e-4"], Job(optimizer=Optimizer(lr=3e-4))),
        (["--optimizer.betas", "[0.8,0.9]"], Job(optimizer=Optimizer(betas=(0.8, 0.9)))),
        (["--model.sizes=[4]"], Job(model=Model(sizes=(4,)))),
        (["--model.shares={2: 0.5}"], Job(model=Model(shares={2: 0.5}))),
        (["--model.name", "12"], Job(model=Model(name="12"))),
        (["--model.config.hidden_size", "128"], Job(model=Model(config={"hidden_size": 128}))),
        (["--model.config", '{"hidden_size": 128}'], Job(model=Model(config={"hidden_size": 128}))),
        (["--model.config.a.b", "[1, 2]"], Job(model=Model(config={"a.b": [1, 2]}))),
        (["--second.lr=5"], Job(second=Optimizer(lr=5.0))),
        (["--path", "a/b"], Job(path=Path("a/b"))),
    ],
)
def test_options_set_fields_of_every_type(args, expected):
    assert config.parse(Job, args) == expected


def test_a_file_sets_fields_and_options_override_it_wherever_they_stand(write):
    path = write("seed: 5\nmodel: {config: {hidden_size: 64, depth: 2}, name: small}\nsamples: {num_samples: 1e5}")
    expected = Job(
        seed=6,
        model=Model(config={"hidden_size": 128, "depth": 2}, name="small"),
        samples=Samples(num_samples=100_000),
    )
    options = ["--seed", "6", "--model.config.hidden_size", "128"]
    assert config.parse(Job, ["--config", path, *options]) == expected
    assert config.parse(Job, [*options, f"--config={path}"]) == expected


def test_a_later_file_overrides_an_earlier_one_field_by_field(write):
    first = write("seed: 5\noptimizer: {lr: 4.0, betas: [0, 0]}", "first.yaml")
    second = write("optimizer: {lr: 2.0}", "second.yaml")
    merged = config.parse(Job, ["--config", first, "--config", second])
    assert merged == Job(seed=5, optimizer=Optimizer(lr=2.0, betas=(0.0, 0.0)))


def test_numbers_in_files_are_read_by_the_type_of_the_field(write):
    path = write("optimizer: {lr: 3e-4}\nsamples: {num_samples: 1e6}\nmodel: {config: {x: 3e-4}, name: '3e-4'}")
    job = config.load(Job, path)
    assert (job.optimizer.lr, job.samples.num_samples, job.model.config["x"]) == (3e-4, 1_000_000, 3e-4)
    assert job.model.name == "3e-4"


def test_empty_sections_and_empty_files_mean_defaults(write):
    assert config.load(Job, write("")) == Job()
    assert config.load(Job, write("samples:\noptimizer:\n")) == Job()


def test_an_optional_section_can_be_switched_on_in_a_file_and_off_by_an_option(write):
    path = write("second: {lr: 2.0}")
    assert config.load(Job, path).second == Optimizer(lr=2.0)
    assert config.parse(Job, ["--config", path, "--second.betas=[0,0]"]).second == Optimizer(lr=2.0, betas=(0.0, 0.0))
    assert config.parse(Job, ["--config", path, "--second=null"]).second is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("samples: {num_sample: 3}", "samples.num_sample is not a field; did you mean samples.num_samples?"),
        ("num_samples: 3", "num_samples is not a field; did you mean samples.num_samples?"),
        ("second: {lrr: 3}", "second.lrr is not a field; did you mean second.lr?"),
        ("second: {lr: high}", "second.lr is 'high'; float is wanted"),
        ("second: 3", "second is 3; a mapping of fields is wanted"),
        ("wholly: 3", "wholly is not a field; fields are samples, model, optimizer, second, path, seed"),
        ("3: 3", "3 is not a field; fields are samples, model, optimizer, second, path, seed"),
        ("seed: many", "seed is 'many'; int is wanted"),
        ("seed: 1.5", "seed is 1.5; int is wanted"),
        ("seed: true", "seed is True; int is wanted"),
        ("seed: null", "seed is null; int is wanted"),
        ("seed: {a: 1}", "seed.a is 1; int is wanted"),
        ("optimizer: {lr: true}", "optimizer.lr is True; float is wanted"),
        ("optimizer: {betas: [1, 2, 3]}", "optimizer.betas is [1, 2, 3]; tuple[float, float] is wanted"),
        ("samples: {regime: other}", "samples.regime is 'other'; one of fresh, epochs is wanted"),
        ("samples: {regime: null}", "samples.regime is null; one of fresh, epochs is wanted"),
        ("samples: {num_samples: few}", "samples.num_samples is 'few'; int or null is wanted"),
        ("model: {config: 5}", "model.config is 5; dict[str, Any] is wanted"),
        ("model: {name: 12}", "model.name is 12; str is wanted"),
        ("samples: 5", "samples is 5; a mapping of fields is wanted"),
        ("- seed", "holds ['seed']; a mapping of fields is wanted"),
        ("just text", "holds 'just text'; a mapping of fields is wanted"),
        ("[]", "holds []; a mapping of fields is wanted"),
        ("seed: [", "not YAML: while parsing a flow node"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_field(write, text, complaint):
    path = write(text)
    assert refusal("--config", path).startswith(f"{path}: {complaint}")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--samples.num_sample", "3"], "--samples.num_sample is not a field; did you mean samples.num_samples?"),
        (["--num_samples=3"], "--num_samples is not a field; did you mean samples.num_samples?"),
        (["--seed", "many"], "--seed=many: int is wanted"),
        (["--seed=1.5e0"], "--seed=1.5e0: int is wanted"),
        (["--seed=null"], "--seed=null: int is wanted"),
        (["--second.lr=high"], "--second.lr=high: float is wanted"),
        (["--second=high"], "--second=high: Optimizer or null is wanted"),
        (["--samples.regime=other"], "--samples.regime=other: one of fresh, epochs is wanted"),
        (["--optimizer.betas", "[1]"], "--optimizer.betas=[1]: tuple[float, float] is wanted"),
        (["--samples=other.yaml"], "--samples=other.yaml: samples is a section; set its fields one by one"),
        (["--seed"], "argument --seed: expected one argument"),
        (["--seed", "--path", "x"], "argument --seed: expected one argument"),
        (["stray"], "unrecognized arguments: stray"),
        (["--config"], "--config names no file"),
        (["--config", "absent.yaml"], "--config absent.yaml: No such file or directory"),
        (["--config", "/"], "--config /: Is a directory"),
    ],
)
def test_an_option_that_is_wrong_is_named(args, complaint):
    assert refusal(*args).startswith(complaint)


def test_of_a_file_and_an_option_the_wrong_one_is_blamed(write):
    path = write("seed: many")
    assert refusal("--config", path, "--model.name=x").startswith(f"{path}: seed is 'many'")
    assert refusal("--config", write("seed: 3"), "--seed=many").startswith("--seed=many")


def test_a_field_without_a_default_is_demanded(write):
    assert "world" in refusal(schema=Look)
    assert config.load(Look, write("world: star")) == Look(world="star")


@pytest.mark.parametrize("section", ["optimizer", "second"])
def test_what_a_section_itself_refuses_is_passed_on(write, section):
    assert refusal("--config", write(f"{section}: {{lr: -1.0}}")) == "lr=-1.0 is not positive; use 1e-3"
    assert refusal(f"--{section}.lr=-1") == "lr=-1.0 is not positive; use 1e-3"


def test_a_file_of_another_verb_is_read_without_the_fields_only_that_one_has(write):
    path = write("samples: {num_samples: 9}\nmodel: {name: x}\nseed: 4\nsecond: null\noptimizer:\n")
    assert config.parse(Look, ["--config", path, "--world", "star"], also_known=Job) == Look(
        world="star", samples=Samples(num_samples=9)
    )
    assert config.load(Look, path, also_known=Job, world="star").samples.num_samples == 9
    assert "model is not a field" in refusal("--config", path, "--world=star", schema=Look)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model: {nam: x}", "model.nam is not a field; did you mean model.name?"),
        ("modle: {name: x}", "modle is not a field"),
        ("model: 3", "model is 3; a mapping of fields is wanted"),
        ("samples: {num_sample: 3}", "samples.num_sample is not a field; did you mean samples.num_samples?"),
    ],
)
def test_what_neither_verb_knows_is_still_refused(write, text, complaint):
    path = write(text)
    message = refusal("--config", path, "--world=star", schema=Look, also_known=Job)
    assert message.startswith(f"{path}: {complaint}")


def test_options_of_another_verb_are_refused():
    assert refusal("--world=star", "--seed=3", schema=Look, also_known=Job).startswith("--seed is not a field")


def test_help_explains_every_field_that_has_a_word(capsys):
    with pytest.raises(SystemExit) as done:
        config.parse(Job, ["--help"], verb="pretrain")
    assert done.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "hgscale pretrain" in text
    for words in ("N, edges drawn in all.", "Peak learning rate.", "What chance depends on.", "What is trained:"):
        assert words in text
    assert "--samples CONFIG" not in text


def test_print_config_shows_the_resolved_config_and_reads_back(write, capsys):
    with pytest.raises(SystemExit) as done:
        config.parse(Job, ["--config", write("seed: 3"), "--optimizer.lr=3e-4", "--print_config"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["seed"] == 3
    assert config.load(Job, write(printed)) == Job(seed=3, optimizer=Optimizer(lr=3e-4))


def test_a_saved_config_loads_as_itself(tmp_path):
    job = Job(
        samples=Samples(num_samples=10**15),
        model=Model(config={"a": 1e-5, "b": [1, 2], "c": None, "d": {"e": True}}, sizes=(), shares={2: 1}, name="3e-4"),
        optimizer=Optimizer(lr=float("inf"), betas=(1e-20, 0.1)),
        second=Optimizer(lr=1.0),
        path=tmp_path,
        seed=-1,
    )
    config.save(job, tmp_path / "config.yaml")
    assert config.load(Job, tmp_path / "config.yaml") == job


def test_load_takes_overrides_by_name(write):
    path = write("seed: 1")
    job = config.load(Job, path, seed=2, model__config={"a": 1}, model__sizes=(5,), path=Path("w"), second__lr=0.5)
    assert job == Job(seed=2, model=Model(config={"a": 1}, sizes=(5,)), path=Path("w"), second=Optimizer(lr=0.5))
    with pytest.raises(ConfigError, match=r"did you mean samples\.num_samples"):
        config.load(Job, path, samples__num_sample=2)


def test_a_long_file_is_a_file(write):
    entries = {f"key_{i}": "v" * 50 for i in range(2000)}
    assert config.load(Job, write(yaml.safe_dump({"model": {"config": entries}}))).model.config == entries


def test_flatten_gives_dotted_names():
    assert config.flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3], "f": {}}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


def test_field_types_names_every_field_with_its_section():
    names = set(config.field_types(Look))
    assert names == {"world", "samples", "samples.num_samples", "samples.regime"}
    assert config.field_types(Job)["second.lr"] is float


def test_fingerprint_changes_with_a_value_and_not_with_the_order_of_keys():
    job = Job(model=Model(config={"a": 1, "b": 2}))
    shuffled = replace(job, model=replace(job.model, config={"b": 2, "a": 1}))
    assert config.fingerprint(config.to_dict(job)) == config.fingerprint(config.to_dict(shuffled))
    for other in (replace(job, seed=1), replace(job, second=Optimizer()), replace(job, optimizer=Optimizer(lr=2e-3))):
        assert config.fingerprint(config.to_dict(other)) != config.fingerprint(config.to_dict(job))


def test_fingerprint_takes_sections_as_dataclasses_or_as_dicts():
    samples = Samples(num_samples=3)
    assert config.fingerprint({"samples": samples}) == config.fingerprint({"samples": config.to_dict(samples)})
    assert len(config.fingerprint({})) == 16


def test_runs_go_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("HGSCALE_HOME", "elsewhere")
    assert config.runs_home() == Path.cwd() / "elsewhere"
    monkeypatch.delenv("HGSCALE_HOME")
    assert config.runs_home() == Path.cwd() / "runs"


def test_fields_are_changed_by_dotted_name() -> None:
    job = Job(seed=3, model=Model(config={"x": 1}))
    changed = config.with_fields(job, {"optimizer.lr": 1e-2, "samples.num_samples": 1e4, "model.config.a.b": 2})
    assert (changed.seed, changed.optimizer.lr, changed.model.config) == (3, 1e-2, {"x": 1, "a.b": 2})
    assert repr(changed.samples.num_samples) == "10000"
    assert job.model.config == {"x": 1}
    whole = config.with_fields(job, {"second": {"lr": 0.5}})
    assert whole.second == Optimizer(lr=0.5)
    assert config.with_fields(whole, {"second.lr": 0.25}).second == Optimizer(lr=0.25)
    assert config.with_fields(whole, {"second": None}).second is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"samples.num_sample": 1}, "samples.num_sample is not a field; did you mean samples.num_samples?"),
        ({"optimizer": 1}, "optimizer is a section"),
        ({"seed": "many"}, "seed is 'many'; int is wanted"),
        ({"optimizer.lr": [1]}, r"optimizer.lr is \[1\]; float is wanted"),
        ({"second.lr": 1}, r"second.lr: second is null, and has no fields; set all of it, as second: \{lr: ...\}"),
        ({"second": {"lrr": 1}}, r"second is \{'lrr': 1\}; Optimizer or null is wanted"),
    ],
)
def test_a_change_that_is_wrong_is_named(changes: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config.with_fields(Job(), changes)


@pytest.mark.parametrize(
    ("file", "option", "expected"),
    [
        ("{a: {b: 1, c: 2}}", "--model.config.a.b=3", {"a": {"b": 3, "c": 2}}),
        ("{a.b: 1}", "--model.config.a.b=3", {"a.b": 3}),
        ("{a: {b.c: 1}}", "--model.config.a.b.c=3", {"a": {"b.c": 3}}),
        ("{a: 1}", "--model.config.a.b=3", {"a": 1, "a.b": 3}),
    ],
)
def test_a_dotted_key_of_a_dict_is_set_where_the_file_has_it(write, file, option, expected):
    path = write(f"model: {{config: {file}}}")
    assert config.parse(Job, [option, "--config", path]).model.config == expected


def test_a_printed_config_has_the_keys_that_options_set(write, capsys):
    path = write("model: {config: {a: 1}}")
    with pytest.raises(SystemExit):
        config.parse(Job, ["--config", path, "--print_config", "--model.config.b=2", "--seed=5"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["model"]["config"], printed["seed"]) == ({"a": 1, "b": 2}, 5)


@pytest.mark.parametrize(
    "tree",
    [
        {"samples": {"num_samples": "1e3"}, "model": {"config": {"a.b": 1}}, "second": {}},
        {"samples.num_samples": 1000, "model.config.a.b": 1, "second": {}},
        {
            "samples.num_samples": 1000,
            "samples": None,
            "model": {"config": {}},
            "model.config": {"a.b": 1},
            "second": {},
        },
    ],
)
def test_a_config_is_made_of_nested_or_dotted_fields(tree):
    wanted = Job(samples=Samples(num_samples=1000), model=Model(config={"a.b": 1}), second=Optimizer())
    assert config.from_mapping(Job, tree, "base") == wanted


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"samples": {"num_sample": 1}}, "base.samples.num_sample is not a field; did you mean base.samples.num_sampl"),
        ({"num_samples": 1}, "base.num_samples is not a field; did you mean base.samples.num_samples?"),
        ({"seed": "x"}, "base.seed is 'x'; int is wanted"),
        ({"samples": 5}, "base.samples is 5; a mapping of fields is wanted"),
        ({"samples.num_samples": 5, "samples": {"num_samples": 6}}, "base.samples.num_samples is given twice"),
        ({"samples": 5, "samples.num_samples": 6}, "base.samples is 5, and base.samples.num_samples is given, too"),
        (5, "base is 5; a mapping of fields is wanted"),
    ],
)
def test_a_mapping_that_is_wrong_is_named_by_its_field(tree, complaint):
    with pytest.raises(ConfigError) as caught:
        config.from_mapping(Job, tree, "base")
    assert str(caught.value).startswith(complaint)


@dataclass(frozen=True)
class Holder:
    """A config that checks what its dict holds."""

    base: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config.from_mapping(Job, self.base, "base")


def test_a_complaint_about_what_a_dict_holds_names_the_file_or_the_option(write):
    bad, good = write("base: {samples: {num_sample: 1}}"), write("base: {seed: 1}", "good.yaml")
    assert refusal("--config", bad, schema=Holder).startswith(f"{bad}: base.samples.num_sample is not a field")
    assert refusal("--config", good, "--base.seed=x", schema=Holder) == "--base.seed is 'x'; int is wanted"
