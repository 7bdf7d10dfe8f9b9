"""Bytes of tensors that are alive, by watching every operation: nothing here knows what a model ought to take."""

import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Alive(TorchDispatchMode):
    """While active, the most bytes that CPU tensors had at once, those included that were there before."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def __enter__(self) -> "Alive":
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for thing in gc.get_objects():
                if issubclass(type(thing), Tensor):
                    self._see(thing)
                    if thing.is_leaf and thing.grad is not None:
                        self._see(thing.grad)
        super().__enter__()
        return self

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = call(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        if tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def most_alive(call: Callable[[], Any]) -> int:
    """The most bytes of tensors alive at once during a call."""
    with Alive() as alive:
        call()
    return alive.most


def kept_bytes(call: Callable[[], Any]) -> int:
    """Bytes of tensors that are alive after a call, while its result is, and were not before."""
    with Alive() as alive:
        before = alive.now
        result = call()
        gc.collect()
        kept = alive.now - before
    del result
    return kept
