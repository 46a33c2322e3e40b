r"""Initialisations that set how long a recurrent layer remembers before training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqref.errors import check_generator, check_number
from seqref.recurrent import lstm_variants as variants
from seqref.recurrent._base import RecurrentCell
from seqref.recurrent.gru import ChoGRUCell, GRUCell
from seqref.recurrent.lstm import LSTMCell
from seqref.recurrent.lstm_history import PeepholeLSTMCell
from seqref.recurrent.rnn import RNNCell

__all__ = ["Change", "Report", "chrono_", "forget_bias_", "identity_", "orthogonal_"]


class Change(NamedTuple):
    r"""One block of rows of one parameter that was overwritten.

    `rows` is half open, as in a slice; `block` is the letter of the gate or candidate;
    `value` says what was written.
    """

    parameter: str
    rows: tuple[int, int]
    block: str
    value: str


@dataclass(frozen=True, repr=False)
class Report:
    r"""What a call overwrote, in the order of the module's layers; prints as a table.

    Args:
        changes: The blocks of rows that were overwritten.
    """

    changes: tuple[Change, ...]

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __repr__(self) -> str:
        width = max((len(c.parameter) for c in self.changes), default=0)
        return "\n".join(
            f"{c.parameter:{width}}  {c.block}, rows {c.rows[0]} to {c.rows[1] - 1}: "
            f"{c.value}"
            for c in self.changes
        )


class _Site(NamedTuple):
    """One layer and direction: where its recurrent matrix and its biases are."""

    kind: str
    names: dict[str, str]
    tensors: dict[str, Tensor]
    computed: frozenset[str]

    def rows(self, block: str) -> tuple[int, int]:
        blocks = _BLOCKS[self.kind]
        size = self.tensors["weight_hh"].shape[0] // len(blocks)
        return blocks.index(block) * size, (blocks.index(block) + 1) * size

    def block(self, name: str, block: str) -> Tensor:
        return self.tensors[name].detach()[slice(*self.rows(block))]


class _Write(NamedTuple):
    """A block of a parameter, the values for it, and what they are called."""

    site: _Site
    name: str
    block: str
    values: Tensor
    what: str


# Whatever torch's default device is.
_WIDE: Any = {"dtype": torch.float64, "device": "cpu"}
_NAMES = ("weight_hh", "bias_ih", "bias_hh")
_BLOCKS = {"RNN": "h", "LSTM": "ifgo", "GRU": "rzn"}
# They have the parameters and the blocks of an LSTMCell, and more.
_LSTM_VARIANTS = (
    PeepholeLSTMCell,
    variants.ProjectedLSTMCell,
    variants.VariationalLSTMCell,
    variants.ZoneoutLSTMCell,
)
_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "RNN": (RNNCell, nn.RNN, nn.RNNCell),
    "LSTM": (LSTMCell, nn.LSTM, nn.LSTMCell, *_LSTM_VARIANTS),
    "GRU": (GRUCell, ChoGRUCell, nn.GRU, nn.GRUCell),
}


def orthogonal_(
    module: nn.Module, gain: int | float = 1.0, generator: torch.Generator | None = None
) -> Report:
    r"""Make each square block of each recurrent matrix `gain` times orthogonal.

    $$ W_{hh} = \text{gain} \cdot Q, \qquad Q^\top Q = I $$

    with a $Q$ of its own for each layer, direction and gate, drawn by
    `torch.nn.init.orthogonal_`. Biases and input weights stay as they are.

    Args:
        module: A recurrent layer or cell of seqref or `torch.nn`, or a module that
            holds some; all of them are changed, in place.
        gain: The singular value that every block gets, up to its sign.
        generator: Where the random numbers come from; None means torch's own.

    Returns:
        What was overwritten; two equal generators give equal matrices.

    Raises:
        TypeError: `module` is no module, or holds no recurrent layer, or one of an
            unknown kind; `gain` is no number, `generator` no generator.
        ValueError: `gain` is not finite, or too large for the dtype; a block is not
            square (`proj_size`); a parameter is computed from others, shared by two
            places or without values.

    Source:
        Saxe, McClelland & Ganguli (2014), for deep linear networks.
        Differs: recurrent; each gate has its own matrix.
    """
    where = "orthogonal_"
    gain = _finite(where, "gain", gain)
    check_generator(where, generator)
    sites = _square_sites(where, module)
    writes = []
    for site in sites:
        for block in _BLOCKS[site.kind]:
            like = site.block("weight_hh", block)
            drawn = _workspace(like, generator)
            nn.init.orthogonal_(drawn, gain, generator=generator)
            what = "orthogonal" if gain == 1 else f"{gain:g} * orthogonal"
            writes.append(_Write(site, "weight_hh", block, drawn, what))
    return _apply(where, writes)


def identity_(module: nn.Module, gain: int | float = 1.0) -> Report:
    r"""Make the recurrent matrix of plain RNNs `gain` times the identity, biases 0.

    $$ W_{hh} = \text{gain} \cdot I, \qquad b_{ih} = b_{hh} = 0 $$

    With ReLU and a gain of 1 a state without negative entries then stays as it is, but
    for the input, and so does the gradient of its positive entries. The input weights
    stay as they are.

    Args:
        module: A plain recurrent layer or cell of seqref or `torch.nn`, or a module
            that holds some; all of them are changed, in place.
        gain: The factor before the identity.

    Returns:
        What was overwritten.

    Raises:
        TypeError: `module` is no module, or holds no recurrent layer, or one with
            gates or of an unknown kind; `gain` is no number.
        ValueError: `gain` is not finite, or too large for the dtype; a parameter is
            computed from others, shared by two places or without values.

    Source:
        Le, Jaitly & Hinton (2015), abstract: the identity or a multiple of it, in a
        network of rectified linear units.
        Differs: the nonlinearity is the layer's own; the input weights stay.
    """
    where = "identity_"
    gain = _finite(where, "gain", gain)
    sites = _square_sites(where, module)
    _check_kinds(where, sites, ("RNN",), "one recurrent matrix without gates")
    what = "identity" if gain == 1 else f"{gain:g} * identity"
    writes = []
    for site in sites:
        width = len(site.tensors["weight_hh"])
        eye = gain * torch.eye(width, **_WIDE)
        writes.append(_Write(site, "weight_hh", "h", eye, what))
        writes += [_zeros(site, n, "h") for n in _NAMES[1:] if n in site.tensors]
    return _apply(where, writes)


def forget_bias_(module: nn.Module, value: int | float = 1.0) -> Report:
    r"""Make the sum of both biases of each LSTM's forget gate `value`.

    $$ b_{if} = \text{value}, \qquad b_{hf} = 0 $$

    So the gate is $\sigma(\text{value})$ where the rest of its pre-activation is zero.

    Args:
        module: An LSTM layer or cell of seqref or `torch.nn`, or a module that holds
            some; all of them are changed, in place.
        value: The sum of both biases, in every unit.

    Returns:
        What was overwritten.

    Raises:
        TypeError: `module` is no module, or holds no recurrent layer, or one that is
            no LSTM; `value` is no number.
        ValueError: `value` is not finite, or too large for the dtype; a layer has no
            biases; a parameter is computed from others, shared by two places or without
            values.

    Source:
        Gers, Schmidhuber & Cummins (2000); the value 1: Jozefowicz, Zaremba &
        Sutskever (2015).
        Differs: torch's second bias of the gate is set to 0.
    """
    where = "forget_bias_"
    value = _finite(where, "value", value)
    sites = list(_sites(where, module))
    _check_kinds(where, sites, ("LSTM",), "a forget gate")
    _check_biases(where, sites)
    writes = []
    for site in sites:
        writes += _sum(site, "f", torch.tensor(value, **_WIDE), f"{value:g}")
    return _apply(where, writes)


def chrono_(
    module: nn.Module, horizon: int | float, generator: torch.Generator | None = None
) -> Report:
    r"""Spread the lags that the units of LSTMs and GRUs keep up to `horizon` steps.

    $$ u \sim \mathcal{U}[1, \text{horizon} - 1], \qquad b_f = \log u, \qquad
    b_i = -b_f $$

    with a $u$ of its own for each unit. A gate with this bias is $1 - 1 / (u + 1)$
    where the rest of its pre-activation is zero. Held at that, it leaves $1 / e$ of a
    value after about $u + 1/2$ steps. In a GRU $b_z = \log u$; its $1 - z_t$ does what
    $b_i$ does. $b$ is the sum of both biases: `bias_ih` takes the value and `bias_hh`
    becomes 0 in these rows.

    Args:
        module: An LSTM or GRU layer or cell of seqref or `torch.nn`, or a module that
            holds some; all of them are changed, in place.
        horizon: The longest lag, in input steps; above 2.
        generator: Where the random numbers come from; None means torch's own.

    Returns:
        What was overwritten; two equal generators give equal biases.

    Raises:
        TypeError: `module` is no module, or holds no recurrent layer, or one that is
            neither LSTM nor GRU; `horizon` is no number, `generator` no generator.
        ValueError: `horizon` is not finite or not above 2; a layer has no biases; a
            parameter is computed from others, shared by two places or without values.

    Source:
        Tallec & Ollivier (2018), eq. 16, for the LSTM; for the GRU their sec. 2, on a
        gate that is tied, with a shortest time of 2.
    """
    where = "chrono_"
    horizon = _finite(where, "horizon", horizon)
    check_number(where, "horizon", horizon, above=2)
    check_generator(where, generator)
    sites = list(_sites(where, module))
    _check_kinds(where, sites, ("LSTM", "GRU"), "a gate that keeps")
    _check_biases(where, sites)
    what = f"log U[1, {horizon - 1:g}]"
    writes = []
    for site in sites:
        keeps = "f" if site.kind == "LSTM" else "z"
        drawn = _workspace(site.block("bias_ih", keeps), generator)
        drawn.uniform_(1, horizon - 1, generator=generator).log_()
        writes += _sum(site, keeps, drawn, what)
        if site.kind == "LSTM":
            writes += _sum(site, "i", -drawn, "minus that of f")
    return _apply(where, writes)


def _sites(where: str, module: nn.Module) -> Iterator[_Site]:
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{where}: `module` must be a torch.nn.Module, got {type(module).__name__}"
        )
    any_layer = False
    for path, part in module.named_modules():
        kind = next((k for k, known in _KINDS.items() if isinstance(part, known)), None)
        if kind is None:
            _check_unknown(where, path, part)
            continue
        for suffix in _suffixes(part):
            any_layer = True
            tensors = {n: getattr(part, n + suffix, None) for n in _NAMES}
            names = {n: f"{path}.{n}{suffix}".lstrip(".") for n in _NAMES}
            own = dict(part.named_parameters(recurse=False, remove_duplicate=False))
            computed = {n for n in _NAMES if own.get(n + suffix) is not tensors[n]}
            given = {n: t for n, t in tensors.items() if t is not None}
            yield _Site(kind, names, given, frozenset(computed))
    if not any_layer:
        raise TypeError(
            f"{where}: `module` must hold a recurrent layer or cell of seqref or "
            f"torch.nn, got {type(module).__name__}"
        )


def _suffixes(part: nn.Module) -> list[str]:
    if not isinstance(part, nn.RNNBase):
        return [""]
    ends = ("", "_reverse") if part.bidirectional else ("",)
    return [f"_l{layer}{end}" for layer in range(part.num_layers) for end in ends]


def _workspace(like: Tensor, generator: torch.Generator | None) -> Tensor:
    # QR has no half precision; a generator draws on its own device alone.
    wide = like.dtype in (torch.float32, torch.float64)
    device = like.device if generator is None else generator.device
    return torch.empty(
        like.shape, dtype=like.dtype if wide else torch.float32, device=device
    )


def _zeros(site: _Site, name: str, block: str) -> _Write:
    return _Write(site, name, block, torch.zeros((), **_WIDE), "0")


def _sum(site: _Site, block: str, values: Tensor, what: str) -> list[_Write]:
    first = _Write(site, "bias_ih", block, values, what)
    return [first, _zeros(site, "bias_hh", block)]


@torch.no_grad()
def _apply(where: str, writes: list[_Write]) -> Report:
    seen: dict[object, str] = {}
    for write in writes:
        _check_target(where, write, seen)
    changes = []
    for site, name, block, values, what in writes:
        site.block(name, block).copy_(values)
        changes.append(Change(site.names[name], site.rows(block), block, what))
    return Report(tuple(changes))


def _square_sites(where: str, module: nn.Module) -> list[_Site]:
    sites = list(_sites(where, module))
    for site in sites:
        rows, columns = site.tensors["weight_hh"].shape
        if rows != columns * len(_BLOCKS[site.kind]):
            raise ValueError(
                f"{where}: `{site.names['weight_hh']}` must have square blocks, got "
                f"shape {(rows, columns)} (a layer with proj_size has none); nothing "
                "was changed"
            )
    return sites


def _check_unknown(where: str, path: str, part: nn.Module) -> None:
    if isinstance(part, (RecurrentCell, nn.RNNBase, nn.RNNCellBase)):
        at = f" at `{path}`" if path else ""
        raise TypeError(
            f"{where}: `module` must hold no cells but those with the blocks of RNN, "
            f"LSTM or GRU, got {type(part).__name__}{at}; nothing was changed"
        )


def _check_target(where: str, write: _Write, seen: dict[object, str]) -> None:
    tensor, name = write.site.tensors[write.name], write.site.names[write.name]
    if write.name in write.site.computed:
        # The next call would compute the tensor anew and lose what was written.
        raise ValueError(
            f"{where}: `{name}` must be a parameter, got a tensor computed from others "
            "(parametrize, weight_norm or prune: initialise before); nothing was "
            "changed"
        )
    if tensor.is_meta:
        raise ValueError(
            f"{where}: `{name}` must hold values, got a tensor on the device meta "
            "(call to_empty first); nothing was changed"
        )
    if write.values.abs().max() > torch.finfo(tensor.dtype).max:
        raise ValueError(
            f"{where}: `{name}` must get numbers that {tensor.dtype} can hold, got "
            f"{write.what}; nothing was changed"
        )
    first = seen.setdefault((tensor.device, tensor.data_ptr()), name)
    if first != name:
        raise ValueError(
            f"{where}: `{name}` must be a parameter of its own, got the tensor of "
            f"`{first}` (tie the two afterwards); nothing was changed"
        )


def _check_kinds(
    where: str, sites: list[_Site], kinds: tuple[str, ...], what: str
) -> None:
    for site in sites:
        if site.kind not in kinds:
            raise TypeError(
                f"{where}: every layer must have {what} ({' or '.join(kinds)}), got "
                f"{site.kind} at `{site.names['weight_hh']}`; nothing was changed"
            )


def _check_biases(where: str, sites: list[_Site]) -> None:
    for site in sites:
        if set(site.tensors) != set(_NAMES):
            raise ValueError(
                f"{where}: every layer must have biases, got none beside "
                f"`{site.names['weight_hh']}`; nothing was changed"
            )


def _finite(where: str, name: str, value: Any) -> float:
    # Random numbers are drawn in float32 unless the parameters are wider.
    check_number(where, name, value, finite_in=torch.float32)
    return float(value)
