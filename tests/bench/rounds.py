"""Contenders side by side: each once per round, so that whatever else the machine does meets all of them alike."""

import time
from collections.abc import Callable, Mapping

import numpy as np

CLOCK = "CPU time of this process (time.process_time): waiting for a busy core does not count, shared caches do"


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def alternate(contenders: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds of each contender, [num_rounds]; the first of a round changes, and round 0 is not measured."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(num_rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            spent = cpu_seconds(contenders[name])
            if turn > 0:
                seconds[name].append(spent)
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: np.ndarray, unit: str = "") -> str:
    """Median, and the quartiles in brackets."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3g}{unit} [{low:.3g}, {high:.3g}]"
