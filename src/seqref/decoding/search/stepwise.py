r"""What can be decoded: the protocol of a model that takes one token at a time."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Stepwise(Protocol):
    r"""A model that gives the scores of the next token: anything with these two.

    `seqref.models.LanguageModel` is one. A search calls `step` with the rows of the
    batch in order, in beam search with the beams of a row next to each other, and with
    all of them until it ends.

    Shapes:
        - `token_t`: (batch,), whole numbers in 0 to V - 1; a state's tensors have the
          batch as first axis
        - `step` returns `logits` (batch, vocab) and the new state
    """

    def initial_state(self, batch_size: int) -> Any: ...

    def step(self, token_t: Tensor, state: Any) -> tuple[Tensor, Any]: ...
