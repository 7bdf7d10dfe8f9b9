"""How long work ends when it is told to."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """SIGTERM ends work as Ctrl-C does: MLflow runs are closed and Ray's processes end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except SystemExit as end:
        # Ray puts a handler of its own in the place of ours, which exits with the signal's number.
        if end.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def asking_first(ask: Callable[[], None], grace_s: float) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C only asks; what has not ended ``grace_s`` later, or at a second one, is interrupted.

    Args:
        ask: called once, in the main thread, at any moment.
        grace_s: from then to a KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def first(*_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, interrupt)
        signal.setitimer(signal.ITIMER_REAL, grace_s)
        ask()

    before = {number: signal.signal(number, first) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
