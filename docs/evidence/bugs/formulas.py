r"""Specimens whose shapes are right and whose formula is another one."""

# --8<-- [start:names]
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Inputs = Float[Tensor, "batch time input"]
Step = Float[Tensor, "batch input"]
State = Float[Tensor, "batch hidden"]
Outputs = Float[Tensor, "batch time hidden"]
Matrix = Float[Tensor, "hidden input"]
# --8<-- [end:names]


# --8<-- [start:linear]
class CharacterModel(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.i2h = nn.Linear(2 * hidden_size, hidden_size)
        self.h2o = nn.Linear(hidden_size, vocab_size)

    def update(self, x_t: State, h_prev: State) -> State:
        return self.i2h(torch.cat([x_t, h_prev], dim=1))

    def forward(
        self, tokens: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time vocab"]:
        x = self.embedding(tokens)
        h_t = torch.zeros_like(x[:, 0])
        outputs = []
        for x_t in x.unbind(1):
            h_t = self.update(x_t, h_t)
            outputs.append(self.h2o(h_t).log_softmax(dim=-1))
        return torch.stack(outputs, dim=1)


# --8<-- [end:linear]


# --8<-- [start:nonlinear]
class Nonlinear(CharacterModel):
    def update(self, x_t: State, h_prev: State) -> State:
        return torch.tanh(self.i2h(torch.cat([x_t, h_prev], dim=1)))


# --8<-- [end:nonlinear]


# --8<-- [start:blind]
class AttentionDecoder(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, max_length: int) -> None:
        super().__init__()
        self.encoder = nn.GRU(input_size, hidden_size, batch_first=True)
        self.decoder = nn.GRU(input_size, hidden_size, batch_first=True)
        self.score = nn.Linear(hidden_size + input_size, max_length)

    def weights(
        self, decoded: Outputs, target: Inputs, encoded: Outputs
    ) -> Float[Tensor, "batch time source"]:
        scores = self.score(torch.cat([decoded, target], dim=-1))
        return scores[..., : encoded.shape[1]].softmax(dim=-1)

    def forward(
        self, source: Float[Tensor, "batch source input"], target: Inputs
    ) -> tuple[Outputs, Float[Tensor, "batch time source"]]:
        encoded, _ = self.encoder(source)
        decoded, _ = self.decoder(target)
        weights = self.weights(decoded, target, encoded)
        return decoded + weights @ encoded, weights


# --8<-- [end:blind]


# --8<-- [start:seeing]
class SeeingAttention(AttentionDecoder):
    def weights(
        self, decoded: Outputs, target: Inputs, encoded: Outputs
    ) -> Float[Tensor, "batch time source"]:
        scores = decoded @ encoded.transpose(1, 2)
        return (scores / encoded.shape[-1] ** 0.5).softmax(dim=-1)


# --8<-- [end:seeing]


# --8<-- [start:reset_first]
class ResetFirst(nn.Module):
    def __init__(self, layer: nn.GRU) -> None:
        super().__init__()
        self.weights = nn.ParameterList(p.detach().clone() for p in layer.parameters())

    def step(self, x_t: Step, h_prev: State) -> State:
        w_ih, w_hh, b_ih, b_hh = (w.chunk(3) for w in self.weights)
        r_t = torch.sigmoid(x_t @ w_ih[0].T + b_ih[0] + h_prev @ w_hh[0].T + b_hh[0])
        z_t = torch.sigmoid(x_t @ w_ih[1].T + b_ih[1] + h_prev @ w_hh[1].T + b_hh[1])
        n_t = torch.tanh(
            x_t @ w_ih[2].T + b_ih[2] + (r_t * h_prev) @ w_hh[2].T + b_hh[2]
        )
        return (1 - z_t) * n_t + z_t * h_prev

    def forward(self, x: Inputs, state: State | None = None) -> tuple[Outputs, State]:
        hidden_size = self.weights[1].shape[1]
        h_t = x.new_zeros(len(x), hidden_size) if state is None else state
        outputs = []
        for x_t in x.unbind(1):
            h_t = self.step(x_t, h_t)
            outputs.append(h_t)
        return torch.stack(outputs, dim=1), h_t


# --8<-- [end:reset_first]


# --8<-- [start:reset_after]
class ResetAfter(ResetFirst):
    def step(self, x_t: Step, h_prev: State) -> State:
        w_ih, w_hh, b_ih, b_hh = (w.chunk(3) for w in self.weights)
        r_t = torch.sigmoid(x_t @ w_ih[0].T + b_ih[0] + h_prev @ w_hh[0].T + b_hh[0])
        z_t = torch.sigmoid(x_t @ w_ih[1].T + b_ih[1] + h_prev @ w_hh[1].T + b_hh[1])
        n_t = torch.tanh(
            x_t @ w_ih[2].T + b_ih[2] + r_t * (h_prev @ w_hh[2].T + b_hh[2])
        )
        return (1 - z_t) * n_t + z_t * h_prev


# --8<-- [end:reset_after]


# --8<-- [start:import]
def import_weights(layer: nn.LSTM, arrays: dict[str, Tensor]) -> nn.LSTM:
    layer.load_state_dict(arrays, strict=True)
    return layer


# --8<-- [end:import]


# --8<-- [start:reordered]
def import_reordered(layer: nn.LSTM, arrays: dict[str, Tensor]) -> nn.LSTM:
    fitted = {}
    for name, array in arrays.items():
        i, o, f, g = array.chunk(4)
        fitted[name] = torch.cat([i, f, g, o])
    layer.load_state_dict(fitted, strict=True)
    return layer


# --8<-- [end:reordered]


# --8<-- [start:wrong_block]
def remember(layer: nn.LSTM, bias: float) -> nn.LSTM:
    b_ih, b_hh = (layer.get_parameter(f"bias_{k}_l0") for k in ("ih", "hh"))
    with torch.no_grad():
        b_ih[: layer.hidden_size] = bias
        b_hh[: layer.hidden_size] = 0
    return layer


# --8<-- [end:wrong_block]


# --8<-- [start:right_block]
def remember_right(layer: nn.LSTM, bias: float) -> nn.LSTM:
    b_ih, b_hh = (layer.get_parameter(f"bias_{k}_l0") for k in ("ih", "hh"))
    forget = slice(layer.hidden_size, 2 * layer.hidden_size)
    with torch.no_grad():
        b_ih[forget] = bias
        b_hh[forget] = 0
    return layer


# --8<-- [end:right_block]


# --8<-- [start:halves]
class RotaryScores(nn.Module):
    def __init__(self, W_q: Matrix, W_k: Matrix) -> None:
        super().__init__()
        self.W_q, self.W_k = (nn.Parameter(self.rows(W)) for W in (W_q, W_k))

    def rows(self, W: Matrix) -> Matrix:
        return W.clone()

    def turned(self, x: Outputs) -> Outputs:
        width = x.shape[-1]
        omega = 10000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(x.shape[1])[:, None] * omega.to(x.dtype)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def forward(self, x: Inputs) -> Float[Tensor, "batch time time"]:
        return self.turned(x @ self.W_q.T) @ self.turned(x @ self.W_k.T).mT


# --8<-- [end:halves]


# --8<-- [start:permuted]
class PermutedScores(RotaryScores):
    def rows(self, W: Matrix) -> Matrix:
        return torch.cat([W[0::2], W[1::2]])


# --8<-- [end:permuted]
