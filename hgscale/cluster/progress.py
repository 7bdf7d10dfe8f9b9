"""Progress of long work: a bar on a terminal, one line per interval elsewhere."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

INTERVAL_S = 15.0


class Progress:
    """Shows records of a run's log on standard error."""

    def __init__(self, verb: str, num_steps: int, global_batch: int) -> None:
        self.verb, self.num_steps, self.global_batch, self.shown = verb, num_steps, global_batch, 0.0
        self.bar = tqdm(total=num_steps, desc=verb, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None

    def show(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take new records, in order."""
        records = [record for record in records if "loss" in record]
        if not records:
            return
        last = records[-1]
        if self.bar is not None:
            self.bar.n = last["step"]
            self.bar.set_postfix_str(f"loss {last['loss']:.4f}, {last['samples_per_s']:,.0f} samples/s", refresh=True)
        elif time.time() - self.shown > INTERVAL_S or last["step"] == self.num_steps:
            self.shown = time.time()
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self.verb} {self._line(last)}\n")

    def attempt(self, attempt: Mapping[str, Any]) -> None:
        """Say where an attempt goes on from, and which checkpoints it could not use."""
        lines = list(attempt["complaints"])
        if attempt["start_step"]:
            lines.append(f"going on from the checkpoint at step {attempt['start_step']}")
        for line in lines:
            self.say(line)

    def say(self, line: str) -> None:
        """One line, above the bar if there is one."""
        tqdm.write(f"hgscale: {line}", file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _line(self, record: Mapping[str, Any]) -> str:
        left_min = (self.num_steps - record["step"]) * self.global_batch / record["samples_per_s"] / 60
        return (
            f"step={record['step']}/{self.num_steps} loss={record['loss']:.4f} lr={record['learning_rate']:.1e} "
            f"samples_per_s={record['samples_per_s']:.0f} wait_frac={record['wait_frac']:.3f} "
            f"mem_gib={record['mem_gib']:.2f} left_min={left_min:.1f}"
        )
