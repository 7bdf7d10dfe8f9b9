"""Faults in a worker: it kills, freezes or signals itself at a named moment, once. No product code knows of them."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        what: kill (SIGKILL), term (SIGTERM), freeze (SIGSTOP) or hang (an endless sleep in the training thread).
        moment: one of those in ``train_with_faults``; a fault of rank 1 at one that only rank 0 passes never happens.
        rank: of the worker that it befalls.
        step: it is due once this step is reached.
        delay_s: from the moment to the signal, so that it falls anywhere within.
    """

    what: str
    moment: str
    rank: int
    step: int
    delay_s: float = 0.0


def train_with_faults(plan: Sequence[Fault], marks: Path, work: str, **arguments: Any) -> None:
    """What a worker does, with faults. A fault that has happened leaves a mark, and does not happen again."""
    from hgscale.pretrain import work as pretrain
    from hgscale.train import checkpoint, engine, runlog

    reached = {"step": 0}

    def passing(moment: str, rank: int) -> None:
        for number, fault in enumerate(plan):
            if (fault.moment, fault.rank) == (moment, rank) and reached["step"] >= fault.step:
                _happen(fault, marks / f"{number}")

    worker, rank = pretrain._PretrainWorker, int(os.environ.get("RANK", 0))

    def count(original: Callable[..., Any], self: Any, step: int) -> Any:
        reached["step"] = step
        return original(self, step)

    _wrap(worker, "micro_batches", count)
    for holder, name, moment in (
        (worker, "resume", "start"),
        (worker, "micro_batches", "step"),
        (worker, "evaluate", "evaluate"),
        (worker, "checkpoint", "checkpoint"),
        (engine.Engine, "load", "load"),
        (engine.Engine, "save", "save"),
        (checkpoint, "_sha256", "hash"),
        (checkpoint, "_commit", "commit"),
        (checkpoint, "_seal", "rename"),
        (checkpoint, "_remove", "remove"),
        (runlog.RunLog, "append", "log"),
        (worker, "finish", "finish"),
    ):
        _wrap(holder, name, functools.partial(_passing_first, passing, moment, rank))
    assert work == "hgscale.pretrain.work:train_worker"
    pretrain.train_worker(**arguments)


def _passing_first(
    passing: Callable[[str, int], None], moment: str, rank: int, original: Callable[..., Any], *args: Any, **kw: Any
) -> Any:
    passing(moment, rank)
    return original(*args, **kw)


def _wrap(holder: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(holder, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kw: Any) -> Any:
        return around(original, *args, **kw)

    setattr(holder, name, wrapped)


def _happen(fault: Fault, mark: Path) -> None:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "freeze": signal.SIGSTOP}.get(fault.what)
    if number is None:
        time.sleep(1e6)
        return

    def strike() -> None:
        time.sleep(fault.delay_s)
        os.kill(os.getpid(), number)

    if fault.delay_s:
        threading.Thread(target=strike, daemon=True).start()
    else:
        strike()
