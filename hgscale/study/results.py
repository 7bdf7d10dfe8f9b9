"""What a study's directory holds: its cells, how each ended, and the numbers of those that finished."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hgscale.errors import ConfigError, DataError

FINISHED, FAILED, MISSING = "FINISHED", "FAILED", "MISSING"


@dataclass(frozen=True)
class Row:
    """One cell of a study: where it stands in the grid, how it ended, and its numbers."""

    cell: str  # fingerprint
    variant: str | None
    axes: dict[str, Any]  # value of every axis by dotted field
    seed: int
    status: str  # FINISHED, FAILED or MISSING
    summary: dict[str, Any]  # summary.json; {} unless FINISHED
    error: str | None  # why it failed
    commit: str | None  # that it ran at
    finished: str | None  # ISO date and time

    def value(self, name: str) -> Any:
        """What the cell says about a name: ``variant``, ``seed``, an axis, else a field of the summary.

        Args:
            name: an axis may be named in full or by its last part, and so may a field of the summary:
                ``world.num_edges`` is the axis of that name where there is one, else the summary's ``num_edges``.

        Returns:
            The value; None where it is missing. An axis whose value is null (fresh samples for ever) speaks through
            the summary.
        """
        if name == "variant":
            return self.variant
        if name == "seed":
            return self.seed
        leaf = name.rpartition(".")[2]
        known = [axis for axis in self.axes if name in (axis, axis.rpartition(".")[2])]
        axis = name if name in known else next(iter(known), None)
        if axis is not None and self.axes[axis] is not None:
            return self.axes[axis]
        return self.summary.get(name, self.summary.get(leaf))


@dataclass(frozen=True)
class Study:
    """A study as it stands on disk."""

    name: str
    directory: Path
    config: dict[str, Any]  # study.yaml
    rows: list[Row]  # in the order of the grid


def read(directory: Path) -> Study:
    """Read a study's directory: ``study.yaml``, ``grid.jsonl``, and of each cell ``cell.json`` and ``summary.json``.

    A cell that has not ended is MISSING, and so is one whose summary was taken away.

    Raises:
        ConfigError: if there is no study.
        DataError: naming the file that is not what it should be.
    """
    try:
        text, grid = (directory / "study.yaml").read_text(), (directory / "grid.jsonl").read_text()
    except OSError:
        raise ConfigError(
            f"{directory}: holds no study (study.yaml and grid.jsonl); give the name or directory of one, "
            "or run `hgscale study` first"
        ) from None
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{directory / 'study.yaml'}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise DataError(f"{directory / 'study.yaml'}: holds {config!r}; the fields of a study are wanted")
    entries = [_entry(directory, number, line) for number, line in enumerate(grid.splitlines(), 1) if line.strip()]
    rows = [row(directory, entry) for entry in entries]
    return Study(str(config.get("name") or directory.name), directory, config, rows)


def commit() -> str | None:
    """The commit of this code, ``-dirty`` where files were changed since; None outside its repository."""
    package = Path(__file__).resolve().parents[1]
    # A package installed inside somebody else's repository is not tracked there.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    name = _git(package, "rev-parse", "--short", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return f"{name}-dirty" if name and changed else name


def _git(folder: Path, *args: str) -> str | None:
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # only looking: leave no lock behind
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def row(directory: Path, entry: Mapping[str, Any]) -> Row:
    """How a cell of a study's directory stands.

    Args:
        directory: of the study; a cell of which it holds nothing is MISSING.
        entry: the cell's place, as in a line of ``grid.jsonl``: cell, variant, axes, seed.

    Raises:
        DataError: naming the file that is not what it should be.
    """
    folder = directory / "cells" / entry["cell"]
    ended = _json(folder / "cell.json")
    status, summary = ended.get("status", MISSING), {}
    if status not in (FINISHED, FAILED, MISSING):
        raise DataError(f"{folder / 'cell.json'}: status is {status!r}; {FINISHED} or {FAILED} is wanted: remove it")
    if status == FINISHED:
        summary = _json(folder / "summary.json")
        status = FINISHED if summary else MISSING
    error = ended.get("error") if status == FAILED else None
    return Row(
        cell=entry["cell"],
        variant=entry["variant"],
        axes=entry["axes"],
        seed=entry["seed"],
        status=status,
        summary=summary,
        error=error,
        commit=ended.get("commit"),
        finished=ended.get("finished"),
    )


def _entry(directory: Path, number: int, line: str) -> dict[str, Any]:
    """A line of the grid."""
    try:
        entry = json.loads(line)
        return {
            "cell": str(entry["cell"]),
            "variant": entry["variant"],
            "axes": dict(entry["axes"]),
            "seed": int(entry["seed"]),
        }
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{directory / 'grid.jsonl'}: line {number} is {line[:80]!r}; "
            '{"cell": ..., "variant": ..., "axes": {...}, "seed": ...} is wanted: run `hgscale study` again'
        ) from None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it, and run `hgscale study` again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object; remove it, and run `hgscale study` again")
    return content
