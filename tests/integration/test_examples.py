"""The examples of hgscale/README.md, run as they stand: blocks of Python, YAML and commands, in their order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def blocks(letter: str) -> list[tuple[str, str]]:
    """(language, text) of each block of an example."""
    text = (REPO / "hgscale" / "README.md").read_text()
    section = re.search(rf"^### \({letter}\) .*?(?=^##)", text, flags=re.MULTILINE | re.DOTALL)
    assert section, letter
    return re.findall(r"```(\w+)\n(.*?)```", section[0], flags=re.DOTALL)


@pytest.mark.parametrize(
    ("letters", "left"),
    [
        ("a", ["recovery.png"]),
        ("ab", ["run/summary.json", "home/studies/own/report/report.html"]),
        ("c", ["ring/summary.json"]),
        ("d", ["triples/recovered.json"]),
    ],
)
def test_an_example_of_the_page_runs_as_it_stands(letters: str, left: list[str], tmp_path: Path) -> None:
    for letter in letters:
        for language, text in blocks(letter):
            assert text.count("\n") <= 40
            named = re.match(r"# (\w+\.(?:py|yaml))\n", text)
            if named:
                (tmp_path / named[1]).write_text(text)
            elif letter == letters[-1]:
                run(language, text, tmp_path)
    for name in left:
        assert (tmp_path / name).stat().st_size > 0, name


def run(language: str, text: str, folder: Path) -> None:
    """Run a block in a folder, as a user would who has the package installed."""
    environment = os.environ | {"HGSCALE_HOME": str(folder / "home")}
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-e", "-c", text]
    if language == "python":
        environment["PYTHONPATH"] = os.pathsep.join(path)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
