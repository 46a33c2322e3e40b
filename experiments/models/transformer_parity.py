r"""Checkpoints of transformers beside the models of seqref that are made from them.

Models of the library `transformers` with random weights, in the shapes of published
ones, on a batch that is padded on the right: the largest difference of logits at real
positions, and of the gradients of a random linear loss of them, each beside the largest
value. The same models with one detail changed here show what such a difference looks
like. And batches that are padded on the left, given to the library with a mask and
without positions, beside the same rows here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from seqref import Rotary
from seqref.interop import from_left_padding, from_transformers, to_left_padding
from seqref.interop.transformers import translated
from seqref.models import gelu_tanh


@dataclass(frozen=True)
class Config:
    """Shapes of the models, and the batch."""

    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    n_kv_heads: int = 4
    vocab_size: int = 30000
    time: int = 32
    lengths: tuple[int, ...] = (32, 17, 5)
    # Of the standard deviation 1 / sqrt(width).
    gain: float = 1.5
    dtypes: tuple[str, ...] = ("float32", "float64")
    seed: int = 0


def gpt2(config: Config) -> nn.Module:
    """The shape of the smallest GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=2 * config.time,
            n_embd=config.d_model,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def llama(config: Config) -> nn.Module:
    """Rotary positions, RMSNorm, SwiGLU and grouped heads, as wide as the others."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=8 * config.d_model // 3,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
        )
    )


def bert(config: Config) -> nn.Module:
    """The shape of the smaller BERT."""
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(
        BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            intermediate_size=4 * config.d_model,
            max_position_embeddings=2 * config.time,
        )
    )


def other_gelu(activation: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """Another activation in every block of ours."""

    def change(model: nn.Module) -> None:
        modules: Any = model.modules()
        for module in modules:
            if hasattr(module, "feed_forward"):
                module.feed_forward.activation = activation

    return change


def other_rotary(model: nn.Module) -> None:
    """The other layout of pairs in every block of ours."""
    modules: Any = model.modules()
    for module in modules:
        if hasattr(module, "rotary"):
            module.rotary = Rotary(module.d_head, layout="interleaved")


@dataclass(frozen=True)
class Case:
    """A model of theirs, what is changed here, and the side of the padding."""

    label: str
    make: Callable[[Config], nn.Module]
    dtype: str = "float32"
    change: Callable[[nn.Module], None] | None = None
    left: bool = False


MAKERS = {"gpt2": ("GPT-2", gpt2), "llama": ("Llama", llama), "bert": ("BERT", bert)}


def cases(config: Config) -> dict[str, Case]:
    """The checkpoints in each dtype, then what is changed or padded on the left."""
    found = {
        f"{name}_{dtype}": Case(label, make, dtype)
        for name, (label, make) in MAKERS.items()
        for dtype in config.dtypes
    }
    exact = other_gelu(nn.functional.gelu)
    found["gpt2_other"] = Case("GPT-2, exact GELU here", gpt2, change=exact)
    found["llama_other"] = Case("Llama, other layout here", llama, change=other_rotary)
    changed = other_gelu(gelu_tanh)
    found["bert_other"] = Case("BERT, tanh GELU here", bert, change=changed)
    found["gpt2_left"] = Case("GPT-2, padded on the left", gpt2, left=True)
    found["llama_left"] = Case("Llama, padded on the left", llama, left=True)
    return found


def drawn(case: Case, config: Config) -> nn.Module:
    """The library's model with weights large enough that a difference shows."""
    with lab.seeded(config.seed):
        model = case.make(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 2:
                    parameter.normal_(std=config.gain * config.d_model**-0.5)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.2)
                else:
                    parameter.normal_(mean=1.0, std=0.2)
    return model.to(getattr(torch, case.dtype)).eval()


def relative(theirs: Tensor, ours: Tensor) -> float:
    """The largest difference beside the largest value."""
    return ((theirs - ours).abs().max() / theirs.abs().max()).item()


def joined(tensors: dict[str, Tensor], names: dict[str, Tensor]) -> Tensor:
    """All in one row: of a key's bias the gradient is zero but for rounding."""
    return torch.cat([tensors[name].flatten() for name in names])


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Both models on one batch: their logits, and the gradients of one loss."""
    theirs = drawn(case, config)
    ours = from_transformers(theirs)
    if case.change is not None:
        case.change(ours)
    random = lab.generator(config.seed + 1)
    lengths = torch.tensor(config.lengths)
    # Token 0 is BERT's padding token, whose input has no gradient there.
    shape = len(lengths), config.time
    tokens = torch.randint(1, config.vocab_size, shape, generator=random)
    mask = (torch.arange(config.time) < lengths[:, None]).long()
    given, given_mask = tokens, mask
    if case.left:
        given, given_mask = to_left_padding(tokens, lengths)
    logits = theirs(given, attention_mask=given_mask).logits
    if case.left:
        logits, _ = from_left_padding(logits, given_mask)
    result = ours(tokens, lengths=lengths)
    scores = result[0] if isinstance(result, tuple) else result
    logits = logits * mask[..., None]
    upstream = torch.randn(shape, generator=random).to(logits.dtype)[..., None]
    for values in (logits, scores):
        (values * values.detach().cos() * upstream).sum().backward()
    named: Any = {name: p.grad for name, p in theirs.named_parameters()}
    expected = translated(theirs, named)
    got: Any = {name: p.grad for name, p in ours.named_parameters()}
    return {
        "label": case.label,
        "dtype": case.dtype,
        "parameters": sum(p.numel() for p in ours.parameters()),
        "largest": logits.detach().abs().max().item(),
        "logits": relative(logits.detach(), scores.detach()),
        "gradients": relative(joined(expected, got), joined(got, got)),
    }


def rows(record: dict[str, Any], names: Callable[[str], bool]) -> str:
    """A table of some of the cases."""
    shown = [case for name, case in record["cases"].items() if names(name)]
    headers = ["model", "dtype", "parameters", "largest logit"]
    headers += ["difference of logits", "of gradients"]
    return lab.table(
        headers,
        [
            [
                case["label"],
                case["dtype"],
                f"{case['parameters']:,}",
                f"{case['largest']:.1f}",
                f"{case['logits']:.1e}",
                f"{case['gradients']:.1e}",
            ]
            for case in shown
        ],
    )


def whole(name: str) -> bool:
    """Whether a case is a checkpoint as it is."""
    return name.split("_")[1] not in ("other", "left")


def equal(bound: float) -> lab.Check:
    """Logits and gradients nearer than a bound."""
    return lab.all_of(lab.below("logits", bound), lab.below("gradients", bound))


experiment = lab.Experiment(
    small=Config(
        d_model=24,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        vocab_size=40,
        time=8,
        lengths=(8, 5, 2),
        dtypes=("float32",),
    ),
    cases=cases,
    measure=measure,
    claims=[
        *(
            lab.Claim(
                f"C186.{name}",
                f"Logits and gradients of {label} in float32 equal the library's to "
                "3e-5 of the largest.",
                equal(3e-5),
                case=f"{name}_float32",
                control=f"{name}_other",
            )
            for name, (label, _) in MAKERS.items()
        ),
        lab.Claim(
            "C188",
            "Padded on the left, with a mask and no positions, a model with learned "
            "positions gives other logits, by more than a hundredth of the largest.",
            lab.above("logits", 0.01),
            case="gpt2_left",
            control="llama_left",
        ),
    ],
    numbers=[lab.each("logits"), lab.each("gradients"), lab.each("parameters")],
    tables={
        "checkpoints": lambda record: rows(record, whole),
        "others": lambda record: rows(record, lambda name: not whole(name)),
    },
)
