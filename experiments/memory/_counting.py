r"""The words $a^n b^n$ as the training sees them, and how far a network is right."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments import lab
from experiments.memory._training import Problem
from seqref.tasks.counting import counting_words, words_right

M = TypeVar("M", bound=nn.Module)


class Words:
    r"""All words up to a length, in order; nothing is drawn."""

    def draw(self, batch_size: int, random: Any = None) -> tuple[Tensor, Tensor]:
        """As many words, and what is to be answered."""
        return counting_words(range(1, batch_size + 1))[:2]


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over every `b`."""
    asked = ~targets.isnan()
    return binary_cross_entropy_with_logits(outputs[..., 0][asked], targets[asked])


def reach(good: Bool[Tensor, " limit"]) -> int:
    """The largest n up to which every word is right; words stand in order of n."""
    wrong = (~good).nonzero()
    return len(good) if len(wrong) == 0 else int(wrong[0])


def score(outputs: Tensor, targets: Tensor) -> float:
    """The reach of a network by its outputs."""
    return float(reach(words_right(outputs[..., 0], targets)))


def counting(shown: int) -> Problem:
    """The task as the training sees it: no early stop, solved on the words shown."""
    return Problem(2, 1, lambda lag: Words(), loss, score, enough=0.0, solved=shown)


def lowest_to_highest(case: Mapping[str, Any]) -> str:
    """Reaches are whole numbers: 9 to 31."""
    return f"{case['reach']['low']:g} to {case['reach']['high']:g}"


def draw_curves(
    figure: Any,
    theme: lab.Theme,
    curves: Mapping[str, Sequence[float]],
    shown: int,
    **style: Any,
) -> Any:
    """Shares of networks that are right, n from 1, by name; marks the words shown."""
    axes = figure.subplots()
    for i, (label, shares) in enumerate(curves.items()):
        style |= {"color": theme.colours[i], "linestyle": lab.DASHES[i]}
        axes.plot(range(1, len(shares) + 1), shares, label=label, **style)
        axes.set_xlim(1, len(shares))
    axes.axvline(shown, color=theme.muted, linewidth=1)
    axes.set_xlabel("n")
    axes.legend(frameon=False, labelcolor=theme.ink)
    return axes


@torch.no_grad()
def zeroed(make: Callable[[], M]) -> M:
    """What is made, with zeros for its parameters."""
    # Drawn, and written over: torch's own generator is to stay where it is.
    with lab.seeded(0):
        module = make()
    for parameter in module.parameters():
        parameter.zero_()
    return module
