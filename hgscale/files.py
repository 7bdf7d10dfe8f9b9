"""Write files whole or not at all, and durably: a reader, a kill and a power cut find the old file or the new one.

A file is written under a temporary name beside its own, synced, renamed, and its directory synced. What a killed
process leaves is named ``.<name>.<host>-<pid>.part`` and may be removed by whoever owns the directory.
"""

import errno
import fcntl
import glob
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hgscale.errors import ConfigError, RunError

LEFT_S = 3600.0
"""After which what lies under a temporary name has no writer any more."""

REPAIR = "make room, and run the same command again"


def write_bytes(path: Path, data: bytes | memoryview, repair: str = REPAIR, *, durable: bool = True) -> None:
    """Write a file.

    Args:
        path: of the file; missing folders above it are made.
        data: its content.
        repair: what the error line advises.
        durable: survive a power cut. False saves the milliseconds of syncing, for notes that only live processes read.

    Raises:
        RunError: if the disk refuses; the file is then as before.
    """
    with writing(path, repair, durable=durable) as file:
        file.write(data)


def write_text(path: Path, text: str, repair: str = REPAIR, *, durable: bool = True) -> None:
    """``write_bytes`` of a text, as UTF-8."""
    write_bytes(path, text.encode(), repair, durable=durable)


def write_json(path: Path, content: Mapping[str, Any], repair: str = REPAIR, *, durable: bool = True) -> None:
    """``write_bytes`` of a JSON object, indented. NaN and infinity are no JSON: they raise ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n", repair, durable=durable)


@contextmanager
def writing(path: Path, repair: str = REPAIR, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes ``path`` at the end of the block; if the block fails, nothing changes.

    Raises:
        RunError: if the disk refuses; any OSError of the block is taken for that.
    """
    with refusals(path, repair), replacing(path, durable=durable) as file:
        yield file


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """``writing`` for who words the refusal himself. Raises OSError."""
    temporary = _temporary(path)
    try:
        make_directory(path.parent)
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


@contextmanager
def writing_folder(path: Path, repair: str = REPAIR, replace: bool = True) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``path`` at the end of the block; all its files are synced.

    If the block fails, nothing changes. A folder that was at ``path`` is set aside, and removed once the new one is
    there: a kill between the two renames leaves both beside ``path``, whole. Without ``replace`` it stays, and the new
    one is dropped: for folders of which several processes make the same.

    Raises:
        RunError: if the disk refuses; any OSError of the block is taken for that.
    """
    temporary = _temporary(path)
    aside = temporary.with_suffix(".old.part")
    try:
        with refusals(path, repair):
            make_directory(path.parent)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
            if replace and path.exists():
                os.replace(path, aside)
            try:
                os.replace(temporary, path)
            except OSError as error:
                if aside.exists():
                    os.replace(aside, path)
                if replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def refusals(path: Path, repair: str = REPAIR) -> Iterator[None]:
    """An OSError of the block as one line that names the file.

    Raises:
        RunError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{path}: cannot be written ({reason}); {repair}") from None


@contextmanager
def held(directory: Path, refusal: Callable[[str], ConfigError], busy: str) -> Iterator[None]:
    """Make a directory and hold it (its file ``lock``) against other processes while the block lasts.

    Storage without locks lets everybody in: who must not mix there needs another guard.

    Args:
        directory: to hold.
        refusal: makes the error for a directory that cannot be written, from the system's reason.
        busy: the error's text where another process holds it.

    Raises:
        ConfigError: of these two.
    """
    try:
        make_directory(directory)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise refusal(error.strerror or str(error)) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(busy) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise refusal(error.strerror or str(error)) from None
        yield


def make_directory(path: Path) -> None:
    """Make a folder and those above it, each synced into its parent. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable; a file system that cannot is left alone. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Make all files and folders below a folder durable. Raises OSError."""
    for folder, _, names in os.walk(path):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(folder))


def sweep(path: Path) -> None:
    """Remove what killed writers of a path left beside it: nobody has touched it for ``LEFT_S``."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_S:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _temporary(path: Path) -> Path:
    """Beside the path; another one on every host of a shared disk, for containers number processes alike."""
    return path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}.part")
