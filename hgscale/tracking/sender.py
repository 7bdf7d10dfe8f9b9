"""A thread that sends what waits, one after the other, for as long as it takes: whoever has something never waits."""

import logging
import threading
import time
from collections.abc import Callable

from hgscale.tracking.store import Availability, complaint_of

FIRST_RETRY_WAIT_S = 1.0
MAX_RETRY_WAIT_S = 30.0
"""Between two tries to reach a store that does not answer: doubled each time, from the first to the last."""

SILENT_WAIT_S = 5.0
"""At the end, what is left to send is said if it takes longer than this."""

_log = logging.getLogger("hgscale.tracking")


class Sender:
    """What waits, by name, and the thread that sends it.

    What a store does not take goes to the end of the line, so that it holds up nothing; what it refuses for good is
    dropped with a warning.
    """

    def __init__(self, shown_uri: str) -> None:
        self._shown_uri = shown_uri
        self._waiting: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._is_over = False
        self._last_progress = 0.0
        self._thread = threading.Thread(target=self._run, name="send-to-mlflow", daemon=True)
        self._thread.start()

    def put(self, name: str, send: Callable[[], None]) -> None:
        """Have something sent; what waits under the same name is not sent any more."""
        with self._changed:
            self._waiting.pop(name, None)
            self._waiting[name] = send
            self._changed.notify_all()

    def close(self, patience_s: float) -> list[str]:
        """Wait until all is sent, or nothing went through for ``patience_s``; returns the names of what is left."""
        began = self._last_progress = time.monotonic()
        is_said = False
        self._hurry.set()
        with self._changed:
            while self._waiting and self._thread.is_alive():
                now = time.monotonic()
                if now - self._last_progress >= patience_s:
                    break
                if not is_said and now - began >= SILENT_WAIT_S:
                    is_said = True
                    _log.warning("tracking: sending the last %d entries to %s", len(self._waiting), self._shown_uri)
                self._changed.wait(min(SILENT_WAIT_S, patience_s))
            self._is_over = True
            self._hurry.set()
            self._changed.notify_all()
            return list(self._waiting)

    def _run(self) -> None:
        availability = Availability(self._shown_uri)
        wait_s = 0.0
        while True:
            if self._hurry.wait(wait_s):
                self._hurry.clear()  # one pause is cut short; if the store still fails, pauses grow from the first
                wait_s = 0.0
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or self._waiting)
                if self._is_over:
                    return
                name, send = next(iter(self._waiting.items()))
            complaint = complaint_of(send)
            if complaint and complaint.is_final:
                _log.warning("tracking: %s refuses %s: %s; it is not all there", self._shown_uri, name, complaint.text)
                complaint = None
            availability.note(complaint)
            wait_s = min(max(FIRST_RETRY_WAIT_S, 2 * wait_s), MAX_RETRY_WAIT_S) if complaint else 0.0
            with self._changed:
                if complaint is None:
                    self._last_progress = time.monotonic()
                if self._waiting.get(name) is send:  # otherwise something newer has taken its place
                    del self._waiting[name]
                    if complaint:
                        self._waiting[name] = send
                self._changed.notify_all()
