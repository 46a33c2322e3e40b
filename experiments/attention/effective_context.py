r"""How far back character models look: full attention, a window, segments, a memory.

Four kinds of small models with equal numbers of parameters learn Python source from as
many characters each. How much text at a distance counts is measured on held-out text by
a splice: everything up to one place is replaced by text from elsewhere. Behind it, the
model knows 1 true character, then 2, then 3, and what its losses are above those
without the splice is what replacing the text further back costs. That is what the true
text was worth, and the harm of the false one. Where the two losses are equal bit for
bit, nothing further back is seen at all.

All 20 trainings of the full run take some eight minutes of one core; each is kept in a
file when it ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments import lab
from experiments.attention import _context_models as models
from seqref.tasks import Vocabulary, python_source

MODULE = "experiments.attention._context_models"
LONG = 4


@dataclass(frozen=True)
class Config:
    """Sizes of models, training and evaluation; rows of text have `length`."""

    d_model: int = 64
    n_heads: int = 4
    n_layers: int = 2
    segment: int = 16
    window: int = 16
    length: int = 128
    runs: int = 8
    characters: int = 512
    updates: int = 1000
    learning_rate: float = 0.005
    train_characters: int = 4_000_000
    min_count: int = 50
    rows: int = 1024
    keep: str | None = "runs/effective_context"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


class Text(NamedTuple):
    """What is learned from, rows of held-out text, and the same behind a splice."""

    train: Tensor
    whole: Tensor
    spliced: Tensor
    vocab_size: int


def read_text(config: Config) -> Text:
    """Held-out rows at random places, always the same ones."""
    corpus = python_source()
    text = corpus.train[: config.train_characters]
    vocabulary = Vocabulary.from_text(text, config.min_count)
    heldout, random = vocabulary.encode(corpus.heldout), lab.generator(7)
    span = config.length + 1
    starts = torch.randint(len(heldout) - span, (2, config.rows), generator=random)
    rows, others = (heldout[s[:, None] + torch.arange(span)] for s in starts)
    half = config.length // 2
    spliced = torch.cat([others[:, :half], rows[:, half:]], dim=1)
    return Text(vocabulary.encode(text), rows, spliced, len(vocabulary))


def looked(
    config: Config, kind: models.Kind, model: Any, text: Text
) -> tuple[Tensor, Tensor]:
    """Bits behind the splice, and how much more they are with it, (rows, known).

    Cuts stand at four places, one of them so that a segment ends where most is known.
    """
    half, quarter = config.length // 2, config.segment // 4
    whole, more = [], []
    for place in range(4):
        phase = (place + 1) * quarter - 1
        pair = (rows[place::4] for rows in (text.whole, text.spliced))
        one, other = (models.bits(config, kind, model, r, phase) for r in pair)
        whole.append(one[:, half:])
        more.append((other - one)[:, half:])
    return torch.cat(whole), torch.cat(more)


def bins(config: Config) -> list[tuple[int, int]]:
    """Numbers of known characters, each bin twice as far as the one before."""
    ends = [1]
    while ends[-1] < config.length // 2:
        ends.append(2 * ends[-1])
    return list(pairwise(ends))


def measured(config: Config, text: Text, name: str, seed: int) -> dict[str, Any]:
    """One model after its training; that with a memory also with a longer one."""
    kind = models.KINDS[name]
    model = models.trained(config, kind, text.train, text.vocab_size, seed)
    found = {
        "parameters": lab.parameter_count(model),
        name: of(config, kind, model, text),
    }
    if kind.memory:
        for block in model.layer.layers:
            block.attention.memory = LONG * config.segment
        found["long"] = of(config, kind, model, text)
    return found


def of(config: Config, kind: models.Kind, model: Any, text: Text) -> dict[str, Any]:
    """Bits a character, the cost of other text further back, how far a model sees."""
    whole, more = looked(config, kind, model, text)
    # In column c the nearest character that is replaced is number c + 2 from the end.
    changed = (more != 0).any(dim=0).nonzero()
    return {
        "bits": whole.mean().item(),
        "sees": int(changed.max()) + 2,
        "gains": [
            more[:, low - 1 : high - 1].mean().item() for low, high in bins(config)
        ],
    }


Runs = list[dict[str, Any]]


def summary(config: Config, found: Runs, plain: Runs) -> dict[str, Any]:
    """One kind over the seeds, beside segments without a memory."""
    by_bin = zip(*(one["gains"] for one in found), strict=True)
    gains = [lab.mean_interval(values) for values in by_bin]
    far = [low for low, _ in bins(config)].index(config.segment)
    pairs = zip(plain, found, strict=True)
    return {
        "bits": lab.mean_interval([one["bits"] for one in found]),
        "less": lab.mean_interval([one["bits"] - own["bits"] for one, own in pairs]),
        "sees": max(one["sees"] for one in found),
        "gains": gains,
        "far": gains[far],
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train all, and compare them seed by seed."""
    text, alone = read_text(config), replace(config, seeds=())
    done: dict[str, list[Any]] = {name: [] for name in models.KINDS}
    grid = [(seed, name) for seed in config.seeds for name in models.KINDS]
    for seed, name in track(grid, "effective_context"):
        make = partial(measured, config, text, name, seed)
        done[name].append(lab.kept(alone, MODULE, f"{name}-{seed}", make))
    rows = {name: [one[name] for one in done[name]] for name in done}
    rows["long"] = [one["long"] for one in done["segment"]]
    sizes = {name: found[0]["parameters"] for name, found in done.items()}
    sizes["long"] = sizes["segment"]
    limits = {
        "window_limit": config.n_layers * (config.window - 1) + 1,
        "segment_limit": (config.n_layers + 1) * config.segment,
        "tried": config.length // 2 + 1,
    }
    cases = {
        name: {
            "parameters": sizes[name],
            **summary(config, found, rows["vanilla"]),
            **limits,
        }
        for name, found in rows.items()
    }
    both = zip(rows["long"], rows["segment"], strict=True)
    longer = lab.mean_interval([one["bits"] - own["bits"] for one, own in both])
    numbers = {
        **limits,
        **{f"longer_{key}": value for key, value in longer.items()},
        "long_memory": LONG * config.segment,
    }
    return {
        "numbers": numbers,
        "series": {"known": [low for low, _ in bins(config)]},
        "cases": cases,
    }


LABELS = {
    **{name: kind.label for name, kind in models.KINDS.items()},
    "long": "segments, memory of four segments after training",
}


def sees_cell(case: Mapping[str, Any]) -> str:
    """How many characters count at most; more than were tried, where all of them do."""
    return f"{case['sees']}" + ("" if case["sees"] < case["tried"] else " or more")


def four_places(value: float) -> str:
    """Four decimals; what they round to zero has no sign."""
    return f"{round(value, 4) + 0.0:.4f}".replace("-", "\N{MINUS SIGN}")


def gain_cell(place: int) -> lab.Cell:
    """What replacing text further back costs in one bin, with its interval."""

    def write(case: Mapping[str, Any]) -> str:
        found = case["gains"][place]
        if found["low"] == found["high"] == 0:
            return "0"
        return lab.with_span(lambda row: row, four_places)(found)

    return write


def gains_table(record: Mapping[str, Any]) -> lab.Table:
    """A column for each number of known characters from a quarter segment on."""
    known = record["series"]["known"]
    places = [
        i for i, c in enumerate(known) if c >= record["run"]["config"]["segment"] // 4
    ]
    columns = {f"{known[i]} known": gain_cell(i) for i in places}
    return lab.Table(columns=columns, labels=LABELS, heading="attention")


def draw_gains(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """What replacing text further back costs by the number of known characters."""
    axes, known = figure.subplots(), record["series"]["known"]
    axes.set_xscale("log", base=2)
    axes.set_yscale("symlog", linthresh=0.001)
    curves = {
        kind.label: [
            {**point, "median": point["mean"]}
            for point in record["cases"][name]["gains"]
        ]
        for name, kind in models.KINDS.items()
    }
    lab.lines(axes, known, curves, theme)
    axes.set_xticks(known, [str(c) for c in known])
    axes.minorticks_off()
    axes.set_xlabel("characters known before the one that is predicted, at least")
    axes.set_title("What replacing the text further back costs, in bits a character")
    axes.legend(axes.lines, list(curves), frameon=False, loc="upper right")


experiment = lab.Experiment(
    small=Config(
        d_model=16,
        n_heads=2,
        segment=4,
        window=4,
        length=32,
        runs=4,
        characters=256,
        updates=60,
        learning_rate=0.02,
        train_characters=100_000,
        rows=256,
        keep=None,
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C174",
            "N layers with a window w see the last N (w - 1) + 1 characters, and what "
            "is further back changes no loss; full attention sees further.",
            lab.exactly("sees", lambda case: case["sees"] == case["window_limit"]),
            case="window",
            control="full",
        ),
        lab.Claim(
            "C183",
            "N layers with segments of L characters and as long a memory see the last "
            "(N + 1) L characters at the end of a segment, and what is further back "
            "changes no loss; without the memory they see less.",
            lab.exactly("sees", lambda case: case["sees"] == case["segment_limit"]),
            case="segment",
            control="vanilla",
        ),
        lab.Claim(
            "C175",
            "To a model of segments with a memory, text further back than a segment is "
            "long is worth more than 0.001 bits a character, where from one to two "
            "segments are known; without the memory nothing.",
            lab.above("far.low", 0.001),
            case="segment",
            control="vanilla",
        ),
    ],
    numbers=[
        lab.each("bits.mean", "bits"),
        lab.each("less.mean", "less"),
        lab.each("sees", "sees"),
        lab.each("far.mean", "far"),
        lab.each("far.low", "far_low"),
        lab.each("far.high", "far_high"),
        lab.each("less.low", "less_low"),
        lab.each("less.high", "less_high"),
        {"parameters": "segment.parameters", "parameters_full": "full.parameters"},
    ],
    tables={
        "kinds": lab.Table(
            columns={
                "parameters": "parameters",
                "bits a character": lab.with_span("bits", "{:.3f}".format),
                "sees the last": sees_cell,
            },
            labels=LABELS,
            heading="attention",
        ),
        "gains": gains_table,
    },
    figures={"gains": draw_gains},
)
