"""What a run's last checkpoint holds, to be compared bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def state_of(run_dir: Path) -> dict[str, Any]:
    """Every tensor (as type, shape and bytes) and plain value of every file, by path.

    Not the bytes of the files: a pickle also says which tensors are one object, and loading may change that.
    """
    newest = max((run_dir / "checkpoints").glob("step-*[0-9]"))
    found: dict[str, Any] = {}
    for path in sorted(newest.rglob("*.pt")):
        name = path.relative_to(newest).as_posix()
        content = torch.load(path, map_location="cpu", weights_only=False)  # our own, written in this test
        found.update(_leaves(content, name))
    assert found, f"{newest} holds no state"
    return found


def _leaves(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{name}/{key}")
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _leaves(value, f"{name}/{index}")
    elif torch.is_tensor(content):
        yield (
            name,
            (content.dtype, tuple(content.shape), content.contiguous().view(-1).view(torch.uint8).numpy().tobytes()),
        )
    elif content is None or isinstance(content, bool | int | float | str | torch.Size):
        yield name, content
    else:
        yield name, sorted((key, repr(value)) for key, value in vars(content).items())
