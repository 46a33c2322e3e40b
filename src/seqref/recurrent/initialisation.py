r"""Initialisations that set how long a recurrent network remembers at the start."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqref.recurrent.gru import ChoGRUCell, GRUCell
from seqref.recurrent.lstm import LSTMCell
from seqref.recurrent.rnn import RNNCell


class Change(NamedTuple):
    r"""One block of rows of one parameter that was overwritten."""

    parameter: str
    rows: tuple[int, int]
    block: str
    value: str


class _Site(NamedTuple):
    """One layer and direction: where its recurrent matrix and its biases are."""

    kind: str
    names: dict[str, str]
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None


_BLOCKS = {"RNN": "h", "LSTM": "ifgo", "GRU": "rzn"}
_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (RNNCell, "RNN"),
    (LSTMCell, "LSTM"),
    (GRUCell, "GRU"),
    (ChoGRUCell, "GRU"),
    (nn.RNN, "RNN"),
    (nn.LSTM, "LSTM"),
    (nn.GRU, "GRU"),
    (nn.RNNCell, "RNN"),
    (nn.LSTMCell, "LSTM"),
    (nn.GRUCell, "GRU"),
)


def orthogonal_(
    module: nn.Module, gain: float = 1.0, generator: torch.Generator | None = None
) -> list[Change]:
    r"""Make each square block of each recurrent matrix `gain` times orthogonal."""
    _check_finite("orthogonal_", "gain", gain)
    sites = _square_sites("orthogonal_", module)
    law = f"{gain:g} * orthogonal"

    def fill(block: Tensor) -> None:
        nn.init.orthogonal_(block, gain, generator=generator)

    return [
        _write(site, "weight_hh", name, law, fill)
        for site in sites
        for name in _BLOCKS[site.kind]
    ]


def identity_(module: nn.Module, gain: float = 1.0) -> list[Change]:
    r"""Make the recurrent matrix of plain RNNs `gain` times the identity, biases 0."""
    _check_finite("identity_", "gain", gain)
    sites = _square_sites("identity_", module)
    _check_kinds("identity_", sites, ("RNN",), "one recurrent matrix without gates")
    changes = []
    for site in sites:
        law = f"{gain:g} * identity"

        def fill(block: Tensor) -> None:
            nn.init.eye_(block).mul_(gain)

        changes.append(_write(site, "weight_hh", "h", law, fill))
        if site.bias_ih is not None:
            changes.append(_write(site, "bias_ih", "h", "0", _zero))
            changes.append(_write(site, "bias_hh", "h", "0", _zero))
    return changes


def forget_bias_(module: nn.Module, value: float = 1.0) -> list[Change]:
    r"""Make the sum of both biases of each LSTM's forget gate `value`.

    `bias_ih` takes the value and `bias_hh` becomes 0 in these rows.
    """
    where = "forget_bias_"
    _check_finite(where, "value", value)
    sites = list(_sites(where, module))
    _check_kinds(where, sites, ("LSTM",), "a forget gate")
    _check_biases(where, sites)
    changes = []
    for site in sites:
        changes += _set_sum(site, "f", f"{value:g}", lambda b: b.fill_(value))
    return changes


def chrono_(
    module: nn.Module, horizon: float, generator: torch.Generator | None = None
) -> list[Change]:
    r"""Draw the biases of the gates that keep from log U[1, horizon - 1].

    LSTM: forget bias b drawn, input bias -b. GRU: bias of z, which keeps where it is 1
    in torch's convention. `bias_ih` takes the value, `bias_hh` becomes 0 there.
    """
    where = "chrono_"
    _check_finite(where, "horizon", horizon)
    if horizon <= 2:
        raise ValueError(f"{where}: `horizon` must be above 2, got {horizon}")
    sites = list(_sites(where, module))
    _check_kinds(where, sites, ("LSTM", "GRU"), "a gate that keeps")
    _check_biases(where, sites)
    law = f"log U[1, {horizon - 1:g}]"
    changes = []
    for site in sites:
        rows = _rows(site, "f" if site.kind == "LSTM" else "z")
        like = site.bias_ih
        if like is None:  # checked above; narrows the type
            continue
        drawn = torch.empty_like(like[slice(*rows)], requires_grad=False)
        drawn.uniform_(1, horizon - 1, generator=generator).log_()
        if site.kind == "GRU":
            changes += _set_sum(site, "z", law, lambda b, d=drawn: b.copy_(d))
            continue
        changes += _set_sum(site, "f", law, lambda b, d=drawn: b.copy_(d))
        minus = "-(forget bias)"
        changes += _set_sum(site, "i", minus, lambda b, d=drawn: b.copy_(-d))
    return changes


def _sites(where: str, module: nn.Module) -> Iterator[_Site]:
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{where}: `module` must be a torch.nn.Module, got {type(module).__name__}"
        )
    found = False
    for path, part in module.named_modules():
        kind = next((name for known, name in _KINDS if isinstance(part, known)), None)
        if kind is None:
            continue
        for suffix in _suffixes(part):
            found = True
            names = {
                name: f"{path}.{name}{suffix}".lstrip(".")
                for name in ("weight_hh", "bias_ih", "bias_hh")
            }
            tensors = (getattr(part, name + suffix, None) for name in names)
            yield _Site(kind, names, *tensors)  # type: ignore[arg-type]
    if not found:
        raise TypeError(
            f"{where}: `module` must hold a recurrent layer or cell of seqref or "
            f"torch.nn, got {type(module).__name__}"
        )


def _suffixes(part: nn.Module) -> list[str]:
    if not isinstance(part, nn.RNNBase):
        return [""]
    ends = ("", "_reverse") if part.bidirectional else ("",)
    return [f"_l{layer}{end}" for layer in range(part.num_layers) for end in ends]


def _rows(site: _Site, block: str) -> tuple[int, int]:
    blocks = _BLOCKS[site.kind]
    size, place = site.weight_hh.shape[0] // len(blocks), blocks.index(block)
    return place * size, (place + 1) * size


@torch.no_grad()
def _write(
    site: _Site, name: str, block: str, value: str, fill: Callable[[Tensor], object]
) -> Change:
    rows = _rows(site, block)
    fill(getattr(site, name)[slice(*rows)])
    return Change(site.names[name], rows, block, value)


def _zero(block: Tensor) -> Tensor:
    return block.zero_()


def _set_sum(
    site: _Site, block: str, value: str, fill: Callable[[Tensor], object]
) -> list[Change]:
    return [
        _write(site, "bias_ih", block, value, fill),
        _write(site, "bias_hh", block, "0", _zero),
    ]


def _square_sites(where: str, module: nn.Module) -> list[_Site]:
    sites = list(_sites(where, module))
    for site in sites:
        rows, columns = site.weight_hh.shape
        if rows != columns * len(_BLOCKS[site.kind]):
            raise ValueError(
                f"{where}: `{site.names['weight_hh']}` must have square blocks, got "
                f"shape {(rows, columns)} (a layer with proj_size has none)"
            )
    return sites


def _check_kinds(
    where: str, sites: list[_Site], kinds: tuple[str, ...], what: str
) -> None:
    for site in sites:
        if site.kind not in kinds:
            raise TypeError(
                f"{where}: every layer must have {what} ({' or '.join(kinds)}), got "
                f"a {site.kind} at `{site.names['weight_hh']}`; nothing was changed"
            )


def _check_biases(where: str, sites: list[_Site]) -> None:
    for site in sites:
        if site.bias_ih is None or site.bias_hh is None:
            raise ValueError(
                f"{where}: every layer must have biases, got none beside "
                f"`{site.names['weight_hh']}`; nothing was changed"
            )


def _check_finite(where: str, name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{where}: `{name}` must be a number, got {type(value).__name__}"
        )
    if not math.isfinite(value):
        raise ValueError(f"{where}: `{name}` must be finite, got {value}")
