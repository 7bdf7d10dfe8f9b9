"""Modules of a user, as a package outside the tree would hold them: one that keeps to the protocol, and many not."""

import torch
from torch import Tensor, nn


class MyEncoder(nn.Module):
    """The mean of the visible nodes, and how many are hidden, through a small network."""

    def __init__(
        self, num_nodes: int, sizes: tuple[int, ...], hidden_size: int = 8, depth: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.nodes = nn.Embedding(num_nodes, hidden_size)
        self.hidden = nn.Embedding(max(sizes) + 1, hidden_size)
        layers = [nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.ReLU()) for _ in range(depth)]
        self.body = nn.Sequential(*layers, nn.Dropout(dropout), nn.LayerNorm(hidden_size))
        self.out = nn.Linear(hidden_size, num_nodes)

    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        seen = (visible >= 0).unsqueeze(2)
        total = (self.nodes(visible.clamp(min=0)) * seen).sum(1) / seen.sum(1).clamp(min=1)
        return self.out(self.body(total + self.hidden(num_masked)))


class Tied(MyEncoder):
    """Reads and writes nodes by one table."""

    def __init__(self, num_nodes: int, sizes: tuple[int, ...], hidden_size: int = 8) -> None:
        super().__init__(num_nodes, sizes, hidden_size)
        self.out.weight = self.nodes.weight


class TakesAny(MyEncoder):
    def __init__(self, num_nodes: int, sizes: tuple[int, ...], **fields: int) -> None:
        super().__init__(num_nodes, sizes, hidden_size=4, **fields)


class NeedsMore(MyEncoder):
    def __init__(self, num_nodes: int, sizes: tuple[int, ...], temperature: float) -> None:
        super().__init__(num_nodes, sizes)


class NoSizes(nn.Module):
    def __init__(self, num_nodes: int) -> None:
        super().__init__()

    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return visible


class NoForward(nn.Module):
    def __init__(self, num_nodes: int, sizes: tuple[int, ...]) -> None:
        super().__init__()


class NoModule:
    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return visible


class NoParameters(nn.Module):
    def __init__(self, num_nodes: int, sizes: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return visible


class Refuses(MyEncoder):
    def __init__(self, num_nodes: int, sizes: tuple[int, ...]) -> None:
        raise ValueError("not with\nthese sizes")


class OneArgument(MyEncoder):
    def forward(self, visible: Tensor) -> Tensor:  # type: ignore[override]
        return visible


class WrongShape(MyEncoder):
    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return super().forward(visible, num_masked)[:, None]


class Whole(MyEncoder):
    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return super().forward(visible, num_masked).long()


class Pair(MyEncoder):
    def forward(self, visible: Tensor, num_masked: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(visible, num_masked), None


class MeanOfNothing(MyEncoder):
    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        seen = (visible >= 0).unsqueeze(2)
        return self.out((self.nodes(visible.clamp(min=0)) * seen).sum(1) / seen.sum(1))


class ReadsPads(MyEncoder):
    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return self.out(self.nodes(visible.clamp(min=0)).sum(1))


class TooFewNodes(MyEncoder):
    def __init__(self, num_nodes: int, sizes: tuple[int, ...]) -> None:
        super().__init__(num_nodes - 1, sizes)


def not_a_class(num_nodes: int, sizes: tuple[int, ...]) -> nn.Module:
    return MyEncoder(num_nodes, sizes)


NAN = torch.nan


class GivesNan(MyEncoder):
    def forward(self, visible: Tensor, num_masked: Tensor) -> Tensor:
        return super().forward(visible, num_masked) * NAN
