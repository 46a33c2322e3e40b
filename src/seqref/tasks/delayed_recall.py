r"""Delayed recall: name the first symbol of a sequence after its last step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from seqref.errors import check_number, check_size
from seqref.tasks._batch import Batch, check_draw, check_dtype


@dataclass(frozen=True)
class DelayedRecall:
    r"""A symbol is shown at the first step and asked for `lag` steps later.

    $$ x_0 = e_s, \qquad x_t = \sigma\, \varepsilon_t
       \quad (t = 1, \dots, \text{lag}), \qquad \text{target } s $$

    The symbol $s$ is uniform on 0 to `symbols` - 1, $e_s$ its one-hot vector,
    $\varepsilon_t$ standard normal and $\sigma$ the `noise`. The answer is read at the
    last step, so the symbol has to be carried over `lag` steps. No step but the first
    tells anything of it: a network without memory is right with probability
    `chance`, and its cross-entropy is at best `chance_loss`.

    Args:
        lag: Steps from the symbol to the answer, at least 1.
        symbols: How many symbols there are, at least 2.
        noise: Standard deviation of what follows the symbol; 0 gives blanks.

    Units:
        `chance_loss` in nats.

    Raises:
        TypeError: `lag` or `symbols` is no int, or `noise` no number.
        ValueError: `lag` below 1, `symbols` below 2, or `noise` negative or not finite.

    Source:
        None: a design of this package, the least task that needs memory.
    """

    lag: int
    symbols: int = 2
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_size("DelayedRecall", "lag", self.lag)
        check_size("DelayedRecall", "symbols", self.symbols, minimum=2)
        check_number(
            "DelayedRecall", "noise", self.noise, minimum=0, finite_in=torch.float64
        )

    @property
    def time(self) -> int:
        """Steps of a sequence: the symbol and the lag."""
        return self.lag + 1

    @property
    def chance(self) -> float:
        """The best accuracy without memory: 1 / symbols."""
        return 1 / self.symbols

    @property
    def chance_loss(self) -> float:
        """The least cross-entropy without memory: ln(symbols)."""
        return math.log(self.symbols)

    def draw(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Batch:
        r"""Random sequences and the symbol of each.

        Numbers are drawn in float32 on the generator's device and then converted: a
        generator gives the same sequences in every dtype and wherever they go.

        Args:
            batch_size: How many sequences.
            generator: Where the random numbers come from; `None` is torch's own.
            dtype: Floating dtype of the inputs.
            device: Where the batch goes; `None` leaves it on the generator's device.

        Shapes:
            - returns: `x` (batch, time = lag + 1, input = symbols); `targets` (batch,),
              int64

        Raises:
            TypeError: an argument has the wrong kind.
            ValueError: `batch_size` is below 1.
        """
        where = "DelayedRecall.draw"
        home = check_draw(where, batch_size, generator)
        check_dtype(where, dtype)
        symbol = torch.randint(
            self.symbols, (batch_size,), generator=generator, device=home
        )
        x = torch.zeros(
            batch_size, self.time, self.symbols, dtype=torch.float32, device=home
        )
        x[:, 0] = one_hot(symbol, self.symbols)
        if self.noise:
            x[:, 1:] = self.noise * self._noise(batch_size, generator, home)
        device = home if device is None else torch.device(device)
        return Batch(x.to(device, dtype), symbol.to(device))

    def _noise(
        self, batch_size: int, generator: torch.Generator | None, home: torch.device
    ) -> Tensor:
        size = (batch_size, self.lag, self.symbols)
        return torch.randn(size, generator=generator, dtype=torch.float32, device=home)
