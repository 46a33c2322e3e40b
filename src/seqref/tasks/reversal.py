r"""Reversal: read symbols, and write them from the last to the first."""

import math
from dataclasses import dataclass

import torch

from seqref.errors import check_size
from seqref.tasks._batch import check_draw
from seqref.tasks._pairs import BOS, EOS, FIRST, IGNORED, Pairs


@dataclass(frozen=True)
class Reversal:
    r"""Write a string of random symbols backwards, after all of it was read.

    | tensor | tokens |
    | :-- | :-- |
    | source | $s_1, \dots, s_L$ |
    | `target_in` | BOS, $s_L, \dots, s_1$ |
    | `target_out` | $s_L, \dots, s_1$, EOS |

    Symbols are uniform and independent. Each row's length is uniform from `shortest`
    to `longest`; without `shortest` all rows have `longest` symbols. Source and target
    share one vocabulary: 0 is BOS, 1 is EOS, symbols begin at 2.

    Args:
        longest: Symbols of the longest source, at least 1.
        shortest: Symbols of the shortest; None for `longest`.
        symbols: How many symbols there are, at least 2.

    Units:
        Losses in nats per target token, EOS included.

    Raises:
        TypeError: a size is no int.
        ValueError: a size is below its minimum, or `shortest` above `longest`.

    Source:
        None: a design of this package, of a task that many have used.
    """

    longest: int
    shortest: int | None = None
    symbols: int = 8

    def __post_init__(self) -> None:
        check_size("Reversal", "longest", self.longest)
        check_size("Reversal", "symbols", self.symbols, minimum=2)
        if self.shortest is None:
            return
        check_size("Reversal", "shortest", self.shortest)
        if self.shortest > self.longest:
            raise ValueError(
                f"Reversal: `shortest` must be at most longest={self.longest}, got "
                f"{self.shortest}"
            )

    @property
    def vocab_size(self) -> int:
        """Symbols, BOS and EOS: of the source and of the target."""
        return self.symbols + FIRST

    @property
    def blind_loss(self) -> float:
        r"""Expected least cross-entropy of one who knows the lengths, but no symbol.

        $\bar L \ln K / (\bar L + 1)$ with `symbols` $K$ and the mean length $\bar L$:
        each symbol costs $\ln K$ and EOS nothing.
        """
        mean = (self._least + self.longest) / 2
        return mean * math.log(self.symbols) / (mean + 1)

    @property
    def _least(self) -> int:
        return self.longest if self.shortest is None else self.shortest

    def draw(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Pairs:
        r"""Random strings and their reversals, padded on the right.

        Numbers are drawn on the generator's device: a generator gives the same batch
        wherever it goes.

        Args:
            batch_size: How many rows.
            generator: Where the random numbers come from; `None` is torch's own.
            device: Where the batch goes; `None` leaves it on the generator's device.

        Shapes:
            - returns: `Pairs` of int64; source is `longest` and time `longest` + 1,
              however long the drawn rows are

        Raises:
            TypeError: an argument has the wrong kind.
            ValueError: `batch_size` is below 1.
        """
        home = check_draw("Reversal.draw", batch_size, generator)
        size = (batch_size, self.longest)
        drawn = torch.randint(
            FIRST, self.vocab_size, size, generator=generator, device=home
        )
        lengths = torch.randint(
            *(self._least, self.longest + 1, (batch_size,)),
            generator=generator,
            device=home,
        )
        t = torch.arange(self.longest, device=home)
        last = lengths[:, None] - 1
        inside = t <= last
        # What is gathered for the padding does not matter.
        backwards = drawn.gather(1, (last - t).clamp_min(0))
        edge = torch.full((batch_size, 1), BOS, device=home)
        target_in = torch.cat((edge, backwards.masked_fill(~inside, EOS)), dim=1)
        target_out = torch.cat((backwards.masked_fill(~inside, IGNORED), edge), dim=1)
        target_out[:, -1] = IGNORED
        target_out.scatter_(1, lengths[:, None], EOS)
        source = drawn.masked_fill(~inside, 0)
        pairs = Pairs(source, lengths, target_in, target_out, lengths + 1)
        device = home if device is None else torch.device(device)
        return Pairs(*(part.to(device) for part in pairs))
