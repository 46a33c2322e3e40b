r"""What of Mamba depends on its input, what it keeps, and what follows a padded prompt.

Gradients of step size, both maps and rates with respect to what the layer reads; the
factors of one state beside the gate that they are compared with; the size of a state
and of a cache after more and more steps; and the scores of models of the library
`transformers`, with random weights, on the tokens that follow prompts of unequal length
in one batch, beside those of each row alone. No clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from seqref import Mamba, MultiHeadAttention
from seqref.interop import from_transformers, to_left_padding


@dataclass(frozen=True)
class Config:
    """Sizes of layers and models, and the prompts."""

    width: int = 768
    steps: tuple[int, ...] = (20, 80)
    d_model: int = 32
    n_layers: int = 2
    vocab_size: int = 40
    time: int = 20
    prompts: tuple[int, ...] = (16, 5, 11)
    weight_std: float = 0.3
    seeds: tuple[int, ...] = (0, 1, 2)


def reached(config: Config) -> dict[str, Any]:
    """The share of what the layer reads that a quantity has a gradient for."""
    with lab.seeded(config.seeds[0]):
        layer = Mamba(config.d_model)
        v = torch.randn(2, 5, layer.d_inner, requires_grad=True)
    names = "dt", "B", "C"
    quantities: dict[str, Tensor] = {"A": layer.A}
    quantities |= zip(names, layer._selected(v), strict=True)
    shares = {}
    for name, value in quantities.items():
        (grad,) = torch.autograd.grad(
            value.sum(), v, retain_graph=True, allow_unused=True
        )
        share = 0.0 if grad is None else (grad != 0).double().mean().item()
        shares[name] = {"label": name, "reached": share}
    return shares


def factors() -> dict[str, Any]:
    """What one state multiplies its input by, over the gate, at a gate of one half."""
    a = torch.zeros((), dtype=torch.float64)
    dt, gate = nn.functional.softplus(a), torch.sigmoid(a)
    held = {"hold": -torch.expm1(-dt), "euler": dt}
    return {
        name: {"label": name, "over_gate": (factor / gate).item()}
        for name, factor in held.items()
    }


def kept(config: Config, layer: Any) -> dict[str, Any]:
    """Numbers in a state, after fewer and after more steps."""
    sizes = []
    for steps in config.steps:
        state = layer(torch.zeros(1, steps, config.width, device="meta"))[1]
        parts = state if isinstance(layer, Mamba) else state[:2]
        sizes.append(sum(part.numel() for part in parts))
    return {
        "numbers": sizes[0],
        "growth": sizes[1] / sizes[0],
        "positions": sizes[0] / (2 * config.width),
    }


def library(name: str, config: Config, seed: int) -> nn.Module:
    """A small model of `transformers` with weights that make a difference show."""
    import transformers

    width, layers = config.d_model, config.n_layers
    if name == "mamba":
        made: Any = transformers.MambaForCausalLM(
            transformers.MambaConfig(
                vocab_size=config.vocab_size,
                hidden_size=width,
                num_hidden_layers=layers,
            )
        )
    else:
        made = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=config.vocab_size,
                n_positions=4 * config.time,
                n_embd=width,
                n_layer=layers,
                n_head=2,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    with torch.no_grad():
        random = lab.generator(seed)
        for parameter in made.parameters():
            parameter.normal_(std=config.weight_std, generator=random)
    return made.eval()


def called(model: Any, tokens: Tensor, mask: Tensor, cache: Any) -> Any:
    """One call of the library; GPT-2 wants the whole mask and positions."""
    options: dict[str, Any] = {"cache": cache, "use_cache": True}
    if type(model).__name__.startswith("GPT2"):
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        return model(tokens, attention_mask=mask, position_ids=places, **options)
    given = mask if cache is None else None
    return model(tokens, attention_mask=given, **options)


def after_padding(model: Any, tokens: Tensor, lengths: Tensor, left: bool) -> Tensor:
    """Scores of each row's next tokens, one at a time after a batch of prompts."""
    longest = int(lengths.max())
    mask = (torch.arange(longest) < lengths[:, None]).long()
    prompts = tokens[:, :longest]
    if left:
        prompts, mask = to_left_padding(prompts, lengths)
    cache, scores = called(model, prompts, mask, None).cache, []
    for s in range(tokens.shape[1] - longest):
        following = tokens.gather(1, (lengths + s)[:, None])
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        out = called(model, following, mask, cache)
        cache = out.cache
        scores.append(out.logits)
    return torch.cat(scores, dim=1)


def off(got: Tensor, want: Tensor) -> float:
    """The largest difference beside the largest value."""
    return ((got - want).abs().max() / want.abs().max()).item()


@torch.no_grad()
def continued(config: Config, seed: int) -> dict[str, float]:
    """How far scores behind a prompt are from those of rows alone."""
    lengths = torch.tensor(config.prompts)
    shape = len(lengths), config.time
    tokens = torch.randint(
        config.vocab_size, shape, generator=lab.generator(seed + 1000)
    )
    extra = config.time - int(lengths.max())
    found = {}
    for name in ("gpt2", "mamba"):
        model: Any = library(name, config, seed)
        whole = model(tokens).logits
        places = lengths[:, None] + torch.arange(extra)
        want = whole.gather(1, places[..., None].expand(-1, -1, whole.shape[2]))
        for side in ("right", "left"):
            got = after_padding(model, tokens, lengths, side == "left")
            found[f"{name}_{side}"] = off(got, want)
    ours = from_transformers(model)
    _, state = ours(tokens[:, : int(lengths.max())], lengths=lengths)
    scores = []
    for s in range(extra):
        scores_t, state = ours.step(
            tokens.gather(1, (lengths + s)[:, None])[:, 0], state
        )
        scores.append(scores_t)
    found["ours_right"] = off(torch.stack(scores, dim=1), want)
    half = config.time // 2
    cache = model(tokens[:, :half], use_cache=True).cache
    at_once = model(tokens[:, half:], cache=cache, use_cache=True).logits
    found["mamba_second"] = off(at_once, whole[:, half:])
    _, state = ours(tokens[:, :half])
    found["ours_second"] = off(ours(tokens[:, half:], state)[0], whole[:, half:])
    return found


LABELS = {
    "gpt2_right": "GPT-2, prompts padded on the right",
    "gpt2_left": "GPT-2, on the left",
    "mamba_right": "Mamba, on the right",
    "mamba_left": "Mamba, on the left",
    "ours_right": "Mamba here, on the right",
    "mamba_second": "Mamba, a second call of several tokens",
    "ours_second": "Mamba here, a second call of several tokens",
}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """All of it, the models over the seeds."""
    runs = [continued(config, seed) for seed in track(config.seeds, "mamba_counts")]
    rows = {
        name: {"label": label, "off": lab.spread(one[name] for one in runs)}
        for name, label in LABELS.items()
    }
    meta: dict[str, Any] = {"device": "meta"}
    states = {
        "state": kept(config, Mamba(config.width, **meta)),
        "cache": kept(config, MultiHeadAttention(config.width, 4, **meta)),
    }
    cases = {**reached(config), **factors(), **states, **rows}
    return {"series": {"rows": list(rows.values())}, "cases": cases}


def wrong(bound: float) -> Callable[..., Any]:
    """Off in every seed, by more than a bound."""
    return lab.above("off.low", bound, on=lab.power)


experiment = lab.Experiment(
    small=Config(width=64, seeds=(0, 1)),
    run=run,
    claims=[
        lab.Claim(
            "C98",
            "The rates have no gradient for what the layer reads.",
            lab.exactly("reached", lambda case: case["reached"] == 0),
            case="A",
            control="dt",
        ),
        lab.Claim(
            "C220",
            "After prompts padded on the right the library's Mamba is off by more than "
            "a hundredth of the largest score.",
            wrong(0.01),
            case="mamba_right",
            control="gpt2_right",
        ),
        lab.Claim(
            "C221",
            "The state has as many numbers after four times the steps.",
            lab.exactly("growth", lambda case: case["growth"] == 1),
            case="state",
            control="cache",
        ),
        lab.Claim(
            "C223",
            "With Euler's rule the input's factor is more than 1.3 times the gate.",
            lab.above("over_gate", 1.3),
            case="euler",
            control="hold",
        ),
        lab.Claim(
            "C224",
            "A second call of several tokens is off by more than a hundredth.",
            wrong(0.01),
            case="mamba_second",
            control="ours_second",
        ),
    ],
    numbers=[
        lab.each("off.median", "off"),
        lab.each("over_gate"),
        lab.each("numbers"),
        lab.each("positions"),
        lab.each("growth"),
    ],
    tables={
        "continued": lab.Table(
            rows="series.rows",
            columns={
                "model and prompts": lab.cell("label", str),
                "off, of the largest score: median (range)": lab.with_span(
                    "off", "{:.1e}".format
                ),
            },
        )
    },
)
