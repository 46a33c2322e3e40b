r"""The specimens in a row: what is broken, its fix, and the test that catches it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from experiments.museum import _checks as checks
from experiments.museum import _judges as judges
from experiments.museum._checks import EACH_STEP, HIDDEN, INPUT, TIME, VOCAB, Trials
from experiments.museum._files import (
    attention,
    decoding,
    formulas,
    future,
    numbers,
    padding,
    rows,
    state,
)


@dataclass(frozen=True)
class Kind:
    """How models of one kind are built from what defines them, and their checks."""

    build: Callable[[Any], Any]
    trials: Trials


@dataclass(frozen=True)
class Specimen:
    r"""One bug; its name is the anchor of its section.

    Args:
        label: A few words.
        pair: What defines the broken and the mended model: classes, or functions.
        kind: How models are built from these, and the checks that apply.
        caught_by: The check that catches it, or `own` for a test of its own.
    """

    label: str
    pair: tuple[Any, Any]
    kind: Kind
    caught_by: str

    @property
    def page(self) -> str:
        """Stem of its page, and of the file beside it."""
        return self.pair[0].__module__.rpartition(".")[2]

    def messages(self) -> list[dict[str, str]]:
        """What each check says of the broken and of the mended model."""
        return [
            checks.messages(partial(self.kind.build, model), self.kind.trials)
            for model in self.pair
        ]


def of_ids(model: Any) -> Any:
    """A model that reads ids."""
    return model(VOCAB, HIDDEN)


def of_vectors(model: Any) -> Any:
    """A model that reads vectors."""
    return model(INPUT, HIDDEN)


IDS, VECTORS = checks.TOKENS, checks.VECTORS
READS_IDS = Kind(of_ids, checks.reader(IDS))
READS_VECTORS = Kind(of_vectors, checks.reader(VECTORS))
STEPS_OF_IDS = Kind(of_ids, checks.trials(*EACH_STEP, on=IDS))
STEPS_OF_VECTORS = Kind(of_vectors, checks.trials(*EACH_STEP, on=VECTORS))
POOLS = Kind(of_vectors, checks.trials("row_order", "nonlinearity", on=VECTORS))
LANGUAGE = Kind(of_ids, checks.language())
CARRIES = Kind(of_vectors, checks.carried(checks.STREAM))
TRANSLATES = Kind(lambda model: model(INPUT, HIDDEN, TIME), checks.translator())
REWRITES = Kind(
    lambda model: model(judges.judge(nn.GRU)),
    checks.carried(VECTORS) | {"own": partial(judges.like, nn.GRU)},
)
IMPORTS = Kind(
    judges.imported, checks.carried(VECTORS) | {"own": partial(judges.like, nn.LSTM)}
)
REMEMBERS = Kind(
    lambda write: write(judges.judge(nn.LSTM), 4.0),
    checks.carried(VECTORS) | {"own": judges.keeps_its_cell_state},
)
TURNS = Kind(
    lambda model: model(*judges.turning_weights()), {"own": judges.turns_neighbours}
)
SCORES = Kind(lambda score: score, {"own": judges.never_longer})
ASKS = Kind(of_vectors, checks.translator())
HANDS_OVER = Kind(of_vectors, checks.hand_over() | {"own": judges.hands_over_all})
SPELLS = Kind(of_ids, checks.speller())
WRITES = Kind(of_ids, {"own": judges.writes_the_same_twice})
SEARCHES = Kind(lambda search: search, {"own": judges.searches_all})
ATTENDS = Kind(lambda attend: attend, checks.attending())
ANSWERS = Kind(of_vectors, checks.asking())
REMEMBERS_APART = Kind(of_vectors, checks.remembers())
STACKS = Kind(of_ids, checks.language() | {"own": judges.normed_before_the_head})
ALIGNS = Kind(of_vectors, checks.translator() | {"own": judges.returns_distributions})
SCANS = Kind(lambda scan: scan, {"own": judges.equals_the_loop})

CABINET = {
    "after-padding": Specimen(
        label="an encoder's state after the padding",
        pair=(padding.Encoder, padding.PackedEncoder),
        kind=READS_IDS,
        caught_by="padding_invariance",
    ),
    "last-column": Specimen(
        label="the last column of padded outputs",
        pair=(padding.LastColumn, padding.LastStep),
        kind=READS_IDS,
        caught_by="padding_invariance",
    ),
    "loss-of-padding": Specimen(
        label="a loss that counts the padding",
        pair=(padding.LossModel, padding.LossOfReal),
        kind=READS_IDS,
        caught_by="padding_invariance",
    ),
    "sorted-rows": Specimen(
        label="rows left in the order of their lengths",
        pair=(rows.PackingReader, rows.PutBackReader),
        kind=READS_VECTORS,
        caught_by="row_order",
    ),
    "view-for-transpose": Specimen(
        label="`view` in the place of `transpose`",
        pair=(rows.Viewed, rows.Transposed),
        kind=STEPS_OF_VECTORS,
        caught_by="row_order",
    ),
    "softmax-axis": Specimen(
        label="a softmax over the batch",
        pair=(rows.AttentionPool, rows.TimePool),
        kind=POOLS,
        caught_by="row_order",
    ),
    "not-shifted": Specimen(
        label="labels that are the inputs",
        pair=(future.LanguageModel, future.Shifted),
        kind=LANGUAGE,
        caught_by="target_shift",
    ),
    "two-ways": Specimen(
        label="a bidirectional language model",
        pair=(future.TwoWays, future.Shifted),
        kind=LANGUAGE,
        caught_by="causality",
    ),
    "same-padding": Specimen(
        label="a convolution padded on both sides",
        pair=(future.Convolution, future.CausalConvolution),
        kind=LANGUAGE,
        caught_by="causality",
    ),
    "reset-each-step": Specimen(
        label="a state that starts anew at each step",
        pair=(state.LoopedGRU, state.Mindful),
        kind=CARRIES,
        caught_by="state_carry",
    ),
    "reset-all-rows": Specimen(
        label="one row's end resets all rows",
        pair=(state.ResetAll, state.ResetRows),
        kind=CARRIES,
        caught_by="state_carry",
    ),
    "kept-state": Specimen(
        label="a state kept on the module",
        pair=(state.Kept, state.HandedOn),
        kind=STEPS_OF_VECTORS,
        caught_by="row_order",
    ),
    "random-start": Specimen(
        label="an initial state drawn at random",
        pair=(state.RandomStart, state.HandedOn),
        kind=STEPS_OF_VECTORS,
        caught_by="row_order",
    ),
    "dropout-always-on": Specimen(
        label="dropout that ignores the mode",
        pair=(state.AlwaysDropping, state.DroppingInTraining),
        kind=STEPS_OF_VECTORS,
        caught_by="row_order",
    ),
    "restarted-positions": Specimen(
        label="positions that restart in a cached step",
        pair=(state.Turning, state.GoingOn),
        kind=CARRIES,
        caught_by="state_carry",
    ),
    "no-nonlinearity": Specimen(
        label="a recurrence without its tanh",
        pair=(formulas.CharacterModel, formulas.Nonlinear),
        kind=STEPS_OF_IDS,
        caught_by="nonlinearity",
    ),
    "blind-attention": Specimen(
        label="attention weights without the source",
        pair=(formulas.AttentionDecoder, formulas.SeeingAttention),
        kind=TRANSLATES,
        caught_by="source_dependence",
    ),
    "reset-before-product": Specimen(
        label="another GRU than the one it stands for",
        pair=(formulas.ResetFirst, formulas.ResetAfter),
        kind=REWRITES,
        caught_by="own",
    ),
    "order-of-gates": Specimen(
        label="weights in another order of gates",
        pair=(formulas.import_weights, formulas.import_reordered),
        kind=IMPORTS,
        caught_by="own",
    ),
    "wrong-block": Specimen(
        label="a forget bias in the block of another gate",
        pair=(formulas.remember, formulas.remember_right),
        kind=REMEMBERS,
        caught_by="own",
    ),
    "other-layout": Specimen(
        label="rotary weights of the other layout",
        pair=(formulas.RotaryScores, formulas.PermutedScores),
        kind=TURNS,
        caught_by="own",
    ),
    "length-penalty": Specimen(
        label="a length penalty that rewards length",
        pair=(numbers.penalised, numbers.penalised_indeed),
        kind=SCORES,
        caught_by="own",
    ),
    "closed-form-scan": Specimen(
        label="a scan that divides by what has vanished",
        pair=(numbers.closed_form, numbers.by_pairs),
        kind=SCANS,
        caught_by="own",
    ),
    "masked-late": Specimen(
        label="scores masked after the softmax",
        pair=(decoding.Pooled, decoding.PooledReal),
        kind=READS_VECTORS,
        caught_by="padding_invariance",
    ),
    "swapped-keys": Specimen(
        label="keys and queries that changed places",
        pair=(decoding.Translator, decoding.AskingTranslator),
        kind=ASKS,
        caught_by="causality",
    ),
    "cell-left-behind": Specimen(
        label="`h` handed over, `c` not",
        pair=(decoding.HandOver, decoding.WholeHandOver),
        kind=HANDS_OVER,
        caught_by="own",
    ),
    "copied-target": Specimen(
        label="a decoder that is fed its labels",
        pair=(decoding.Speller, decoding.ShiftingSpeller),
        kind=SPELLS,
        caught_by="target_shift",
    ),
    "dropout-while-decoding": Specimen(
        label="dropout left on while decoding",
        pair=(decoding.Writer, decoding.CalmWriter),
        kind=WRITES,
        caught_by="own",
    ),
    "endless-beam": Specimen(
        label="a beam that never stops",
        pair=(decoding.endless_search, decoding.sound_search),
        kind=SEARCHES,
        caught_by="own",
    ),
    "dropped-beams": Specimen(
        label="a beam that drops what has ended",
        pair=(decoding.dropping_search, decoding.sound_search),
        kind=SEARCHES,
        caught_by="own",
    ),
    "unequal-sums": Specimen(
        label="a beam that compares sums of unequal length",
        pair=(decoding.summing_search, decoding.sound_search),
        kind=SEARCHES,
        caught_by="own",
    ),
    "wrong-corner": Specimen(
        label="a causal mask from the wrong corner",
        pair=(attention.Cached, attention.LowerRight),
        kind=CARRIES,
        caught_by="state_carry",
    ),
    "other-meaning": Specimen(
        label="a mask whose True means the opposite",
        pair=(attention.Ported, attention.PortedIndeed),
        kind=STEPS_OF_VECTORS,
        caught_by="causality",
    ),
    "softmax-over-queries": Specimen(
        label="a softmax over the queries",
        pair=(attention.attend, attention.attend_over_keys),
        kind=ATTENDS,
        caught_by="attention",
    ),
    "no-scale": Specimen(
        label="scores without their scale",
        pair=(attention.attend_unscaled, attention.attend_scaled),
        kind=ATTENDS,
        caught_by="attention",
    ),
    "finite-mask": Specimen(
        label="a large number for minus infinity",
        pair=(attention.Asking, attention.AskingIndeed),
        kind=ANSWERS,
        caught_by="padding_invariance",
    ),
    "pads-attended": Specimen(
        label="attention that sees the padding",
        pair=(attention.Pooled, attention.PooledReal),
        kind=READS_VECTORS,
        caught_by="padding_invariance",
    ),
    "shared-cache": Specimen(
        label="a cache that beams share",
        pair=(attention.Remembering, attention.RememberingApart),
        kind=REMEMBERS_APART,
        caught_by="state_fork",
    ),
    "no-last-norm": Specimen(
        label="pre-norm blocks without the last norm",
        pair=(attention.PreNorm, attention.Normed),
        kind=STACKS,
        caught_by="own",
    ),
    "dropped-weights": Specimen(
        label="returned weights after their dropout",
        pair=(attention.Aligning, attention.AligningIndeed),
        kind=ALIGNS,
        caught_by="own",
    ),
}
