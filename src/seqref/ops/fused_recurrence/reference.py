r"""The definition: one step of each recurrence, and the loop over time."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import linear

from seqref.ops._padding import blank_padding, real_steps

Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""weight_ih, weight_hh, bias_ih, bias_hh, as in `torch.nn.LSTMCell`."""

States = tuple[Tensor, ...]


def rnn_step(
    x_t: Float[Tensor, "batch input"],
    h_prev: Float[Tensor, "batch hidden"],
    weights: Weights,
    nonlinearity: str = "tanh",
) -> Float[Tensor, "batch hidden"]:
    r"""One step of the Elman recurrence.

    $$ h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) $$

    with $\phi$ the hyperbolic tangent or the rectifier. The result has the dtype of
    `h_prev`, also under autocast.

    Shapes:
        - `x_t`: (batch, input); `h_prev`: (batch, hidden)
        - weights: (hidden, input), (hidden, hidden), (hidden,), (hidden,)
        - returns: `h_t` (batch, hidden)

    Source:
        Elman (1990); two bias vectors as in `torch.nn.RNNCell`.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    h_pre = linear(x_t, weight_ih, bias_ih) + linear(h_prev, weight_hh, bias_hh)
    h_t = torch.tanh(h_pre) if nonlinearity == "tanh" else torch.relu(h_pre)
    return h_t.to(h_prev.dtype)


def lstm_step(
    x_t: Float[Tensor, "batch input"],
    h_prev: Float[Tensor, "batch hidden"],
    c_prev: Float[Tensor, "batch hidden"],
    weights: Weights,
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    r"""One step of the LSTM with a forget gate.

    $$
    \begin{aligned}
    i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
    f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf}) \\
    g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
    o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
    c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
    h_t &= o_t \odot \tanh c_t
    \end{aligned}
    $$

    The four blocks of each weight stand in the order i, f, g, o. The results have the
    dtypes of `h_prev` and `c_prev`, also under autocast.

    Shapes:
        - `x_t`: (batch, input); `h_prev`, `c_prev`: (batch, hidden)
        - weights: (4 hidden, input), (4 hidden, hidden), (4 hidden,), (4 hidden,)
        - returns: `h_t`, `c_t`, each (batch, hidden)

    Source:
        Gers, Schmidhuber & Cummins (2000); gate order and two bias vectors as in
        `torch.nn.LSTMCell`.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    gates_pre = linear(x_t, weight_ih, bias_ih) + linear(h_prev, weight_hh, bias_hh)
    i_pre, f_pre, g_pre, o_pre = gates_pre.chunk(4, dim=1)
    i_t = torch.sigmoid(i_pre)
    f_t = torch.sigmoid(f_pre)
    g_t = torch.tanh(g_pre)
    o_t = torch.sigmoid(o_pre)
    c_t = f_t * c_prev + i_t * g_t
    h_t = o_t * torch.tanh(c_t)
    return h_t.to(h_prev.dtype), c_t.to(c_prev.dtype)


def gru_step(
    x_t: Float[Tensor, "batch input"],
    h_prev: Float[Tensor, "batch hidden"],
    weights: Weights,
) -> Float[Tensor, "batch hidden"]:
    r"""One step of the GRU that resets after the recurrent product.

    $$
    \begin{aligned}
    r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
    z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
    n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
    h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}
    \end{aligned}
    $$

    The three blocks of each weight stand in the order r, z, n. The result has the dtype
    of `h_prev`, also under autocast.

    Shapes:
        - `x_t`: (batch, input); `h_prev`: (batch, hidden)
        - weights: (3 hidden, input), (3 hidden, hidden), (3 hidden,), (3 hidden,)
        - returns: `h_t` (batch, hidden)

    Source:
        The equations of `torch.nn.GRU`, gate order and two bias vectors included.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    r_in, z_in, n_in = linear(x_t, weight_ih, bias_ih).chunk(3, dim=1)
    r_hidden, z_hidden, n_hidden = linear(h_prev, weight_hh, bias_hh).chunk(3, dim=1)
    r_t = torch.sigmoid(r_in + r_hidden)
    z_t = torch.sigmoid(z_in + z_hidden)
    n_t = torch.tanh(n_in + r_t * n_hidden)
    h_t = (1 - z_t) * n_t + z_t * h_prev
    return h_t.to(h_prev.dtype)


def cho_gru_step(
    x_t: Float[Tensor, "batch input"],
    h_prev: Float[Tensor, "batch hidden"],
    weights: Weights,
) -> Float[Tensor, "batch hidden"]:
    r"""One step of the GRU that resets before the recurrent product.

    $$
    \begin{aligned}
    r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
    z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
    n_t &= \tanh(W_{in} x_t + b_{in} + W_{hn} (r_t \odot h_{t-1}) + b_{hn}) \\
    h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}
    \end{aligned}
    $$

    The three blocks of each weight stand in the order r, z, n. The result has the dtype
    of `h_prev`, also under autocast.

    Shapes:
        - `x_t`: (batch, input); `h_prev`: (batch, hidden)
        - weights: (3 hidden, input), (3 hidden, hidden), (3 hidden,), (3 hidden,)
        - returns: `h_t` (batch, hidden)

    Source:
        Cho et al. (2014), eqs. 5 to 8 of the third arXiv version, without biases.
        Differs: two bias vectors and gate order as in `torch.nn.GRUCell`.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    hidden = h_prev.shape[1]
    gates_bias, n_bias = None, None
    if bias_hh is not None:
        gates_bias, n_bias = bias_hh[: 2 * hidden], bias_hh[2 * hidden :]
    r_in, z_in, n_in = linear(x_t, weight_ih, bias_ih).chunk(3, dim=1)
    gates_hidden = linear(h_prev, weight_hh[: 2 * hidden], gates_bias)
    r_hidden, z_hidden = gates_hidden.chunk(2, dim=1)
    r_t = torch.sigmoid(r_in + r_hidden)
    z_t = torch.sigmoid(z_in + z_hidden)
    n_t = torch.tanh(n_in + linear(r_t * h_prev, weight_hh[2 * hidden :], n_bias))
    h_t = (1 - z_t) * n_t + z_t * h_prev
    return h_t.to(h_prev.dtype)


def loop(
    step: Callable[[Tensor, States], States],
    x: Float[Tensor, "batch time input"],
    states: States,
    lengths: Integer[Tensor, " batch"] | None,
) -> tuple[Tensor, States]:
    r"""Apply `step` along time; the first of the states is the output.

    Shapes:
        - `x`: (batch, time, input); each of `states`: (batch, hidden)
        - returns: outputs (batch, time, hidden), zero in the padding, and the states
          after each row's last real step
    """
    time = x.shape[1]
    if time == 0:
        return states[0].new_empty(x.shape[0], 0, states[0].shape[1]), states
    real = None
    if lengths is not None:
        real = real_steps(lengths, time)
        x = blank_padding(x, real)
    outputs = []
    # One unbind, not x[:, t] in the loop: the backward of each index would fill a
    # tensor of the size of x, which makes the whole backward quadratic in time.
    for t, x_t in enumerate(x.unbind(1)):
        following = step(x_t, states)
        h_t = following[0]
        if real is not None:
            keep = real[:, t, None]
            h_t = h_t.masked_fill(~keep, 0.0)
            following = tuple(
                torch.where(keep, new, old)
                for new, old in zip(following, states, strict=True)
            )
        states = following
        outputs.append(h_t)
    return torch.stack(outputs, dim=1), states
