r"""Keys and values of one attention layer, written in place."""

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from seqref.attention import KVState, MultiHeadAttention


class LayerCache:
    r"""Room for `size` positions of each row; position $p$ stands at $p \bmod s$.

    A window needs no more room than it is wide: a new key takes the place of the one
    that no query sees any more. The order of the places does not matter to a softmax.

    Shapes:
        - `k`, `v`: (rows, kv_heads, size, head)
    """

    def __init__(self, attention: MultiHeadAttention, rows: int, capacity: int) -> None:
        window = attention.window
        # Whether a position may be written over when no query sees it any more.
        self.ring = window is not None and window <= capacity
        self.size = capacity if window is None else min(capacity, window)
        shape = rows, attention.n_kv_heads, self.size, attention.d_head
        # Tensors that were made in inference mode cannot be written to outside of it.
        with torch.inference_mode(False):
            self.k = attention.in_proj_weight.new_zeros(shape)
            self.v = torch.zeros_like(self.k)

    def fill(self, state: KVState) -> None:
        r"""Put in the last steps of a prompt."""
        steps = state.k.shape[2]
        if steps <= self.size:
            self.k[: len(state.k), :, :steps] = state.k
            self.v[: len(state.v), :, :steps] = state.v
            return
        for row, length in enumerate(state.length.tolist()):
            kept = torch.arange(max(0, length - self.size), length)
            places = (kept % self.size).to(self.k.device)
            kept = kept.to(self.k.device)
            self.k[row, :, places] = state.k[row, :, kept]
            self.v[row, :, places] = state.v[row, :, kept]

    def put(
        self,
        k_t: Float[Tensor, "batch kv_heads head"],
        v_t: Float[Tensor, "batch kv_heads head"],
        position: int | Integer[Tensor, " batch"],
    ) -> None:
        r"""Write one position of each row."""
        if isinstance(position, int):
            self.k[: len(k_t), :, position % self.size] = k_t
            self.v[: len(v_t), :, position % self.size] = v_t
            return
        rows = torch.arange(len(k_t), device=k_t.device)
        self.k[rows, :, position % self.size] = k_t
        self.v[rows, :, position % self.size] = v_t

    def reorder(self, rows: Integer[Tensor, " selected"], used: int) -> None:
        r"""Row i becomes what row `rows[i]` was, in the positions that are used."""
        changed = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        used = min(used, self.size)
        for cache in (self.k, self.v):
            # Indexing copies, so no row is read after it was written.
            cache[changed, :, :used] = cache[rows[changed], :, :used]


def seen_places(
    position: int | Integer[Tensor, " batch"], size: int, used: int, like: Tensor
) -> tuple[Integer[Tensor, "rows used"], Bool[Tensor, "rows used"]]:
    r"""How far the key at each place lies behind `position`, and whether it is one.

    Shapes:
        - returns: twice (rows, used), rows 1 where the position is one for all
    """
    place = torch.arange(used, device=like.device)
    at = torch.as_tensor(position, device=like.device).view(-1, 1)
    behind = (at - place) % size
    return behind, behind <= at
