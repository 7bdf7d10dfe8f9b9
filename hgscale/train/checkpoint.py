"""Write, commit and find checkpoints: a directory each, and what has no valid manifest does not exist.

A checkpoint is written to a temporary name, hashed, renamed, and gets its ``manifest.json`` last. So whenever a run
ends, killed or not, each directory is either whole or known not to be. Beside a checkpoint may lie its universal form
(``step-00000010.universal``), which any number of workers can load: committed likewise, gone with its checkpoint.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from hgscale import files
from hgscale.errors import ConfigError, RunError

MANIFEST = "manifest.json"
_MODE = 0o755  # of directories, whatever the umask: see refuse_strangers
LIBRARIES = ("hgscale", "torch", "deepspeed", "ray", "transformers", "numpy")
_NAME = re.compile(r"step-(\d{8,})|\.step-(\d{8,})\.part")
_UNIVERSAL_NAME = re.compile(r"step-(\d{8,})\.universal|\.step-(\d{8,})\.universal\.part")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest and files are in order.

    Attributes:
        path: its directory, for ``Engine.load``.
        step: optimizer steps done.
        facts: what the run put down to continue (cursor, rng keys, ...), with ``versions`` of libraries.
        sha256: of all that the manifest says, the hashes of the files included.
    """

    path: Path
    step: int
    facts: dict[str, Any]
    sha256: str

    @property
    def fingerprint(self) -> str:
        """Of the config sections that decide numbers, see ``config.fingerprint``."""
        return str(self.facts["fingerprint"])

    @property
    def world_size(self) -> int:
        """Number of workers that wrote it."""
        return int(self.facts["world_size"])


def write(
    root: Path,
    step: int,
    facts: Mapping[str, Any],
    save: Callable[[Path], None],
    *,
    rank: int,
    barrier: Callable[[], None],
    keep: int = 2,
) -> None:
    """Write and commit one checkpoint, then remove all but the newest; called by every rank.

    Args:
        root: folder of the run's checkpoints, seen by all ranks; made when missing.
        step: optimizer steps done.
        facts: what is needed to continue, as JSON values; ``fingerprint`` and ``world_size`` among it.
        save: writes this rank's share into the directory it is given, as ``Engine.save`` does.
        rank: 0 commits.
        barrier: returns once every rank has called it.
        keep: how many checkpoints stay.

    Raises:
        RunError: the disk refused; the checkpoints that were there stand.
    """
    assert keep >= 1, "the newest checkpoint is kept"
    assert facts.keys() >= {"fingerprint", "world_size"}, "these are read back on resume"
    json.dumps(dict(facts))  # what is no JSON is refused now, by every rank, and not by one that the others wait for
    temporary = root / f".step-{step:08d}.part"  # not by process: all ranks write to it
    try:
        if rank == 0:
            root.mkdir(_MODE, parents=True, exist_ok=True)
            _remove(temporary)
            temporary.mkdir(_MODE)
        barrier()
        save(temporary)
        barrier()
        if rank == 0:
            _commit(temporary, root / f"step-{step:08d}", step, dict(facts) | {"versions": versions()})
        barrier()
        if rank == 0:
            for _, path in [entry for entry in _directories(root) if (entry[1] / MANIFEST).is_file()][keep:]:
                _remove(_universal_path(path))
                _remove(path)
    except OSError as error:
        raise RunError(
            f"{root}: the checkpoint of step {step} could not be written: {error}; see that the disk has room and can "
            "be written, and run again: it resumes from the checkpoint before"
        ) from error


def newest(root: Path, fingerprint: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, every file of it hashed, and a line for each newer one that was passed over.

    Args:
        root: folder of the run's checkpoints; may be missing.
        fingerprint: of the run that wants to resume.

    Returns:
        checkpoint: None where there is no valid one; skipped: which ones are not valid, why, and what is used instead.

    Raises:
        ConfigError: the newest valid checkpoint belongs to a run of another fingerprint, or others can write to it.
    """
    faults: list[str] = []
    found: Checkpoint | None = None
    for step, path in _directories(root):
        try:
            found = _read(path, step)
            break
        except _InvalidError as fault:
            faults.append(f"{path}: {fault}")
    if found is not None and found.fingerprint != fingerprint:
        raise ConfigError(
            f"{found.path}: written by a run of fingerprint {found.fingerprint}, this one has {fingerprint}: a setting "
            "that decides numbers differs; give another --run_dir, or the config of that run (config.yaml beside it)"
        )
    if found is not None:
        refuse_strangers(found.path)
    instead = f"the previous one, step {found.step}, is used" if found else "no earlier one, the run starts anew"
    return found, [f"{fault}; {instead}" for fault in faults]


def newest_step(root: Path) -> int:
    """Steps done at the newest checkpoint that is committed, by its name alone; 0 without one."""
    return next((step for step, path in _directories(root) if (path / MANIFEST).is_file()), 0)


def find(directory: Path, fingerprint: str, world_size: int) -> tuple[Checkpoint | None, list[str]]:
    """As ``newest``, with the path that this many workers load: of the universal form if another number wrote it.

    Where another number wrote it and it has no valid universal form, the path is the checkpoint's own: what lies whole
    on every worker is loaded from there, and ``Engine.load`` refuses the rest.
    """
    found, complaints = newest(directory, fingerprint)
    if found is not None and found.world_size != world_size and (form := universal_form(found)) is not None:
        found = replace(found, path=form)
    return found, complaints


def universal_form(checkpoint: Checkpoint) -> Path | None:
    """The universal form of a checkpoint, every file of it hashed; None where there is no valid one.

    Raises:
        ConfigError: if others can write to it.
    """
    path = _universal_path(checkpoint.path)
    try:
        form = _read(path, checkpoint.step)
    except _InvalidError:
        return None
    if form.facts["made_of"] != checkpoint.sha256:
        return None  # of a checkpoint of the same step that was here before
    refuse_strangers(path)
    return path


def write_universal_form(checkpoint: Checkpoint, convert: Callable[[Path, Path], None]) -> None:
    """Write and commit the universal form of a checkpoint. For one process, while none writes or loads.

    Args:
        checkpoint: whole, as ``newest`` gives it.
        convert: reads the first directory and writes into the second, which is empty.

    Raises:
        RunError: the disk refused; the checkpoint stands.
    """
    final = _universal_path(checkpoint.path)
    temporary = final.parent / f".{final.name}.part"
    try:
        _remove(temporary)
        temporary.mkdir(_MODE)
        convert(checkpoint.path, temporary)
        _commit(temporary, final, checkpoint.step, checkpoint.facts | {"made_of": checkpoint.sha256})
    except OSError as error:
        raise RunError(
            f"{checkpoint.path}: could not be converted for another number of workers: {error}; see that the disk has "
            f"room and can be written, or run with cluster.num_workers={checkpoint.world_size}, which wrote it"
        ) from error


def sweep(root: Path) -> list[Path]:
    """Remove every checkpoint that is not valid, and return their paths. For rank 0 alone, while no rank writes.

    Universal forms that are not valid, or whose checkpoint is not, go too.
    """
    removed, forms = [], set()
    for step, path in _directories(root):
        try:
            form = universal_form(_read(path, step))
        except _InvalidError:
            removed.append(path)
        else:
            forms.add(form)
    removed += [path for _, path in _directories(root, _UNIVERSAL_NAME) if path not in forms]
    for path in removed:
        _remove(path)
    return removed


def refuse_strangers(path: Path) -> None:
    """See that nobody else can change a checkpoint: neither its files, nor its directory and the two above, which are
    the folder of checkpoints and the run's.

    Hashes do not show that: who can write a file can write its manifest.

    Raises:
        ConfigError: naming the first that others can write (a sticky directory, as /tmp, lets them only add), or that
            belongs to another user who is not root.
    """
    run_dir = path.parent.parent
    for place in (run_dir, path.parent, path, *sorted(path.rglob("*"))):
        facts = place.stat()
        sticky = stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX
        if facts.st_mode & stat.S_IWOTH and not sticky:
            raise ConfigError(
                f"{place}: every user can write it (mode {stat.S_IMODE(facts.st_mode):o}), so the checkpoint may be "
                f"anyone's; if you trust it, `chmod -R o-w {quote(str(run_dir))}` and run again"
            )
        if facts.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"{place}: belongs to user {facts.st_uid}, and this process to user {os.geteuid()}; if you trust the "
                f"checkpoint, `chown -R {os.geteuid()} {quote(str(run_dir))}` and run again, or give another --run_dir"
            )


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide numbers; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _InvalidError(Exception):
    """Why a directory is not a checkpoint. Never leaves this module."""


def _directories(root: Path, name: re.Pattern[str] = _NAME) -> list[tuple[int, Path]]:
    """(step, path) of all that calls itself a checkpoint, half-written ones included, newest first."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        if (match := name.fullmatch(path.name)) and path.is_dir():
            found.append((int(match[1] or match[2]), path))
    return sorted(found, reverse=True)


def _universal_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.universal")


def _commit(temporary: Path, final: Path, step: int, facts: dict[str, Any]) -> None:
    """Hash, rename, and write the manifest last."""
    paths = sorted(path for path in temporary.rglob("*") if path.is_file())
    for path in temporary.rglob("*"):
        path.chmod(path.stat().st_mode & ~stat.S_IWOTH)  # for a umask that lets everybody write
        if path.is_dir():
            files.sync_directory(path)
    entries = {
        path.relative_to(temporary).as_posix(): {"sha256": _sha256(path, flush=True), "size": path.stat().st_size}
        for path in paths
    }
    content = {"step": step, "facts": facts, "files": entries}
    text = json.dumps({"content": content, "sha256": _content_sha256(content)}, indent=1)
    _remove(final)
    temporary.rename(final)
    files.sync_directory(final.parent)
    _seal(final, text)


def _seal(final: Path, text: str) -> None:
    """Write the manifest: from here on the checkpoint counts."""
    with files.replacing(final / MANIFEST) as handle:
        os.fchmod(handle.fileno(), 0o644)
        handle.write(text.encode())


def _read(path: Path, step: int) -> Checkpoint:
    """Check a directory against its manifest.

    Raises:
        _InvalidError: saying what is wrong with it.
    """
    if not (path / MANIFEST).is_file():
        raise _InvalidError("half-written: no manifest")
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        content, written = manifest["content"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _InvalidError(f"{MANIFEST} cannot be read ({type(error).__name__}: {error})") from None
    _compare(MANIFEST, _content_sha256(content), written)
    if content["step"] != step:
        raise _InvalidError(f"{MANIFEST} is of step {content['step']}")
    for name, facts in content["files"].items():
        if not (path / name).is_file():
            raise _InvalidError(f"{name} is missing")
        if (size := (path / name).stat().st_size) != facts["size"]:
            raise _InvalidError(f"{name} has {size} bytes, manifest says {facts['size']}")
        _compare(name, _sha256(path / name), facts["sha256"])
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        # Hidden ones are of file systems (.nfs...), or a manifest that was being written: nobody looks for them here.
        if file.is_file() and name not in content["files"] and name != MANIFEST and not file.name.startswith("."):
            raise _InvalidError(f"{name} is not in the manifest")
    return Checkpoint(path, step, content["facts"], written)


def _compare(name: str, got: str, wanted: str) -> None:
    if got != wanted:
        raise _InvalidError(f"sha256 of {name} is {got[:8]}..., manifest says {wanted[:8]}...")


def _content_sha256(content: Any) -> str:
    """Of the manifest itself, so that a cursor that lost a digit is seen too."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path, flush: bool = False) -> str:
    """Hash a file; with flush, have it on the disk first."""
    with path.open("rb") as handle:
        if flush:
            os.fsync(handle.fileno())
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _remove(path: Path) -> None:
    """Remove a checkpoint if it is there; manifest first, so that a half-removed one is none."""
    if path.is_dir():
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
