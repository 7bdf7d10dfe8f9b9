"""The house rules, kept by the tools that the project names: floors and doors, pins, scripts."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hgscale
from hgscale.config import field_types, from_mapping, load
from hgscale.plugins import imported
from hgscale.verbs import VERBS, trained, verb
from tests.pages import FOLDERS, commands, pages


@pytest.fixture(scope="session")
def project(repo_root: Path) -> dict:
    return tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="session")
def pins(repo_root: Path) -> dict[str, str]:
    """Version of each package in the lock."""
    lines = (repo_root / "docker/requirements.lock").read_text().splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    assert all(found), "every line of the lock is name==version"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_floors_and_doors_are_kept(repo_root):
    result = lint_imports(repo_root)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("hypergraph/extra.py", "import hgscale.data", "An import goes to a strictly lower floor"),
        ("data/extra.py", "import hgscale.models", "An import goes to a strictly lower floor"),
        ("rng.py", "import hgscale.config", "An import goes to a strictly lower floor"),
        ("utils.py", "", "An import goes to a strictly lower floor"),
        ("train/extra.py", "import ray.train", "ray has one door"),
        ("train/extra.py", "import deepspeed", "deepspeed has one door"),
        ("cluster/extra.py", "from mlflow import start_run", "mlflow has one door"),
        ("hypergraph/extra.py", "def late():\n    import torch", "No torch on the floors below"),
        ("finetune/extra.py", "import hgscale.pretrain.task", "An import goes to a strictly lower floor"),
        ("cluster/extra.py", "import hgscale.study", "An import goes to a strictly lower floor"),
        ("train/runlog.py", "import hgscale.train.worker", "No two files or folders import each other"),
        ("study/extra.py", "from hgscale.pretrain import task", "Machinery knows no task"),
        ("cluster/extra.py", "import hgscale.finetune.task", "Machinery knows no task"),
    ],
)
def test_an_import_through_a_wall_is_found(repo_root, tmp_path, module, line, contract):
    shutil.copytree(repo_root / "hgscale", tmp_path / "hgscale", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repo_root / "pyproject.toml", tmp_path)
    with (tmp_path / "hgscale" / module).open("a") as source:
        source.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(rf"{contract}.* BROKEN", result.stdout)


def test_importing_the_package_loads_nothing_heavy(repo_root):
    code = (
        "import sys, hgscale; dir(hgscale);"
        "heavy = {'numpy', 'scipy', 'numba', 'torch', 'ray', 'deepspeed', 'mlflow', 'transformers', 'jsonargparse'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "owner"), hgscale._OWNERS.items())
def test_every_verb_is_defined_where_the_package_looks_for_it(repo_root, name, owner):
    path = repo_root / (owner.replace(".", "/") + ".py")
    defined = {node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")}
    assert name in defined


def test_the_package_has_no_other_names():
    assert {"inspect", "pretrain", "recover", "__version__"} <= set(dir(hgscale))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hgscale.nonsense


def test_the_package_has_the_version_of_the_project(project):
    assert hgscale.__version__ == project["version"]


def test_the_lock_pins_every_dependency_within_its_bounds(project, pins):
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


def test_the_lock_has_what_builds_the_project_without_isolation(repo_root, pins):
    for text in tomllib.loads((repo_root / "pyproject.toml").read_text())["build-system"]["requires"]:
        assert Requirement(text).specifier.contains(pins[canonicalize_name(Requirement(text).name)])


FAKE_PYTHON = """#!/usr/bin/env bash
# Stands for a Python: makes a .venv whose pip writes down what it is asked, and fails while a file "broken" exists.
case "$*" in
--version) echo Python 3.11 ;;
"-m venv --clear .venv")
    mkdir -p .venv/bin
    printf '#!/bin/sh\\necho "$@" >>pip.log\\n[ ! -e broken ]\\n' >.venv/bin/pip
    printf '#!/bin/sh\\necho "ran: $0 $* threads=$OMP_NUM_THREADS"\\n' >.venv/bin/hgscale
    for tool in ruff mypy lint-imports pytest; do cp .venv/bin/hgscale .venv/bin/$tool; done
    chmod +x .venv/bin/*
    ;;
esac
"""


@pytest.fixture
def clone(repo_root, tmp_path) -> Path:
    """A copy of the scripts, with a fake Python beside it."""
    folder = tmp_path / "a clone"
    for part in ("launch", ".ci"):
        shutil.copytree(repo_root / part, folder / part)
    (folder / "docker").mkdir()
    for part in ("docker/requirements.lock", "pyproject.toml"):
        shutil.copy(repo_root / part, folder / part)
    (tmp_path / "a python").write_text(FAKE_PYTHON)
    (tmp_path / "a python").chmod(0o755)
    return folder


def launch(clone: Path, script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script from a folder that is not its own."""
    environment = os.environ | {"PYTHON": str(clone.parent / "a python")}
    command = ["bash", str(clone / script), *args]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False)


def pip_calls(clone: Path) -> list[str]:
    log = clone / "pip.log"
    return log.read_text().splitlines() if log.exists() else []


def test_quickstart_sets_up_once_and_passes_its_options_on(clone):
    first = launch(clone, "launch/quickstart.sh", "--seeds", "a b")
    assert first.returncode == 0, first.stderr
    ran = "/hgscale study --config configs/study/quickstart.yaml --seeds a b threads=1"
    assert first.stdout.splitlines()[-1].endswith(ran)
    assert [call.split()[-2:] for call in pip_calls(clone)] == [["-r", "docker/requirements.lock"], ["-e", "."]]
    second = launch(clone, "launch/quickstart.sh")
    assert second.stdout.splitlines()[0] == "set-up: ready"
    assert len(pip_calls(clone)) == 2


def test_submit_sh_sets_up_and_passes_its_options_on(clone):
    done = launch(clone, "launch/submit.sh", "pretrain", "--address", "http://head:8265", "--no_wait")
    assert done.returncode == 0, done.stderr
    ran = "/hgscale submit pretrain --address http://head:8265 --no_wait threads=1"
    assert done.stdout.splitlines()[-1].endswith(ran)


@pytest.mark.parametrize("changed", ["docker/requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed_again(clone, changed):
    launch(clone, "launch/quickstart.sh")
    with (clone / changed).open("a") as file:
        file.write("\n# changed\n")
    assert launch(clone, "launch/quickstart.sh").returncode == 0
    assert len(pip_calls(clone)) == 4


def test_a_set_up_that_failed_is_tried_again(clone):
    (clone / "broken").touch()
    failed = launch(clone, "launch/quickstart.sh")
    assert failed.returncode != 0
    assert "ran:" not in failed.stdout
    (clone / "broken").unlink()
    assert launch(clone, "launch/quickstart.sh").returncode == 0


def test_a_python_that_does_not_serve_is_refused_by_name(clone):
    (clone.parent / "a python").write_text("#!/bin/sh\nexit 1\n")
    result = launch(clone, "launch/quickstart.sh")
    assert result.returncode != 0
    assert "set-up: " in result.stderr
    assert "set PYTHON" in result.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("script", ["launch/test.sh", ".ci/run"])
def test_the_checks_run_every_tool_and_stop_at_the_first_that_fails(clone, script):
    result = launch(clone, script)
    ran = [re.sub(r".*/(\S+)(.*) threads=1", r"\1\2", line) for line in result.stdout.splitlines() if "ran:" in line]
    assert [line.strip() for line in ran] == ["ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"]
    (clone / ".venv/bin/mypy").write_text("#!/bin/sh\nexit 3\n")
    stopped = launch(clone, script)
    assert stopped.returncode == 3
    assert "/pytest threads" not in stopped.stdout


def test_the_checks_pass_options_to_pytest(clone):
    assert "/pytest -m slow threads=1" in launch(clone, "launch/test.sh", "-m", "slow").stdout


@pytest.mark.parametrize(
    "script", [".ci/run", "launch/quickstart.sh", "launch/slurm.sbatch", "launch/submit.sh", "launch/test.sh"]
)
def test_scripts_can_be_executed(repo_root, script):
    assert os.access(repo_root / script, os.X_OK)


@pytest.mark.parametrize(
    "module",
    ["hgscale", "hgscale.pretrain.task", "hgscale.pretrain.run", "hgscale.cluster.submit", "hgscale.study.run"],
)
def test_planning_a_run_loads_nothing_heavy(module):
    heavy = "torch transformers deepspeed ray mlflow matplotlib"
    code = f"import sys, {module}; print([name for name in {heavy.split()} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() == "[]"


# The pages

TOP = ("configs", "hgscale", "launch", "tests", "docker", ".github", ".ci")


def headings(text: str) -> set[str]:
    """What a link may name behind #, as GitHub makes it of a heading."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def markers(root: Path) -> list[str]:
    """The studies that have a place for their table, in the order of the pages."""
    text = "\n".join(page.read_text() for page in pages(root))
    return re.findall(r"^<!-- hgscale report (\S+) -->$", text, flags=re.MULTILINE)


def fields_of(command: str) -> tuple[list[str], set[str]]:
    """(Options of a command of hgscale, the fields that its verb has)."""
    words = shlex.split(command)
    words = words[words.index("hgscale") + 1 :]
    rows = [verb(word) for word in words[:2] if word in {row.name for row in VERBS}]
    if len(rows) == 1 and (other := rows[0].default_other):
        rows.append(verb(other))
    known = {name for row in rows for name in field_types(getattr(hgscale, row.config))}
    return [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")], known


def test_the_readme_is_short(repo_root):
    assert len((repo_root / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_explains_itself(repo_root, folder):
    assert (repo_root / folder / "README.md").read_text().startswith("# ")


def test_the_readme_names_every_verb_and_every_page(repo_root):
    text = (repo_root / "README.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE) == [row.name for row in VERBS]
    for page in pages(repo_root)[1:]:
        assert f"]({page.relative_to(repo_root)})" in text


def test_the_house_names_every_room(repo_root):
    rooms = {path.parent.name for path in (repo_root / "hgscale").glob("*/__init__.py")}
    text = (repo_root / "hgscale/README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)/` \|", text, flags=re.MULTILINE)) == rooms


def test_the_readmes_table_says_what_the_study_says(repo_root):
    rows = re.findall(r"^\| .* \| [\d,]+ \|.*", (repo_root / "README.md").read_text(), flags=re.MULTILINE)
    studies = [line.split(" | ") for line in (repo_root / "configs/study/README.md").read_text().splitlines()]
    assert len(rows) >= 3
    for row in rows:
        numbers = set(row.strip("| ").split(" | ")[1:])
        assert any(numbers <= set(cells) for cells in studies), row


def test_links_of_the_pages_lead_somewhere(repo_root):
    for page in pages(repo_root):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            place, _, heading = link.partition("#")
            target = (page.parent / place).resolve() if place else page
            assert "://" in link or target.exists(), f"{page}: {link}"
            assert not heading or heading in headings(target.read_text()), f"{page}: {link}"


def test_paths_in_the_pages_exist(repo_root):
    for page in pages(repo_root):
        found = re.findall(r"(?<![\w./-])(?:[\w.-]+/)+[\w.-]*", page.read_text())
        rooms = [path.parent.name for path in page.parent.glob("*/__init__.py")]
        for path in (path.rstrip(".") for path in found if not re.search("ROOM|MODULE", path)):
            first = path.split("/")[0]
            if first in TOP or first in rooms:
                assert ((repo_root if first in TOP else page.parent) / path).exists(), f"{page}: {path}"


def test_commands_of_the_pages_have_the_fields_that_they_set(repo_root):
    found = [command for command in commands(repo_root) if "hgscale" in shlex.split(command)]
    assert len(found) > 20
    for command in found:
        options, known = fields_of(command)
        # A field that holds a dict is named by its key, too: --model.config.depth.
        holders = {name for name in known if name.endswith("config")}
        set_here = {option for option in options if option.rpartition(".")[0] not in holders}
        assert set_here <= known | {"config", "help", "print_config"}, command


def test_the_studies_that_a_page_shows_have_known_fields(repo_root, tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (repo_root / "configs/study/README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "study.yaml").write_text(block)
        study = load(hgscale.StudyConfig, tmp_path / "study.yaml")
        task = imported(trained(study.task, "task").task, "task")
        from_mapping(task, study.base, "base")
        changed = [names for fields in [study.axes, *study.variants.values()] for names in fields]
        assert set(re.findall(r"[\w.]+", " ".join(changed))) <= set(field_types(task))


def test_every_study_has_one_place_for_its_table(repo_root):
    studies = sorted(path.stem for path in (repo_root / "configs/study").glob("*.yaml"))
    assert sorted(markers(repo_root)) == studies
