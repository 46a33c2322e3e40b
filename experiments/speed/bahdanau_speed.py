r"""A decoder with additive attention: the form of tutorials, and the op.

One training step, forward and backward, of a GRU decoder that attends at every step, on
one thread: keys projected anew at every step and the input indexed there, as tutorials
write it; the same with the keys and the inputs' products hoisted out of the loop; and
the op, by the definition and by hand. All compute the same numbers from the same
weights. The ratio is of processor times in the same round; the bytes are those that are
alive after the forward pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from experiments import lab
from experiments.lab import ratio_cells, timing
from seqref import AdditiveAttention, ChoGRUCell
from seqref.ops.bahdanau_recurrence import bahdanau_recurrence
from seqref.ops.fused_recurrence.reference import cho_gru_step
from seqref.testing import LiveBytes


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, source, target, width), rounds, threads, seed."""

    sizes: tuple[tuple[int, int, int, int], ...] = (
        (32, 30, 30, 256),
        (32, 30, 120, 256),
        (8, 30, 30, 64),
    )
    rounds: int = 9
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


class Decoder(nn.Module):
    """The parameters, and the four forms over them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = AdditiveAttention(width, width, width)
        self.cell = ChoGRUCell(2 * width, width)

    def tutorial(self, x: Tensor, memory: Tensor) -> Tensor:
        """Everything inside the loop."""
        h_t, outputs = memory.new_zeros(len(x), memory.shape[2]), []
        for t in range(x.shape[1]):
            query = linear(h_t, self.attention.weight_query)[:, None]
            keys = linear(memory, self.attention.weight_key)
            scores = torch.tanh(query + keys) @ self.attention.weight_score
            c_t = torch.bmm(scores.softmax(-1)[:, None], memory)
            u_t = torch.cat((x[:, t : t + 1], c_t), dim=2)[:, 0]
            h_t = cho_gru_step(u_t, h_t, self.cell.weights)
            outputs.append(h_t[:, None])
        return torch.cat(outputs, dim=1)

    def hoisted(self, x: Tensor, memory: Tensor) -> Tensor:
        """Keys once, and the inputs' share of all gates at once."""
        width = memory.shape[2]
        keys = linear(memory, self.attention.weight_key)
        weight_ih, weight_hh, bias_ih, bias_hh = self.cell.weights
        if bias_ih is None or bias_hh is None:
            raise TypeError("the cell has biases")
        inputs = linear(x, weight_ih[:, :width], bias_ih + bias_hh)
        of_context, of_reset = weight_ih[:, width:], weight_hh[2 * width :]
        first = torch.cat([self.attention.weight_query, weight_hh[: 2 * width]])
        h_t, outputs = memory.new_zeros(len(x), width), []
        for inputs_t in inputs.unbind(1):
            product = linear(h_t, first)
            scores = torch.tanh(product[:, None, :width] + keys)
            alpha = (scores @ self.attention.weight_score).softmax(-1)
            c_t = torch.bmm(alpha[:, None], memory)[:, 0]
            pre_t = inputs_t + linear(c_t, of_context)
            rz_t = torch.sigmoid(pre_t[:, : 2 * width] + product[:, width:])
            r_t, z_t = rz_t.chunk(2, dim=1)
            n_t = torch.tanh(pre_t[:, 2 * width :] + linear(r_t * h_t, of_reset))
            h_t = torch.lerp(n_t, h_t, z_t)
            outputs.append(h_t)
        return torch.stack(outputs, dim=1)

    def op(self, backend: str) -> Callable[[Tensor, Tensor], Tensor]:
        """The op by one of its backends."""

        def run(x: Tensor, memory: Tensor) -> Tensor:
            attention = self.attention
            return bahdanau_recurrence(
                x,
                memory.new_zeros(len(x), memory.shape[2]),
                linear(memory, attention.weight_key),
                memory,
                attention.weight_query,
                attention.weight_score,
                *self.cell.weights,
                backend=backend,
            )[0]

        return run


FORMS = {
    "tutorial": "as in tutorials",
    "hoisted": "hoisted",
    "reference": "the op, definition",
    "parallel": "the op, by hand",
}


def forms_of(decoder: Decoder) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The four forms by name."""
    backends = {name: decoder.op(name) for name in ("reference", "parallel")}
    return {"tutorial": decoder.tutorial, "hoisted": decoder.hoisted, **backends}


def inputs_of(
    size: tuple[int, ...], seed: int
) -> tuple[Decoder, tuple[Tensor, Tensor]]:
    """A decoder, and embeddings and memory that take gradients."""
    batch, source, target, width = size
    with lab.seeded(seed):
        decoder = Decoder(width)
        x, memory = (
            torch.randn(batch, steps, width, requires_grad=True)
            for steps in (target, source)
        )
    return decoder, (x, memory)


def kept(form: Callable[..., Tensor], inputs: Any, outside: list[Tensor]) -> int:
    """Bytes alive after a forward pass, but for what was there before."""
    with LiveBytes(outside) as live:
        y = form(*inputs)
        size = live.now
    # Held until here: what a graph keeps goes with it.
    del y
    return size


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size, and count what each form keeps."""
    rows = []
    for size in track(config.sizes, "bahdanau_speed"):
        decoder, inputs = inputs_of(size, config.seeds[0])
        outside = [*inputs, *decoder.parameters()]
        forms = forms_of(decoder)
        with timing.setting(config.threads):
            runs = {
                name: timing.passes(partial(form, *inputs), outside)
                for name, form in forms.items()
            }
            compared = timing.compare(runs, "tutorial", config.rounds)
        sizes = {name: kept(form, inputs, outside) for name, form in forms.items()}
        shares = {name: value / sizes["tutorial"] for name, value in sizes.items()}
        rows.append({"size": size, "kept": shares, **compared})
    first = rows[0]
    cases = {
        name: {"time": first["ratios"][name]["median"], "kept": first["kept"][name]}
        for name in FORMS
        if name != "tutorial"
    }
    return {"numbers": {}, "series": {"rows": rows}, "cases": cases}


def cells() -> dict[str, Any]:
    """Columns of the table of times."""
    titles = {n: FORMS[n] for n in FORMS if n != "tutorial"}
    return {text: ratio_cells.ratio(name) for name, text in titles.items()}


def share(name: str) -> Callable[[Mapping[str, Any]], str]:
    """A cell: what a form keeps over what the form of tutorials does."""
    return lambda row: f"{row['kept'][name]:.2f}"


WIDTHS = {"B": "size.0", "S": "size.1", "T": "size.2", "D": "size.3"}

experiment = lab.Experiment(
    small=Config(sizes=((4, 6, 5, 8),), rounds=3),
    run=run,
    claims=[
        lab.Claim(
            "C150",
            "At batch 32, source and target 30, width 256, the op by hand takes less "
            "than half of the time of the form of tutorials; by its definition it does "
            "not.",
            lab.below("time", 0.5),
            case="parallel",
            control="reference",
            timed=True,
        ),
        lab.Claim(
            "C150.kept",
            "There the op by hand keeps less than 0.35 of the bytes of the form of "
            "tutorials for its backward pass; with keys and inputs hoisted alone it "
            "would be more.",
            lab.below("kept", 0.35),
            case="parallel",
            control="hoisted",
            timed=True,
        ),
    ],
    numbers=[lab.each("time"), lab.each("kept")],
    tables={
        "times": lab.Table(
            rows="series.rows",
            columns={**WIDTHS, **cells(), "base again": ratio_cells.ratio("again")},
        ),
        "kept": lab.Table(
            rows="series.rows",
            columns={
                **WIDTHS,
                **{FORMS[n]: share(n) for n in FORMS if n != "tutorial"},
            },
        ),
    },
)
