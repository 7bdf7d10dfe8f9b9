"""Who may go on, who is told to stop, who is stuck."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hgscale.train.supervise import STUCK_EXIT, Attempt, SupersededError, listening, stuck_lines, tell_to_stop


def test_an_attempt_is_told_to_stop_and_the_next_one_is_not(tmp_path: Path) -> None:
    first = Attempt.begin(tmp_path)
    assert first.number == 1
    assert not first.is_told_to_stop()
    first.ask_to_stop()
    assert first.is_told_to_stop()
    second = Attempt.begin(tmp_path)
    assert second.number == 2
    assert not second.is_told_to_stop()


def test_an_attempt_that_another_has_followed_is_refused(tmp_path: Path) -> None:
    first = Attempt.begin(tmp_path)
    Attempt.begin(tmp_path)
    with pytest.raises(SupersededError, match="attempt 2 has begun while attempt 1 was running"):
        first.is_told_to_stop()


def test_what_a_process_was_told_before_it_listened_does_not_count() -> None:
    assert not tell_to_stop()
    with listening() as told:
        assert not told.is_set()
        assert tell_to_stop()
        assert told.is_set()
    assert not tell_to_stop()


# The worker: `python test_supervise.py FOLDER SECONDS`: a step that takes so long, where half a second is allowed.


def a_long_step(folder: Path, seconds: float) -> None:
    from hgscale.train.supervise import Watchdog

    watchdog = Watchdog(Attempt.begin(folder, stuck_after_s=0.5), rank=3)
    with watchdog.watching():
        for step in range(4):
            with watchdog.step(step):
                time.sleep(seconds if step == 2 else 0)


def test_a_step_that_does_not_end_leaves_its_stack_and_ends_the_process(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, __file__, str(tmp_path), "60"], capture_output=True, text=True, timeout=50
    )
    assert process.returncode == STUCK_EXIT
    assert "a_long_step" in process.stderr
    (line,) = stuck_lines(Attempt(tmp_path, 1))
    assert "rank 3" in line
    assert "is in no collective" in line
    assert "in step 2" in line
    assert "a_long_step" in Path(line.rpartition("stacks in ")[2]).read_text()
    assert stuck_lines(Attempt(tmp_path, 2)) == []


def test_time_between_steps_does_not_count(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, __file__, str(tmp_path), "0.1"], timeout=50).returncode == 0


@pytest.mark.parametrize(("times", "ends"), [(1, "asked"), (2, "interrupted")])
def test_the_first_signal_asks_and_the_second_interrupts(times: int, ends: str) -> None:
    from hgscale.cluster.signals import asking_first

    asked: list[float] = []
    found = "asked"
    try:
        with asking_first(lambda: asked.append(time.monotonic()), grace_s=60):
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        found = "interrupted"
    assert found == ends
    assert len(asked) == 1


def test_what_does_not_end_in_its_time_is_interrupted() -> None:
    from hgscale.cluster.signals import asking_first

    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()

    def never_ends() -> None:
        with asking_first(lambda: None, grace_s=0.2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        never_ends()
    assert 0.2 <= time.monotonic() - began < 20
    assert signal.getsignal(signal.SIGTERM) is before


if __name__ == "__main__":
    a_long_step(Path(sys.argv[1]), float(sys.argv[2]))
