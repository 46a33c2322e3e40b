r"""What every experiment is made of; the names that most of them need."""

from experiments.lab.claim import (
    Check,
    Claim,
    Outcome,
    above,
    all_of,
    at_least,
    at_most,
    below,
    between,
    exactly,
    power,
    share,
)
from experiments.lab.drawing import DASHES, Theme, label_ends, label_line, power_ticks
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.figures import Lines, band, line, lines
from experiments.lab.kept import kept
from experiments.lab.networks import parameter_count, zero_biases_
from experiments.lab.numbers import all_but, each, everything
from experiments.lab.quantity import value_of
from experiments.lab.seeding import generator, normal, seeded
from experiments.lab.statistics import (
    by_place,
    log10_summaries,
    log10_summary,
    mean_interval,
    median,
    share_interval,
    spread,
)
from experiments.lab.tables import (
    Cell,
    Pivot,
    Table,
    cell,
    fixed,
    number,
    power_of_ten,
    quartiles_text,
    span,
    spread_columns,
    table,
    with_span,
)
from experiments.lab.training import descend
from experiments.lab.wanted import only, wanted

__all__ = [
    "DASHES",
    "Cell",
    "Check",
    "Claim",
    "Experiment",
    "Lines",
    "Outcome",
    "Pivot",
    "Table",
    "Theme",
    "Track",
    "above",
    "all_but",
    "all_of",
    "at_least",
    "at_most",
    "band",
    "below",
    "between",
    "by_place",
    "cell",
    "descend",
    "each",
    "everything",
    "exactly",
    "fixed",
    "generator",
    "kept",
    "label_ends",
    "label_line",
    "line",
    "lines",
    "log10_summaries",
    "log10_summary",
    "mean_interval",
    "median",
    "normal",
    "number",
    "only",
    "parameter_count",
    "power",
    "power_of_ten",
    "power_ticks",
    "quartiles_text",
    "seeded",
    "share",
    "share_interval",
    "span",
    "spread",
    "spread_columns",
    "table",
    "untracked",
    "value_of",
    "wanted",
    "with_span",
    "zero_biases_",
]
