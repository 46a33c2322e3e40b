r"""A small language model with a cache: data, model, training, checkpoint, generation.

A complete file: torch and nothing else. `python cached_language_model.py` trains it on
the sources of Python's standard library and writes on from a prompt;
`python cached_language_model.py my.txt --prompt Once` does it with a text of yours.
Tokens are bytes, so that any file is a text. For tokens of your own, replace `corpus`,
`encoded`, `decoded` and `END`, and give `Config` their number.
"""

import argparse
import dataclasses
import io
import math
import os
import pathlib
import sys
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

END = 256  # stands before and after each document; 0 to 255 are bytes
PAD = 0  # any token will do: what the padding holds is not seen
Prompts = list[list[int]]


@dataclasses.dataclass(frozen=True)
class Config:
    """All sizes of a model."""

    vocab_size: int = 257
    context: int = 128  # tokens of a training window, and the most that are written
    width: int = 96
    blocks: int = 3
    heads: int = 4
    kv_heads: int = 2  # heads of keys and values: the cache is half as large
    hidden: int = 256

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on: {value!r}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} must be a multiple of kv_heads")
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be a multiple of 2 * heads")

    @property
    def head(self) -> int:
        """Width of a head, which is even: components turn in pairs."""
        return self.width // self.heads


class Cache:
    """Keys and values of all blocks, in memory that is there before: written in place.

    Each row has a length of its own; what stands beyond it is never seen.
    """

    def __init__(self, model: "LanguageModel", rows: int, capacity: int):
        config, like = model.config, model.embedding.weight
        shape = config.blocks, 2, rows, config.kv_heads, capacity, config.head
        # Zeros and not `empty`: a weight of 0 times NaN would be NaN.
        self.memory = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.lengths, self.capacity = [0] * rows, capacity

    def places(self, rows: int, time: int) -> tuple[Tensor, Tensor]:
        """Positions of `time` new tokens, and which keys each of them sees.

        The latter are (rows, 1, time, keys): the 1 is for the heads.
        """
        used = max(self.lengths) + time
        if rows != len(self.lengths) or used > self.capacity:
            room = f"{len(self.lengths)} rows and room for {self.capacity} tokens each"
            raise ValueError(f"the cache has {room}, got {rows} rows and {used} tokens")
        steps = torch.arange(used, device=self.memory.device)
        lengths = torch.tensor(self.lengths, device=self.memory.device)
        positions = lengths[:, None] + steps[:time]
        return positions, (steps <= positions[..., None])[:, None]

    def put(self, block: int, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
        """Write keys and values (rows, heads, time, head); returns all so far too."""
        used = max(self.lengths) + positions.shape[1]
        rows = torch.arange(len(k), device=k.device)[:, None]
        for memory, new in zip(self.memory[block], (k, v), strict=True):
            memory[rows, :, positions] = new.transpose(1, 2).to(memory.dtype)
        return self.memory[block, :, :, :, :used]


def wide(x: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Queries or keys turned by angles that grow with their positions (RoPE).

    In float32 at least: bfloat16 has not every whole number beyond 256, and positions
    would fall together.
    """
    a, b = wide(x).chunk(2, dim=-1)
    pairs = torch.arange(a.shape[-1], device=x.device, dtype=a.dtype)
    angles = positions[..., None] * 10000.0 ** (-2 * pairs / x.shape[-1])
    if angles.dim() == 3:
        angles = angles[:, None]  # rows at different positions: a 1 for the heads
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Causal attention, over the tokens at hand or over those and a cache."""

    def __init__(self, config: Config):
        super().__init__()
        self.parts = [config.heads, config.kv_heads, config.kv_heads]
        self.inward = nn.Linear(config.width, sum(self.parts) * config.head, bias=False)
        self.outward = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, positions: Tensor, mask=None, put=None) -> Tensor:
        """`mask` is of the keys that are seen, None for those up to each query.

        `put` writes keys and values to a cache, and returns all that are there.
        """
        heads = self.inward(x).unflatten(2, (sum(self.parts), -1)).transpose(1, 2)
        q, k, v = heads.split(self.parts, dim=1)
        q, k = rotated(q, positions), rotated(k, positions)
        if put is not None:
            k, v = put(k, v, positions)
        # torch's own causal mask is right in a square alone, so not with a cache.
        attend = F.scaled_dot_product_attention
        y = attend(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
        return self.outward(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """The network of each position, with a gate (SwiGLU)."""

    def __init__(self, config: Config):
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.inward = nn.Linear(config.width, config.hidden, bias=False)
        self.outward = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.outward(F.silu(self.gate(x)) * self.inward(x))


class Block(nn.Module):
    """Attention and network, each behind a norm and added to its input."""

    def __init__(self, config: Config):
        super().__init__()
        self.norm_attention = nn.RMSNorm(config.width, eps=1e-5)
        self.attention = Attention(config)
        self.norm_feed_forward = nn.RMSNorm(config.width, eps=1e-5)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, *where) -> Tensor:
        x = x + self.attention(self.norm_attention(x), *where)
        return x + self.feed_forward(self.norm_feed_forward(x))


class LanguageModel(nn.Module):
    """Scores of the next token; the embedding is the head too."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # Sums of 2 * blocks terms start as large as one.
                terms = 2 * config.blocks if "outward" in name else 1
                nn.init.normal_(weight, std=0.02 * terms**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores after each of the tokens (rows, time): (rows, time, vocab)."""
        x = self.embedding(tokens)
        positions = torch.arange(tokens.shape[1], device=x.device)
        for block in self.blocks:
            x = block(x, positions)
        return F.linear(self.norm(x), self.embedding.weight)

    @torch.no_grad()
    def read(
        self, tokens: Tensor, cache: Cache, lengths: list[int] | None = None
    ) -> Tensor:
        """Scores after each row's last token (rows, vocab), from the cache on.

        Of each row of `tokens` (rows, time) the first `lengths` are real, None for all.
        Without gradients: the cache is written in place.
        """
        rows, time = tokens.shape
        lengths = [time] * rows if lengths is None else lengths
        if len(lengths) != rows or min(lengths) < 1 or max(lengths) > time:
            raise ValueError(f"lengths must be {rows} from 1 to {time}: {lengths}")
        positions, mask = cache.places(rows, time)
        x = self.embedding(tokens)
        for i, block in enumerate(self.blocks):
            x = block(x, positions, mask, partial(cache.put, i))
        cache.lengths = [n + m for n, m in zip(cache.lengths, lengths, strict=True)]
        last = torch.tensor(lengths, device=x.device) - 1
        x = x[torch.arange(rows, device=x.device), last]
        return F.linear(self.norm(x), self.embedding.weight)


def generate(
    model: LanguageModel,
    prompts: Prompts,
    new: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    end: int | None = END,
    generator: Generator | None = None,
) -> Prompts:
    """What follows each prompt: up to `new` tokens, or up to `end`, which is left out.

    Temperature 0 takes the likeliest token, another one draws, from the `top_k`
    likeliest alone where that is given. Draws for a row depend on the rows beside it.
    """
    check_request(model.config, prompts, new, temperature, top_k)
    lengths, device = [len(row) for row in prompts], model.embedding.weight.device
    tokens = [row + [PAD] * (max(lengths) - len(row)) for row in prompts]
    # The last token that is written is never read.
    cache = Cache(model, len(prompts), max(lengths) + max(new - 1, 0))
    written: Prompts = [[] for _ in prompts]
    live = set(range(len(prompts))) if new else set()
    while live:
        logits = model.read(torch.tensor(tokens, device=device), cache, lengths)
        chosen = choose(logits, temperature, top_k, generator).tolist()
        for row in sorted(live):
            if chosen[row] != end:
                written[row].append(chosen[row])
            if chosen[row] == end or len(written[row]) == new:
                live.remove(row)
        tokens, lengths = [[token] for token in chosen], None
    return written


def check_request(
    config: Config, prompts: Prompts, new: int, temperature: float, top_k: int | None
) -> None:
    """Raise `ValueError` for what a model of these sizes cannot write."""
    if not 0 <= temperature < math.inf or (top_k is not None and top_k < 1):
        raise ValueError(f"temperature from 0, top_k from 1 on: {temperature}, {top_k}")
    if not prompts or new < 0:
        raise ValueError(f"a prompt, and `new` from 0 on: {len(prompts)}, {new}")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} is empty: begin with END")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise ValueError(f"prompt {row} has a token outside the vocabulary")
        if len(prompt) + new > config.context:
            sizes = f"prompt {row} has {len(prompt)} tokens; with {new} more it exceeds"
            raise ValueError(f"{sizes} the trained context={config.context}")


def choose(
    logits: Tensor, temperature: float, top_k: int | None, generator: Generator | None
) -> Tensor:
    """A token for each row of scores (rows, vocab): (rows,).

    Probabilities are in float32 at least, and drawn where the generator is: one on the
    CPU draws alike for a model on any device.
    """
    if not logits.isfinite().all():
        raise FloatingPointError("scores are not finite: weights, or an overflow?")
    if temperature == 0:
        return logits.argmax(dim=1)
    device = logits.device if generator is None else generator.device
    scores = wide(logits).to(device)
    best = scores.topk(min(top_k or scores.shape[1], scores.shape[1]), dim=1)
    # Below the largest first: a small temperature must not make infinities.
    shifted = (best.values - best.values[:, :1]) / temperature
    drawn = torch.multinomial(shifted.softmax(dim=1), 1, generator=generator)
    return best.indices.gather(1, drawn)[:, 0]


def encoded(text: str) -> list[int]:
    """A prompt: the beginning of a document."""
    return [END, *text.encode()]


def decoded(tokens: list[int]) -> str:
    """Tokens as text; bytes that are none, such as half a letter, as a mark."""
    return bytes(t for t in tokens if t != END).decode(errors="replace")


def corpus(files: list[pathlib.Path]) -> tuple[Tensor, Tensor]:
    """All files in one row, END between them, and of it the last tenth apart."""
    rows = [torch.tensor([END], dtype=torch.int16)]
    for file in files:
        # With a byte in END's place: of nothing at all `frombuffer` makes no tensor.
        data = bytearray(file.read_bytes() + b"?")
        rows.append(torch.frombuffer(data, dtype=torch.uint8).to(torch.int16))
        rows[-1][-1] = END
    row = torch.cat(rows)
    kept = len(row) - len(row) // 10
    return row[:kept], row[kept:]


def windows(row: Tensor, starts: Tensor, length: int) -> Tensor:
    """Pieces of a row, one more token than `length` each: (starts, length + 1)."""
    return row[starts[:, None] + torch.arange(length + 1)].long()


def loss_of(model: LanguageModel, pieces: Tensor) -> Tensor:
    """Nats per token: each one is to be told from those before it."""
    pieces = pieces.to(model.embedding.weight.device)
    logits = wide(model(pieces[:, :-1]))
    return F.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: LanguageModel, row: Tensor, most: int = 64) -> float:
    """The loss on up to `most` windows, evenly spread."""
    length = model.config.context
    if len(row) <= length:
        raise ValueError(f"{len(row)} tokens are too few for context={length}")
    starts = torch.arange(0, len(row) - length, length)
    starts = starts[:: math.ceil(len(starts) / most)]
    return loss_of(model, windows(row, starts, length)).item()


class Training:
    """A model with all that a run needs to go on where it stopped."""

    def __init__(self, model: LanguageModel, seed: int = 0, rate: float = 3e-3):
        self.model, self.update, self.rate = model, 0, rate
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        self.generator = Generator().manual_seed(seed)

    def run(self, row: Tensor, updates: int, batch: int = 32) -> None:
        """Go on up to `updates`, on windows drawn from a row of tokens.

        The rate rises, then falls as the root of the updates: no end has to be known.
        """
        context = self.model.config.context
        if len(row) <= context:
            raise ValueError(f"{len(row)} tokens are too few for context={context}")
        while self.update < updates:
            last = len(row) - context
            starts = torch.randint(last, (batch,), generator=self.generator)
            loss = loss_of(self.model, windows(row, starts, context))
            self.optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            if not (loss + norm).isfinite():
                what = f"loss {loss.item()}, norm of its gradient {norm.item()}"
                raise FloatingPointError(f"diverged after update {self.update}: {what}")
            for group in self.optimizer.param_groups:
                at = (self.update + 1) / 100
                group["lr"] = self.rate * min(at, at**-0.5)
            self.optimizer.step()
            self.update += 1
            if self.update % 100 == 0 or self.update == updates:
                print(f"update {self.update}: {loss.item():.3f} nats per byte")

    def save(self, path: pathlib.Path) -> None:
        """Write all to one file: whole, or the old file stays."""
        part = path.with_name(path.name + ".part")
        kept = {
            "config": dataclasses.asdict(self.model.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "update": self.update,
            "rate": self.rate,
        }
        try:
            with part.open("wb") as file:
                torch.save(kept, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: pathlib.Path, device: str = "cpu") -> "Training":
        """The run of a file: whole, or a `ValueError`.

        Tensors and plain data alone are read: a file cannot run code.
        """
        file = io.BytesIO(path.read_bytes())
        try:
            kept = torch.load(file, map_location="cpu", weights_only=True)
            model = LanguageModel(Config(**kept["config"]))
            model.load_state_dict(kept["model"])
            run = cls(model, rate=kept["rate"])
            run.optimizer.load_state_dict(kept["optimizer"])
            run.generator.set_state(kept["generator"])
            run.update = kept["update"]
        except Exception as error:
            raise ValueError(f"{path} is no checkpoint: {error}") from error
        # Parameters may be other ones after the move, and moments go where they are.
        run.optimizer = torch.optim.AdamW(model.to(device).parameters())
        run.optimizer.load_state_dict(kept["optimizer"])
        return run


def arguments() -> argparse.Namespace:
    """What the command line says."""
    kind = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    add, path = parser.add_argument, pathlib.Path
    add("files", nargs="*", type=path, help="texts; none: Python's standard library")
    add("--updates", type=int, default=300, help="train up to this many in all")
    add("--checkpoint", type=path, help="go on from this file, and write it")
    add("--prompt", action="append", help="beginning of a text; may be given again")
    add("--new", type=int, default=100, help="bytes to write at most")
    add("--temperature", type=float, default=0.7, help="0: the likeliest byte")
    add("--top-k", type=int, help="draw from that many bytes alone")
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="such as cuda")
    for field in dataclasses.fields(Config)[1:]:
        add(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    return parser.parse_args()


def main() -> None:
    """Train, or go on training, score on text that was kept apart, and write.

    What cannot be done is said before anything is trained.
    """
    args = arguments()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console may lack letters
        sys.stdout.reconfigure(errors="replace")
    config = Config(**{k: v for k, v in vars(args).items() if hasattr(Config, k)})
    texts = args.prompt or ([""] if args.files else ["import ", "def "])
    prompts = [encoded(text) for text in texts]
    options = {"temperature": args.temperature, "top_k": args.top_k}
    check_request(config, prompts, args.new, **options)
    if args.checkpoint is not None and not args.checkpoint.parent.is_dir():
        raise ValueError(f"--checkpoint {args.checkpoint}: there is no such folder")
    try:
        torch.zeros(1, device=args.device).tolist()
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"--device {args.device}: {error}".splitlines()[0]) from error
    torch.manual_seed(args.seed)
    if args.checkpoint is not None and args.checkpoint.exists():
        run = Training.load(args.checkpoint, args.device)
        if run.model.config != config:
            raise ValueError(f"{args.checkpoint} has {run.model.config}, not {config}")
    else:
        run = Training(LanguageModel(config).to(args.device), args.seed)
    library = sorted(pathlib.Path(os.__file__).parent.glob("*.py"))
    train, test = corpus(args.files or library)
    while run.update < args.updates:
        run.run(train, min(args.updates, run.update + 100))
        if args.checkpoint is not None:
            run.save(args.checkpoint)
    if len(test) > config.context:
        print(f"on text kept apart: {evaluate(run.model, test):.3f} nats per byte")
    else:
        print(f"no loss on text kept apart: {len(test)} tokens are too few")
    drawn = Generator().manual_seed(args.seed)
    written = generate(run.model, prompts, args.new, generator=drawn, **options)
    for text, tokens in zip(texts, written, strict=True):
        print(f"--- {text}{decoded(tokens)}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, ArithmeticError) as error:
        raise SystemExit(f"error: {error}") from None
