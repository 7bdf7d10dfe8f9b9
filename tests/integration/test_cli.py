"""The door: what a user types, what comes back, and what a wrong request costs (one line, exit 2, nothing written)."""

import re
import shlex
from pathlib import Path

import pytest

from hgscale.cli import main
from tests.pages import commands

REPO = Path(__file__).parents[2]
PAPER = str(REPO / "configs/pretrain/paper.yaml")


def simplices(folder: Path, sizes: str, nodes: str) -> str:
    folder.mkdir()
    (folder / "toy-nverts.txt").write_text(sizes)
    (folder / "toy-simplices.txt").write_text(nodes)
    return str(folder)


def pairs(path: Path, *rows: str) -> str:
    path.write_text("u,v,weight\n" + "".join(f"{row}\n" for row in rows))
    return str(path)


BAD_WORLDS = {
    "negative weight": lambda tmp: pairs(tmp / "w.csv", "0,1,0.5", "1,2,-0.5"),
    "NaN weight": lambda tmp: pairs(tmp / "w.csv", "0,1,0.5", "1,2,nan"),
    "weights of sum zero": lambda tmp: pairs(tmp / "w.csv", "0,1,0", "1,2,0"),
    "negative node": lambda tmp: pairs(tmp / "w.csv", "0,-1,0.5", "1,2,0.5"),
    "repeated node": lambda tmp: pairs(tmp / "w.csv", "0,0,0.5", "1,2,0.5"),
    "no edges": lambda tmp: pairs(tmp / "w.csv"),
    "empty simplex": lambda tmp: simplices(tmp / "s", "2\n0\n", "1\n2\n"),
    "truncated simplices": lambda tmp: simplices(tmp / "s", "2\n3\n", "1\n2\n3\n"),
    "mixed-up simplex files": lambda tmp: simplices(tmp / "s", "1\n2\n3\n2\n3\n", "2\n3\n"),
    "node twice in a simplex": lambda tmp: simplices(tmp / "s", "2\n2\n", "1\n1\n1\n2\n"),
    "missing file": lambda tmp: str(tmp / "nowhere.csv"),
}


@pytest.mark.parametrize("verb", ["inspect", "pretrain"])
@pytest.mark.parametrize("name", BAD_WORLDS)
def test_a_bad_world_is_one_line_and_exit_2(
    name: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [verb, "--config", PAPER, "--world.path", BAD_WORLDS[name](tmp_path)]
    run_dir = tmp_path / "run"
    assert main(args + (["--run_dir", str(run_dir)] if verb == "pretrain" else [])) == 2
    assert one_line(capsys)
    assert not run_dir.exists()


BAD_REQUESTS = {
    "unknown field": (["--samples.num_sample", "5"], "did you mean samples.num_samples"),
    "unknown section": (["--sample.num_samples", "5"], "did you mean samples.num_samples"),
    "wrong type": (["--train.num_steps", "many"], "train.num_steps"),
    "a batch that does not divide": (["--train.global_batch", "1001", "--cluster.num_workers", "2"], "use 1002"),
    "a micro-batch that does not divide": (["--train.global_batch", "1000", "--train.micro_batch", "300"], "use 1200"),
    "a corpus smaller than a batch": (["--samples.num_samples", "100"], "smaller than train.global_batch"),
    "more workers than cores": (["--cluster.num_workers", "4000"], "use at most"),
    "width and heads": (["--model.hidden_size", "130"], "not a multiple"),
    "no such model": (["--model.name", "no_such_model"], "model.name"),
    "no such deepspeed file": (["--engine.deepspeed_config", "nowhere.json"], "nowhere.json"),
    "chain after one mask": (["--readout.method", "chain"], "random_subset"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_one_line_and_exit_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, said = BAD_REQUESTS[name]
    run_dir = tmp_path / "run"
    assert main(["pretrain", "--config", PAPER, "--run_dir", str(run_dir), *options]) == 2
    assert said in one_line(capsys)
    assert not run_dir.exists()


def test_a_run_directory_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("here is no directory\n")
    assert main(["pretrain", "--config", PAPER, "--run_dir", str(tmp_path / "file/run")]) == 2
    assert "cannot be written" in one_line(capsys)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work\n")
    assert main(["pretrain", "--config", PAPER, "--run_dir", str(tmp_path)]) == 2
    assert "no run's" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_deepspeed_file_that_contradicts_the_config_is_refused_naming_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    args = ["pretrain", "--config", PAPER, "--run_dir", str(tmp_path / "run")]
    assert main([*args, "--engine.deepspeed_config", str(tmp_path / "ds.json"), "--engine.zero_stage", "1"]) == 2
    said = one_line(capsys)
    assert "zero_optimization" in said
    assert "engine.zero_stage" in said
    assert not (tmp_path / "run").exists()


def test_recover_of_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "--config", PAPER]) == 2
    assert "run_dir" in one_line(capsys)
    assert main(["recover", "--config", PAPER, "--run_dir", str(tmp_path)]) == 2
    assert "holds no run of `hgscale pretrain`" in one_line(capsys)


@pytest.mark.parametrize(
    "verb", ["inspect", "generate", "pretrain", "recover", "study", "report", "preflight", "submit"]
)
def test_help_explains_every_field(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    options = re.findall(r"^  (--[a-z_.]+)(?: \S+)*?(?:  +(\S.*))?\n((?:      .*\n)*)", text, flags=re.MULTILINE)
    assert options
    for name, beside, below in options:
        words = re.sub(r"\((required|default|type).*", "", " ".join(f"{beside} {below}".split())).strip()
        assert words, f"{name} has no explanation"


def test_every_verb_reads_a_file_written_for_pretrain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--config", PAPER]) == 0
    assert "floor at N=" in capsys.readouterr().out


def test_an_unknown_verb_and_no_verb_say_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert "inspect, generate, pretrain, recover, finetune, study, report" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert "exit status" in capsys.readouterr().out


@pytest.mark.parametrize("command", commands(REPO))
def test_a_command_of_the_pages_names_what_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "bash" or words[0] == "python":
        assert (REPO / words[1]).is_file()
    elif words[0] == "hgscale":
        options = [str(REPO / word) if word.startswith("configs/") else word for word in words[1:]]
        if "own.yaml" in options:
            return  # the reader's own file, as a page shows it: tests/integration/test_examples.py runs it
        with pytest.raises(SystemExit) as end:
            main([*options, "--print_config"])
        assert end.value.code == 0
    else:
        shell, tools = (
            ("cd", "umask", "export", "source"),
            ("mlflow", "pytest", "git", "ray", "ssh", "sbatch", "kubectl", "docker"),
        )
        assert words[0] in shell + tools


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error, which must be one line by us."""
    said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(said) == 1, said
    assert said[0].startswith("hgscale: ")
    return said[0]
