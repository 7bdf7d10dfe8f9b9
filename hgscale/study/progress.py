"""How far a study is: cells done, running, failed, and the time left."""

import time

from hgscale.cluster.progress import Progress


class Tally:
    """Counts the cells of a study, and shows how many there are of each kind."""

    def __init__(self, num_cells: int, num_done: int) -> None:
        self.num_cells, self.num_done, self.num_failed = num_cells, num_done, 0
        self.num_before, self.started = num_done, time.monotonic()
        self.progress = Progress("study", num_cells, num_done, unit="cell")

    def ended(self, failed: bool) -> None:
        """A cell finished, or failed for good."""
        self.num_failed += failed
        self.num_done += not failed

    def tick(self, num_running: int) -> None:
        """Show where things stand, if it is time to."""
        beside = f"running {num_running}, failed {self.num_failed}"
        self.progress.show(self.num_done, beside, f"hgscale: {self._line(num_running)}")

    def _line(self, num_running: int) -> str:
        done_here = self.num_done + self.num_failed - self.num_before
        left = ""
        if done_here:
            seconds = (time.monotonic() - self.started) / done_here * (self.num_cells - self.num_done - self.num_failed)
            left = f" left_min={seconds / 60:.1f}"
        return f"study cells={self.num_done}/{self.num_cells} running={num_running} failed={self.num_failed}{left}"
