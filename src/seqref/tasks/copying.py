r"""The copying problem: repeat a string of symbols after a long wait."""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import one_hot

from seqref.errors import check_size
from seqref.tasks._batch import Batch, check_draw, check_dtype


@dataclass(frozen=True)
class Copying:
    r"""Read `length` symbols, wait, and write them in order after a delimiter.

    | steps | input | target |
    | :-- | :-- | :-- |
    | `length` | one of `symbols` symbols each, uniform | blank |
    | `lag` - 1 | blank | blank |
    | 1 | delimiter | blank |
    | `length` | blank | the symbols, in order |

    Inputs are one-hot vectors. Category `symbols` is the blank, `symbols` + 1 the
    delimiter; every step has a target, and the delimiter is never one. From the first
    reading of a symbol to its target there are `lag` + `length` steps.

    Args:
        lag: T of the literature: blanks and delimiter together, at least 1.
        length: How many symbols are to be copied.
        symbols: How many symbols there are, at least 2.

    Units:
        Losses in nats per step, averaged over all `time` steps.

    Raises:
        TypeError: a size is no int.
        ValueError: a size is below its minimum.

    Source:
        Arjovsky, Shah & Bengio (2016), as quoted by Tallec & Ollivier (2018),
        section 3.
        Differs: 10 symbols out of 8 are defaults here, not constants.
    """

    lag: int
    length: int = 10
    symbols: int = 8

    def __post_init__(self) -> None:
        check_size("Copying", "lag", self.lag)
        check_size("Copying", "length", self.length)
        check_size("Copying", "symbols", self.symbols, minimum=2)

    @property
    def time(self) -> int:
        """Steps of a sequence: `lag` + 2 `length`."""
        return self.lag + 2 * self.length

    @property
    def categories(self) -> int:
        """Symbols, blank and delimiter: the width of inputs and of outputs."""
        return self.symbols + 2

    @property
    def blind_loss(self) -> float:
        r"""Least cross-entropy of one who knows when to write, but no symbol.

        $L \ln K / (T + 2L)$ with `length` $L$, `symbols` $K$ and `lag` $T$: the figure
        $10 \ln 8 / (T + 20)$ that the literature calls memoryless. It needs to know
        that the delimiter has come, and so a memory.
        """
        return self.length * math.log(self.symbols) / self.time

    @property
    def memoryless_loss(self) -> float:
        r"""Least cross-entropy of a function of the current input alone.

        Such a function cannot tell a blank before the delimiter from one after it: it
        answers both with the mixture of their targets.
        """
        waiting, writing = self.lag - 1, self.length
        blanks = waiting + writing
        total = writing * math.log(self.symbols * blanks / writing)
        if waiting:
            total += waiting * math.log(blanks / waiting)
        return total / self.time

    def draw(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Batch:
        r"""Random strings in one-hot form, and the category to write at each step.

        Symbols are drawn on the generator's device: a generator gives the same strings
        wherever they go.

        Args:
            batch_size: How many sequences.
            generator: Where the random numbers come from; `None` is torch's own.
            dtype: Floating dtype of the inputs.
            device: Where the batch goes; `None` leaves it on the generator's device.

        Shapes:
            - returns: `x` (batch, time, input = categories); `targets` (batch, time),
              int64

        Raises:
            TypeError: an argument has the wrong kind.
            ValueError: `batch_size` is below 1.
        """
        home = check_draw("Copying.draw", batch_size, generator)
        check_dtype("Copying.draw", dtype)
        size = (batch_size, self.length)
        string = torch.randint(self.symbols, size, generator=generator, device=home)
        read = torch.full((batch_size, self.time), self.symbols, device=home)
        targets = read.clone()
        read[:, : self.length] = string
        read[:, self.length + self.lag - 1] = self.symbols + 1
        targets[:, -self.length :] = string
        x = one_hot(read, self.categories)
        device = home if device is None else torch.device(device)
        return Batch(x.to(device, dtype), targets.to(device))
