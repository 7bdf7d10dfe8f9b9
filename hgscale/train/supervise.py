"""What watches over an attempt at a training: who may go on, who is told to stop, and who is stuck.

A training may take many attempts, each a group of workers that starts where the newest checkpoint ends. The driver
writes ``attempt.json`` into the run directory before each; the workers look at it about once a second:

    its number is not theirs    another attempt has begun, of which this one knows nothing: it ends, and writes no more
    it says stop                the driver was told to end: a checkpoint, then the end

A worker that gets SIGTERM, or whose node is about to be taken away, says so to the others at the same look.
"""

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hgscale import files
from hgscale.errors import RunError

LOOK_S = 1.0  # between two looks, which cost the workers one small collective each
STUCK_EXIT = 86  # of a worker that gave up a step

_ATTEMPT = "attempt.json"
_STACKS = "stuck"


class StoppedError(RunError):
    """A training that was told to stop, and has left a checkpoint of the step it had reached."""


class SupersededError(RunError):
    """An attempt that found another one in its place."""


@dataclass(frozen=True)
class Attempt:
    """One group of workers, as its workers know it. Small and picklable.

    Attributes:
        run_dir: of the training, shared by all workers.
        number: of this attempt, different for each in a run directory.
        stuck_after_s: that a step may take; None: as long as it likes.
    """

    run_dir: Path
    number: int
    stuck_after_s: float | None = None

    @staticmethod
    def begin(run_dir: Path, stuck_after_s: float | None = None) -> "Attempt":
        """Announce the next attempt: from now on the workers of earlier ones, if any live, write no more.

        Raises:
            RunError: if the disk refuses.
        """
        attempt = Attempt(run_dir, _announced(run_dir)[0] + 1, stuck_after_s)
        attempt._announce(stop=False)
        return attempt

    def ask_to_stop(self) -> None:
        """Have the workers write a checkpoint and end."""
        self._announce(stop=True)

    def is_told_to_stop(self) -> bool:
        """Whether someone asked.

        Raises:
            SupersededError: if another attempt has begun.
        """
        number, stop = _announced(self.run_dir)
        if number != self.number:
            raise SupersededError(
                f"{self.run_dir}: attempt {number} has begun while attempt {self.number} was running; this one ends"
            )
        return stop

    def _announce(self, stop: bool) -> None:
        said = {"number": self.number, "stop": stop}
        files.write_json(self.run_dir / _ATTEMPT, said, "make room, and run again", durable=False)


def _announced(run_dir: Path) -> tuple[int, bool]:
    """(number of the attempt, whether it is to stop) as last announced in a run directory."""
    try:
        said = json.loads((run_dir / _ATTEMPT).read_text())
    except FileNotFoundError:
        return 0, False
    return int(said["number"]), bool(said["stop"])


_told = threading.Event()  # signals reach a process, not an attempt; a process serves one attempt
_listeners = 0


def tell_to_stop() -> bool:
    """This process is about to lose its machine. Safe to be called from anywhere; says whether anyone listens."""
    _told.set()
    return _listeners > 0


@contextmanager
def listening() -> Iterator[threading.Event]:
    """Set while this lasts when this process is told to stop; what was said before does not count."""
    global _listeners
    _told.clear()
    _listeners += 1
    try:
        yield _told
    finally:
        _listeners -= 1


class Watchdog:
    """Ends this process when a step takes too long, leaving the stacks of all its threads.

    A collective that one worker never joins holds all of them, each silently. Every worker has its own watchdog, so
    each says where it stands: the one that is in no collective, or says nothing, is the one the others wait for.
    """

    def __init__(self, attempt: Attempt | None, rank: int) -> None:
        self._attempt, self._rank = attempt, rank
        self._step: int | None = None
        self._since = 0.0
        self._lock = threading.Lock()
        self._trainer = threading.get_ident()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this lasts, a thread looks after the steps."""
        if self._attempt is None or self._attempt.stuck_after_s is None:
            yield
            return
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over, self._attempt.stuck_after_s), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """While this lasts, the clock runs."""
        with self._lock:
            self._step, self._since = step, time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._step = None

    def _watch(self, over: threading.Event, limit_s: float) -> None:
        while not over.wait(min(LOOK_S, limit_s / 4)):
            with self._lock:
                step, held_s = self._step, time.monotonic() - self._since
            if step is not None and held_s > limit_s:
                self._give_up(step, held_s)

    def _give_up(self, step: int, held_s: float) -> None:
        assert self._attempt is not None
        folder = self._attempt.run_dir / _STACKS
        folder.mkdir(exist_ok=True)
        where = "waits in a collective" if self._is_in_collective() else "is in no collective"
        headline = f"rank {self._rank} (pid {os.getpid()}) {where} after {held_s:.0f} s in step {step}"
        with (folder / f"attempt-{self._attempt.number}-rank-{self._rank}.txt").open("w") as file:
            file.write(f"{headline}\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        sys.stderr.write(f"hgscale: {headline}\n")
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        sys.stderr.flush()
        time.sleep(2 * LOOK_S)  # others come to the same conclusion now; the first death would end them before
        os._exit(STUCK_EXIT)

    def _is_in_collective(self) -> bool:
        """Whether the training thread is inside a collective."""
        frame = sys._current_frames().get(self._trainer)
        while frame is not None:
            if f"torch{os.sep}distributed" in frame.f_code.co_filename:
                return True
            frame = frame.f_back
        return False


def stuck_lines(attempt: Attempt) -> list[str]:
    """What the workers of an attempt that gave up a step said, a line each, with the file of their stacks."""
    files = sorted((attempt.run_dir / _STACKS).glob(f"attempt-{attempt.number}-rank-*.txt"))
    return [f"{file.read_text().partition(chr(10))[0]}; stacks in {file}" for file in files]
