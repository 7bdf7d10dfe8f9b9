"""The log of a training, ``log.jsonl``: one JSON object per line, written by rank 0, tailed by the driver.

A record is ``{"step": int, "time": seconds since 1970, metric: number, ...}``; what is text is no metric. The file is
the truth about a run's curves; the tracking server is a copy that may come late. A number that is not finite stands as
``NaN`` or ``Infinity``, which ``json`` and pandas read and strict JSON does not know: a diverged loss must be seen, not
dropped.
"""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from hgscale import files
from hgscale.errors import DataError

Record = dict[str, Any]

_REPAIR = "make room or give a --run_dir that can be written"


class Offset(NamedTuple):
    """How far a log has been read: the position, and the line before it by which a replaced file is known."""

    position: int = 0
    last_line: bytes = b""


class RunLog:
    """The writing end. One process writes; it sees its own lines at once, and so does any reader."""

    def __init__(self, path: Path) -> None:
        """Open for appending, after cutting off a last line that a crash left unfinished.

        Raises:
            RunError: if the file cannot be written.
        """
        self.path = path
        self._open()

    def append(self, step: int, **metrics: float | str) -> None:
        """Write one record; names with a slash are passed as ``**{"eval/l1": 0.1}``. Whole numbers and text stay so.

        Raises:
            RunError: if the disk refuses.
        """
        assert "time" not in metrics, "the log itself writes the time"
        record: Record = {"step": int(step), "time": round(time.time(), 3)}
        record |= {name: value if type(value) in (int, str) else float(value) for name, value in metrics.items()}
        with files.refusals(self.path, _REPAIR):
            # One unbuffered write in append mode: a line is there or not, and readers see it at once.
            line = json.dumps(record).encode() + b"\n"
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def rewind(self, step: int) -> None:
        """Drop the records after ``step``, the checkpoint's, from which training goes on: they will be written again.

        Raises:
            DataError: if a line is not a record.
            RunError: if the disk refuses; the log is then as before.
        """
        records = read_all(self.path)
        kept = [record for record in records if record["step"] <= step]
        if len(kept) == len(records):
            return
        with files.writing(self.path, _REPAIR) as file:
            file.write(b"".join(json.dumps(record).encode() + b"\n" for record in kept))
        self.close()
        self._open()

    def sync(self) -> None:
        """Have every line on the disk: before a checkpoint that counts on them.

        Raises:
            RunError: if the disk refuses.
        """
        with files.refusals(self.path, _REPAIR):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what was appended is already in it."""
        self._file.close()

    def _open(self) -> None:
        with files.refusals(self.path, _REPAIR):
            files.make_directory(self.path.parent)
            self._file = self.path.open("ab", buffering=0)
            lines = self.path.read_bytes()
            if lines and not lines.endswith(b"\n"):
                self._file.truncate(lines.rfind(b"\n") + 1)


def read_all(path: Path) -> list[Record]:
    """Every record of a log; none if there is no file yet; an unfinished last line is left out.

    Raises:
        DataError: if a line is not a record.
    """
    return read_new(path)[0]


def read_new(path: Path, offset: Offset | None = None) -> tuple[list[Record], Offset]:
    """The records written since ``offset``, and the offset to ask with next time.

    After a rewind the log is another file, and is read again from its start: a reader may be given a step twice.

    Args:
        path: of the log, which may not exist yet.
        offset: of the previous call; None reads from the start.

    Raises:
        DataError: naming the first line that is not a record.
    """
    offset = offset or Offset()
    try:
        with path.open("rb") as file:
            file.seek(max(offset.position - len(offset.last_line), 0))
            # The same line at the same place: lines hold their time, so nothing before it was rewritten.
            if file.read(len(offset.last_line)) != offset.last_line:
                offset = Offset()
                file.seek(0)
            fresh = file.read()
    except FileNotFoundError:
        return [], Offset()
    lines = fresh[: fresh.rfind(b"\n") + 1].splitlines(keepends=True)
    if not lines:
        return [], offset
    records = [_record(line, path) for line in lines]
    return records, Offset(offset.position + sum(map(len, lines)), lines[-1])


def _record(line: bytes, path: Path) -> Record:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record["step"], int) and isinstance(record["time"], int | float):
            return record
    except (ValueError, KeyError):
        pass
    shown = line[:60].decode(errors="replace").strip()
    raise DataError(f'{path}: {shown!r} is not a record {{"step": ..., "time": ..., ...}}; remove this line')
