"""Checkpoints that exist only when they are whole: written aside, hashed, renamed, and a manifest last. (Provisional: the helper's version replaces this file.)"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgscale.errors import ConfigError


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    step: int
    facts: Mapping[str, Any]

    @property
    def world_size(self) -> int:
        return int(self.facts["world_size"])


def write(root: Path, step: int, facts: Mapping[str, Any], save: Callable[[Path], None], *, rank: int, barrier: Callable[[], None], keep: int = 2) -> None:
    tmp = root / f".step-{step:08d}.tmp"
    final = root / f"step-{step:08d}"
    if rank == 0:
        shutil.rmtree(tmp, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        tmp.mkdir(parents=True)
    barrier()
    save(tmp)
    barrier()
    if rank == 0:
        files = {str(p.relative_to(tmp)): _sha(p) for p in sorted(tmp.rglob("*")) if p.is_file()}
        tmp.rename(final)
        part = final / ".manifest.tmp"
        part.write_text(json.dumps({"step": step, "facts": dict(facts), "files": files}))
        os.replace(part, final / "manifest.json")
        for old in sorted(root.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    barrier()


def newest(root: Path, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
    complaints: list[str] = []
    for path in sorted(root.glob("step-*"), reverse=True):
        try:
            manifest = json.loads((path / "manifest.json").read_text())
        except (OSError, ValueError):
            complaints.append(f"{path}: half-written: no manifest; skipped")
            continue
        bad = [n for n, h in manifest["files"].items() if not (path / n).exists() or _sha(path / n) != h]
        if bad:
            complaints.append(f"{path}: sha256 of {bad[0]} differs; skipped")
            continue
        if manifest["facts"]["fingerprint"] != fingerprint:
            raise ConfigError(f"{path}: of run {manifest['facts']['fingerprint']}, not {fingerprint}")
        return Checkpoint(path, manifest["step"], manifest["facts"]), complaints
    return None, complaints


def sweep(root: Path) -> None:
    for path in root.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
