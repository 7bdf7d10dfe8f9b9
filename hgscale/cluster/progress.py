"""Progress of long work on standard error: a bar on a terminal, one line per interval elsewhere."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

from tqdm import tqdm

from hgscale.train.config import TrainConfig

INTERVAL_S = 15.0


class Progress:
    """How far some work is. What it says is its caller's; how often, and where, is decided here."""

    def __init__(
        self, what: str, total: int, done: int = 0, *, unit: str = "", leave: bool = True, at_once: bool = False
    ) -> None:
        """Begin to show it.

        Args:
            what: the word before the bar.
            total: steps, cells or pieces in all.
            done: of these, before.
            unit: of a piece, in the bar's rate.
            leave: the bar stays where it is once the work is done.
            at_once: the first line need not wait for an interval to pass.
        """
        self.bar = None
        if sys.stderr.isatty() and total > done:
            self.bar = tqdm(total=total, initial=done, desc=what, unit=unit, dynamic_ncols=True, leave=leave)
        self.shown = -INTERVAL_S if at_once else time.monotonic()

    def show(self, done: int, beside: str, line: str, *, now: bool = False) -> None:
        """Say where the work stands.

        Args:
            done: pieces of the total.
            beside: what stands beside the bar.
            line: what is written where there is no bar, if an interval has passed since the last one.
            now: even if none has passed.
        """
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix_str(beside, refresh=True)
        elif not sys.stderr.isatty() and (now or time.monotonic() - self.shown > INTERVAL_S):
            self.shown = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Let go of the terminal."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def say(line: str) -> None:
        """One line, above a bar if there is one."""
        if sys.stderr.isatty():
            tqdm.write(f"hgscale: {line}", file=sys.stderr)
        else:  # tqdm takes its lock for the first time here; an interruption just then is shown as an error of its own
            print(f"hgscale: {line}", file=sys.stderr, flush=True)


# What is said of a training


def of_training(train: TrainConfig, verb: str) -> Progress:
    """The progress of a training, for ``show_records``."""
    return Progress(verb, train.num_steps, unit="step", at_once=True)


def show_records(progress: Progress, records: Iterable[Mapping[str, Any]], train: TrainConfig, verb: str) -> None:
    """Show the newest of some records of a run's log, given in order."""
    last = next((record for record in reversed(list(records)) if "loss" in record), None)
    if last is None:
        return
    step = last["step"]
    left_min = (train.num_steps - step) * train.global_batch / last["samples_per_s"] / 60
    line = (
        f"{time.strftime('%H:%M:%S')} {verb} step={step}/{train.num_steps} loss={last['loss']:.4f} "
        f"lr={last['learning_rate']:.1e} samples_per_s={last['samples_per_s']:.0f} "
        f"wait_frac={last['wait_frac']:.3f} mem_gib={last['mem_gib']:.2f} left_min={left_min:.1f}"
    )
    beside = f"loss {last['loss']:.4f}, {last['samples_per_s']:,.0f} samples/s"
    progress.show(step, beside, line, now=step == train.num_steps)


def say_attempt(progress: Progress, attempt: Mapping[str, Any]) -> None:
    """Say which checkpoints an attempt could not use, and where it goes on from."""
    for line in attempt["complaints"]:
        progress.say(line)
    if attempt["start_step"]:
        progress.say(f"going on from the checkpoint at step {attempt['start_step']}")
