"""Progress of a study: cells done, running, failed, and the time left; a bar on a terminal, lines elsewhere."""

import sys
import time

from tqdm import tqdm

INTERVAL_S = 15.0


class StudyProgress:
    """Shows on standard error how far a study is."""

    def __init__(self, num_cells: int, num_done: int) -> None:
        self.num_cells, self.num_done, self.num_failed, self.num_running = num_cells, num_done, 0, 0
        self.num_before, self.started, self.shown = num_done, time.monotonic(), time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=num_cells, initial=num_done, desc="study", unit="cell", dynamic_ncols=True)

    def ended(self, failed: bool) -> None:
        """A cell finished, or failed for good."""
        self.num_failed += failed
        self.num_done += not failed

    def tick(self, num_running: int) -> None:
        """Show where things stand, if it is time to."""
        self.num_running = num_running
        if self.bar is not None:
            self.bar.n = self.num_done
            self.bar.set_postfix_str(f"running {num_running}, failed {self.num_failed}", refresh=True)
        elif time.monotonic() - self.shown > INTERVAL_S:
            self.shown = time.monotonic()
            self.say(self._line())

    def say(self, line: str) -> None:
        """One line, above the bar if there is one."""
        tqdm.write(f"hgscale: {line}", file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _line(self) -> str:
        done_here = self.num_done + self.num_failed - self.num_before
        left = ""
        if done_here:
            seconds = (time.monotonic() - self.started) / done_here * (self.num_cells - self.num_done - self.num_failed)
            left = f" left_min={seconds / 60:.1f}"
        return f"study cells={self.num_done}/{self.num_cells} running={self.num_running} failed={self.num_failed}{left}"
