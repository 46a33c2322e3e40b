r"""What greedy decoding and narrow beams miss, where the best sequence is known.

The models are Markov chains: the scores of the next token depend on the last token
alone. So the likeliest sequence of a given length is known exactly, by dynamic
programming, and what a search misses is an error of the search and not of the model. In
the control the scores depend on no token at all; there the likeliest token each time
makes the likeliest sequence.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from experiments import lab
from seqref.decoding import beam_search


@dataclass(frozen=True)
class Config:
    """Sizes of the chains, spread of their logits, widths of the beam, seeds."""

    vocab: int = 20
    length: int = 12
    spread: float = 1.5
    chains: int = 200
    widths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    seed: int = 0


class Which(NamedTuple):
    """The chain of each row."""

    chain: Tensor


class Chains:
    """Many Markov chains as one model; the state says which chain a row belongs to."""

    def __init__(self, log_p: Tensor):
        self.log_p = log_p

    def initial_state(self, batch_size: int) -> Which:
        """The first chain for all rows; a search is given another."""
        return Which(torch.zeros(batch_size, dtype=torch.int64))

    def step(self, token_t: Tensor, state: Which) -> tuple[Tensor, Which]:
        """The scores after a token."""
        return self.log_p[state.chain, token_t], state


def tables(config: Config, *, depends: bool) -> Tensor:
    """Log-probabilities of the next token after each token, of each chain."""
    sizes = config.chains, config.vocab, config.vocab
    logits = torch.randn(
        sizes, generator=lab.generator(config.seed), dtype=torch.float64
    )
    if not depends:
        logits = logits[:, :1].expand(sizes)
    return torch.log_softmax(config.spread * logits, dim=-1)


def likeliest(log_p: Tensor, length: int) -> Tensor:
    """Log-probability of the likeliest sequence after each token, of each chain."""
    best = torch.zeros_like(log_p[:, 0])
    for _ in range(length):
        best = (log_p + best[:, None]).max(dim=-1).values
    return best


def measure(case: dict, config: Config) -> dict:
    """How often a width misses the likeliest sequence, and by how much."""
    log_p = tables(config, depends=case["depends"])
    start = torch.arange(config.vocab).repeat(config.chains)
    chain = torch.arange(config.chains).repeat_interleave(config.vocab)
    beams = beam_search(
        Chains(log_p),
        start,
        width=case["width"],
        max_length=config.length,
        state=Which(chain),
    )
    lost = likeliest(log_p, config.length).flatten() - beams.scores[:, 0]
    missed = lost > 1e-9
    return {
        "width": case["width"],
        "depends": case["depends"],
        "missed": missed.double().mean().item(),
        "lost": lost.clamp_min(0).mean().item(),
        "lost_most": lost.max().item(),
        "overtaken": lost.min().item(),
    }


def cases(config: Config) -> dict[str, dict]:
    """Each width on chains, and greedy search where no token matters."""
    by_width = {f"width_{w}": {"width": w, "depends": True} for w in config.widths}
    return by_width | {"no_memory": {"width": 1, "depends": False}}


experiment = lab.Experiment(
    small=Config(chains=20, widths=(1, 4, 32)),
    cases=cases,
    measure=measure,
    claims=[
        lab.Claim(
            "C64.greedy",
            "Greedy decoding misses the likeliest sequence of a Markov chain for more "
            "than half of the first tokens; where scores depend on no token it misses "
            "none.",
            lab.above("missed", 0.5),
            case="width_1",
            control="no_memory",
        ),
        lab.Claim(
            "C64.beam",
            "A beam of 32 misses the likeliest sequence for less than a fifth of the "
            "first tokens; greedy decoding for more.",
            lab.below("missed", 0.2),
            case="width_32",
            control="width_1",
        ),
    ],
    numbers=[
        lab.each("missed"),
        lab.each("lost", write=partial(lab.number, digits=2)),
    ],
    tables={
        "widths": lambda record: lab.Table(
            where={"depends": True},
            labels={name: f"{case['width']}" for name, case in record["cases"].items()},
            heading="width",
            columns={
                "likeliest sequence missed": lab.fixed(
                    lambda case: 100 * case["missed"], 1, " %"
                ),
                "nats lost on average": lab.cell("lost", lab.number, 2),
                "nats lost at most": lab.cell("lost_most", lab.number, 2),
            },
        )
    },
)
