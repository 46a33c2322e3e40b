r"""The negative control: the same network without its memory."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqref.recurrent import LSTM, LSTMState


class Forgetful(nn.Module):
    r"""An LSTM whose state is emptied before every step: the control without memory."""

    def __init__(self, layer: LSTM):
        super().__init__()
        self.layer = layer
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size

    def initial_state(self, batch_size: int) -> LSTMState:
        return self.layer.initial_state(batch_size)

    def step(self, x_t: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        y_t, _ = self.layer.step(x_t, self.initial_state(len(x_t)))
        return y_t, state

    def forward(
        self,
        x: Float[Tensor, "batch time input"],
        state: LSTMState | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], LSTMState]:
        if lengths is not None:
            raise ValueError("Forgetful.forward: `lengths` must be None")
        batch, time, _ = x.shape
        y, _ = self.layer(x.reshape(batch * time, 1, -1))
        y = y.reshape(batch, time, -1)
        return y, self.initial_state(batch) if state is None else state
