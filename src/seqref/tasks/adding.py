r"""The adding problem: the sum of two marked numbers in a long sequence."""

from dataclasses import dataclass

import torch

from seqref.errors import check_size
from seqref.tasks._batch import Batch, check_draw, check_dtype


@dataclass(frozen=True)
class Adding:
    r"""Add the two numbers that are marked, one in each half of the sequence.

    $$ x_t = (u_t, m_t), \qquad u_t \sim U[0, 1], \qquad
       \text{target } \sum_t m_t\, u_t $$

    The mark $m_t$ is 1 at one step of the first half, $t < \lfloor T/2 \rfloor$, and
    at one step of the rest, both uniform, and 0 elsewhere. The answer is read at the
    last step, and its error squared.

    Args:
        time: Steps of a sequence, T, at least 2.

    Raises:
        TypeError: `time` is no int.
        ValueError: `time` is below 2.

    Source:
        Hochreiter & Schmidhuber (1996), experiment 1; the form with U[0, 1] and one
        mark in each half as Arjovsky, Shah & Bengio (2016) are quoted.
        Differs: from 1996 in the range of the numbers, in where the marks lie, in the
        fixed length, in having no -1 at both ends, and in the target, which there is
        0.5 plus a quarter of the sum.
    """

    time: int

    def __post_init__(self) -> None:
        check_size("Adding", "time", self.time, minimum=2)

    @property
    def constant_mse(self) -> float:
        """Mean squared error of the best constant answer, 1: the variance 1/6."""
        return 1 / 6

    @property
    def memoryless_mse(self) -> float:
        r"""The least mean squared error of a function of the last step alone.

        With probability $1 / \lceil T/2 \rceil$ the last step is marked, and half of
        the variance is known: $1/6 - 1 / (12 \lceil T/2 \rceil)$.
        """
        return 1 / 6 - 1 / (12 * self._second_half)

    @property
    def half_mse(self) -> float:
        """What is left when only one of the two numbers is known: 1/12."""
        return 1 / 12

    @property
    def _second_half(self) -> int:
        return self.time - self.time // 2

    def draw(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Batch:
        r"""Random sequences and their sums.

        Numbers are drawn in float32 on the generator's device and then converted: a
        generator gives the same sequences in every dtype and wherever they go. The sum
        is taken in `dtype`.

        Args:
            batch_size: How many sequences.
            generator: Where the random numbers come from; `None` is torch's own.
            dtype: Floating dtype of inputs and targets.
            device: Where the batch goes; `None` leaves it on the generator's device.

        Shapes:
            - returns: `x` (batch, time, input = 2), the number and the mark; `targets`
              (batch,)

        Raises:
            TypeError: an argument has the wrong kind.
            ValueError: `batch_size` is below 1.
        """
        home = check_draw("Adding.draw", batch_size, generator)
        check_dtype("Adding.draw", dtype)
        size, first = (batch_size, self.time), self.time // 2
        # Without these keywords torch would draw from its global generator.
        where = {"generator": generator, "device": home}
        numbers = torch.rand(size, dtype=torch.float32, **where).to(dtype)
        early = torch.randint(first, (batch_size,), **where)
        late = torch.randint(first, self.time, (batch_size,), **where)
        marks = torch.zeros(size, dtype=dtype, device=home)
        rows = torch.arange(batch_size, device=home)
        marks[rows, early] = 1
        marks[rows, late] = 1
        x = torch.stack([numbers, marks], dim=-1)
        targets = numbers[rows, early] + numbers[rows, late]
        device = home if device is None else torch.device(device)
        return Batch(x.to(device), targets.to(device))
