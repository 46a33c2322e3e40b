r"""Specimens of attention and the transformer."""

# --8<-- [start:names]
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

Inputs = Float[Tensor, "batch time input"]
Source = Float[Tensor, "batch source input"]
Outputs = Float[Tensor, "batch time hidden"]
Weights = Float[Tensor, "batch time source"]
Lengths = Int[Tensor, " batch"]
Tokens = Int[Tensor, "batch time"]
Heads = Float[Tensor, "batch heads queries head"]
Keys = Float[Tensor, "batch heads keys head"]
Seen = Bool[Tensor, "queries keys"]
Cache = dict[str, Tensor]
# --8<-- [end:names]


# --8<-- [start:upper_left]
class Cached(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, 3 * hidden_size)

    def seen(self, queries: int, keys: int) -> Seen:
        return torch.ones(queries, keys, dtype=torch.bool).tril()

    def forward(
        self, x: Inputs, state: tuple[Outputs, Outputs] | None = None
    ) -> tuple[Outputs, tuple[Tensor, Tensor]]:
        q, k, v = self.project(x).chunk(3, dim=-1)
        if state is not None:
            k, v = torch.cat([state[0], k], dim=1), torch.cat([state[1], v], dim=1)
        seen = self.seen(q.shape[1], k.shape[1])
        return scaled_dot_product_attention(q, k, v, attn_mask=seen), (k, v)


# --8<-- [end:upper_left]


# --8<-- [start:lower_right]
class LowerRight(Cached):
    def seen(self, queries: int, keys: int) -> Seen:
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


# --8<-- [end:lower_right]


# --8<-- [start:hidden_is_seen]
class Ported(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, 3 * hidden_size)

    def mask(self, time: int) -> Bool[Tensor, "time time"]:
        return torch.ones(time, time, dtype=torch.bool).triu(1)

    def forward(self, x: Inputs) -> Outputs:
        q, k, v = self.project(x).chunk(3, dim=-1)
        return scaled_dot_product_attention(q, k, v, attn_mask=self.mask(x.shape[1]))


# --8<-- [end:hidden_is_seen]


# --8<-- [start:seen_is_seen]
class PortedIndeed(Ported):
    def mask(self, time: int) -> Bool[Tensor, "time time"]:
        return ~torch.ones(time, time, dtype=torch.bool).triu(1)


# --8<-- [end:seen_is_seen]


# --8<-- [start:queries_compete]
def attend(q: Heads, k: Keys, v: Keys, seen: Seen) -> Heads:
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=2)
    return weights @ v


# --8<-- [end:queries_compete]


# --8<-- [start:keys_compete]
def attend_over_keys(q: Heads, k: Keys, v: Keys, seen: Seen) -> Heads:
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=3)
    return weights @ v


# --8<-- [end:keys_compete]


# --8<-- [start:unscaled]
def attend_unscaled(q: Heads, k: Keys, v: Keys, seen: Seen) -> Heads:
    scores = q @ k.transpose(2, 3)
    return scores.masked_fill(~seen, -torch.inf).softmax(dim=-1) @ v


# --8<-- [end:unscaled]


# --8<-- [start:scaled]
def attend_scaled(q: Heads, k: Keys, v: Keys, seen: Seen) -> Heads:
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(dim=-1) @ v


# --8<-- [end:scaled]


# --8<-- [start:finite]
class Asking(nn.Module):
    hidden = -1e9

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(input_size, hidden_size)
        self.memory = nn.Linear(input_size, 2 * hidden_size)

    def forward(self, x: Inputs, source: Source, lengths: Lengths) -> Outputs:
        k, v = self.memory(source).chunk(2, dim=-1)
        beyond = torch.arange(source.shape[1]) >= lengths[:, None, None]
        mask = torch.zeros(beyond.shape).masked_fill(beyond, self.hidden)
        return scaled_dot_product_attention(self.query(x), k, v, attn_mask=mask)


# --8<-- [end:finite]


# --8<-- [start:infinite]
class AskingIndeed(Asking):
    hidden = -torch.inf


# --8<-- [end:infinite]


# --8<-- [start:sees_pads]
class Pooled(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, 3 * hidden_size)

    def attend(
        self, q: Outputs, k: Outputs, v: Outputs, real: Bool[Tensor, "batch time"]
    ) -> Outputs:
        return scaled_dot_product_attention(q, k, v)

    def forward(self, x: Inputs, lengths: Lengths) -> Float[Tensor, "batch hidden"]:
        real = torch.arange(x.shape[1]) < lengths[:, None]
        q, k, v = self.project(x).chunk(3, dim=-1)
        y = self.attend(q, k, v, real)
        return (y * real[..., None]).sum(dim=1) / lengths[:, None]


# --8<-- [end:sees_pads]


# --8<-- [start:sees_real]
class PooledReal(Pooled):
    def attend(
        self, q: Outputs, k: Outputs, v: Outputs, real: Bool[Tensor, "batch time"]
    ) -> Outputs:
        return scaled_dot_product_attention(q, k, v, attn_mask=real[:, None])


# --8<-- [end:sees_real]


# --8<-- [start:shared]
class Remembering(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, 3 * hidden_size)

    def extended(self, cache: Cache, k: Outputs, v: Outputs) -> Cache:
        for name, new in (("k", k), ("v", v)):
            cache[name] = torch.cat([cache[name], new], dim=1)
        return cache

    def forward(self, x: Inputs, cache: Cache | None = None) -> tuple[Outputs, Cache]:
        q, k, v = self.project(x).chunk(3, dim=-1)
        cache = self.extended(cache or {"k": k[:, :0], "v": v[:, :0]}, k, v)
        keys, queries = cache["k"].shape[1], q.shape[1]
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        y = scaled_dot_product_attention(q, cache["k"], cache["v"], attn_mask=seen)
        return y, cache


# --8<-- [end:shared]


# --8<-- [start:own_cache]
class RememberingApart(Remembering):
    def extended(self, cache: Cache, k: Outputs, v: Outputs) -> Cache:
        return super().extended(dict(cache), k, v)


# --8<-- [end:own_cache]


# --8<-- [start:no_last_norm]
class PreNorm(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int, depth: int = 4) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(
            hidden_size, 2, 4 * hidden_size, norm_first=True, batch_first=True
        )
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.blocks = nn.TransformerEncoder(
            block, depth, norm=self.last_norm(hidden_size), enable_nested_tensor=False
        )
        self.head = nn.Linear(hidden_size, vocab_size)

    def last_norm(self, hidden_size: int) -> nn.Module | None:
        return None

    def into_head(self, tokens: Tokens) -> Outputs:
        later = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        return self.blocks(self.embedding(tokens), mask=later)

    def forward(self, tokens: Tokens) -> Float[Tensor, "batch time vocab"]:
        return self.head(self.into_head(tokens))

    def predictions_and_labels(self, tokens: Tokens) -> tuple[Tensor, Tokens]:
        return self(tokens[:, :-1]), tokens[:, 1:]


# --8<-- [end:no_last_norm]


# --8<-- [start:last_norm]
class Normed(PreNorm):
    def last_norm(self, hidden_size: int) -> nn.Module | None:
        return nn.LayerNorm(hidden_size)


# --8<-- [end:last_norm]


# --8<-- [start:drops_returned]
class Aligning(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = nn.GRU(input_size, hidden_size, batch_first=True)
        self.decoder = nn.GRU(input_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(0.2)

    def read(self, weights: Weights, encoded: Tensor) -> tuple[Outputs, Weights]:
        weights = self.dropout(weights)
        return weights @ encoded, weights

    def forward(self, source: Source, target: Inputs) -> tuple[Outputs, Weights]:
        encoded, _ = self.encoder(source)
        decoded, _ = self.decoder(target)
        scores = decoded @ encoded.transpose(1, 2) / encoded.shape[-1] ** 0.5
        context, weights = self.read(scores.softmax(dim=-1), encoded)
        return decoded + context, weights


# --8<-- [end:drops_returned]


# --8<-- [start:returns_all]
class AligningIndeed(Aligning):
    def read(self, weights: Weights, encoded: Tensor) -> tuple[Outputs, Weights]:
        return self.dropout(weights) @ encoded, weights


# --8<-- [end:returns_all]
