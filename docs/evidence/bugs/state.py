r"""Specimens that lose, keep or invent a state."""

# --8<-- [start:names]
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout

Inputs = Float[Tensor, "batch time input"]
State = Float[Tensor, "batch hidden"]
Outputs = Float[Tensor, "batch time hidden"]
Cached = Float[Tensor, "batch cached hidden"]
Cache = tuple[Cached, Cached]
# --8<-- [end:names]


# --8<-- [start:amnesic]
class LoopedGRU(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(input_size, hidden_size)

    def forward(self, x: Inputs, state: State | None = None) -> tuple[Outputs, State]:
        outputs = []
        for x_t in x.unbind(1):
            h_t = x.new_zeros(len(x), self.cell.hidden_size)
            if state is not None:
                h_t = state
            outputs.append(self.cell(x_t, h_t))
        return torch.stack(outputs, dim=1), outputs[-1]


# --8<-- [end:amnesic]


# --8<-- [start:mindful]
class Mindful(LoopedGRU):
    def forward(self, x: Inputs, state: State | None = None) -> tuple[Outputs, State]:
        h_t = x.new_zeros(len(x), self.cell.hidden_size) if state is None else state
        outputs = []
        for x_t in x.unbind(1):
            h_t = self.cell(x_t, h_t)
            outputs.append(h_t)
        return torch.stack(outputs, dim=1), h_t


# --8<-- [end:mindful]


# --8<-- [start:reset_all]
class ResetAll(LoopedGRU):
    def forward(self, x: Inputs, state: State | None = None) -> tuple[Outputs, State]:
        h_t = x.new_zeros(len(x), self.cell.hidden_size) if state is None else state
        outputs = []
        for x_t in x.unbind(1):
            # A first feature above 1 says that a new sequence begins.
            if (x_t[:, 0] > 1).any():
                h_t = torch.zeros_like(h_t)
            h_t = self.cell(x_t, h_t)
            outputs.append(h_t)
        return torch.stack(outputs, dim=1), h_t


# --8<-- [end:reset_all]


# --8<-- [start:reset_rows]
class ResetRows(LoopedGRU):
    def forward(self, x: Inputs, state: State | None = None) -> tuple[Outputs, State]:
        h_t = x.new_zeros(len(x), self.cell.hidden_size) if state is None else state
        outputs = []
        for x_t in x.unbind(1):
            h_t = h_t.masked_fill(x_t[:, :1] > 1, 0)
            h_t = self.cell(x_t, h_t)
            outputs.append(h_t)
        return torch.stack(outputs, dim=1), h_t


# --8<-- [end:reset_rows]


# --8<-- [start:kept]
class Kept(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size, batch_first=True)
        self.h: Tensor | None = None

    def forward(self, x: Inputs) -> Outputs:
        y, h = self.gru(x, self.h)
        self.h = h.detach()
        return y


# --8<-- [end:kept]


# --8<-- [start:handed_on]
class HandedOn(Kept):
    def forward(self, x: Inputs) -> Outputs:
        return self.gru(x)[0]


# --8<-- [end:handed_on]


# --8<-- [start:random_start]
class RandomStart(Kept):
    def forward(self, x: Inputs) -> Outputs:
        h_0 = torch.randn(1, len(x), self.gru.hidden_size)
        return self.gru(x, h_0)[0]


# --8<-- [end:random_start]


# --8<-- [start:always_dropping]
class AlwaysDropping(Kept):
    def forward(self, x: Inputs) -> Outputs:
        return dropout(self.gru(x)[0], 0.1)


# --8<-- [end:always_dropping]


# --8<-- [start:dropping_in_training]
class DroppingInTraining(Kept):
    def forward(self, x: Inputs) -> Outputs:
        return dropout(self.gru(x)[0], 0.1, training=self.training)


# --8<-- [end:dropping_in_training]


# --8<-- [start:restarting]
class Turning(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def positions(self, steps: int, cached: int) -> Tensor:
        return torch.arange(steps)

    def turned(self, x: Outputs, positions: Tensor) -> Outputs:
        width = x.shape[-1]
        omega = 10000.0 ** (-torch.arange(0, width, 2) / width)
        angles = positions[:, None] * omega.to(x.dtype)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def forward(self, x: Inputs, cache: Cache | None = None) -> tuple[Outputs, Cache]:
        q, k, v = self.project(x).chunk(3, dim=-1)
        if cache is None:
            cache = k[:, :0], v[:, :0]
        positions = self.positions(x.shape[1], cache[0].shape[1])
        q, k = self.turned(q, positions), self.turned(k, positions)
        k, v = torch.cat([cache[0], k], dim=1), torch.cat([cache[1], v], dim=1)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        seen = torch.ones_like(scores, dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        return self.out(weights @ v), (k, v)


# --8<-- [end:restarting]


# --8<-- [start:going_on]
class GoingOn(Turning):
    def positions(self, steps: int, cached: int) -> Tensor:
        return cached + torch.arange(steps)


# --8<-- [end:going_on]
