r"""A pronouncer with attention beside a joint n-gram model, on English words.

Networks learn from all words of the dictionary that are for training, and from a fixed
subset; a joint n-gram model of letters and phonemes counts the same words. All say the
same held-out words. In the control each word of the subset has the pronunciations of
another, so that letters say nothing of phonemes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import Tensor

from experiments import lab
from experiments.models import _pronouncer_rates as scoring
from experiments.models import _pronouncer_runs as runs
from seqref.tasks.pronunciation import Aligner
from seqref.tasks.pronunciation.dictionary import Lexicon

Job = tuple[str, int]
LABELS = {
    "letters": "each letter alone (joint 1-gram)",
    "graphones_subset": "joint n-gram",
    "subset": "network",
    "shuffled": "network, pronunciations exchanged (control)",
    "graphones": "joint n-gram",
    "network": "network",
}


@dataclass(frozen=True)
class Config:
    """Words, sizes, training, search, and the seeds of the networks on all words."""

    words: int | None = None
    subset: int = 15_000
    heldout_words: int | None = None
    order: int = 6
    hidden_size: int = 128
    batch_size: int = 128
    epochs: int = 4
    subset_epochs: int = 8
    learning_rate: float = 0.004
    max_norm: float = 1.0
    beam: int = 4
    looked_at: int = 1000
    shown: tuple[str, ...] = ("thoughtful", "exhausting", "whisper", "croissant")
    mistakes: int = 12
    keep: str | None = "runs/pronouncer"
    seeds: tuple[int, ...] = (0, 1, 2)


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Count, train, say the held-out words, compare."""
    words = runs.read_words(config)
    counted, trained = baselines(config, words), networks(config, words, track)
    cases = compared(words, counted, trained)
    best = trained["network", config.seeds[0]]
    cases["network"] |= {f"looks_{k}": v for k, v in best["looks"].items()}
    said = {"network": best["said"]["beam"], "graphones": counted["graphones"]}
    for name, answers in said.items():
        cases[name]["kinds"] = scoring.kinds(answers, words.heldout, words.whole)
    wrong = scoring.mistakes(said["network"], words.heldout, config.mistakes)
    sizes = {
        "whole": len(words.whole),
        "subset": len(words.subset),
        "heldout": len(words.heldout),
        "parameters": best["parameters"],
    }
    series = {"shown": best["shown"], "mistakes": wrong}
    return {"numbers": sizes, "series": series, "cases": cases}


def baselines(config: Config, words: runs.Words) -> dict[str, list[list[str]]]:
    """What joint n-gram models say of the held-out words."""
    models = {
        "letters": (words.subset, 1),
        "graphones_subset": (words.subset, config.order),
    }
    if config.words != config.subset:
        models["graphones"] = words.whole, config.order
    counted = {}
    for name, (lexicon, order) in models.items():
        make = partial(runs.counted, lexicon, words.heldout, order)
        counted[name] = lab.kept(config, __name__, name, make)["said"]
    counted.setdefault("graphones", counted["graphones_subset"])
    return counted


def networks(config: Config, words: runs.Words, track: lab.Track) -> dict[Job, Any]:
    """The answers of every network, by its name and seed."""
    # Learned only where a network is trained, not where its answers were kept.
    aligner = cache(lambda: Aligner(words.whole))

    def make(lexicon: Lexicon, epochs: int, seed: int) -> dict[str, Any]:
        pronouncer = runs.trained(config, lexicon, epochs, seed)
        return runs.answers(config, pronouncer, words.heldout, aligner())

    first = config.seeds[0]
    exchanged = runs.shuffled(words.subset, first)
    jobs: dict[Job, tuple[Lexicon, int]] = {
        ("network", seed): (words.whole, config.epochs) for seed in config.seeds
    }
    jobs["shuffled", first] = exchanged, config.subset_epochs
    if config.words != config.subset:
        jobs["subset", first] = words.subset, config.subset_epochs
    done = {
        (name, seed): lab.kept(
            config, __name__, f"{name}-{seed}", partial(make, *what, seed)
        )
        for (name, seed), what in track(list(jobs.items()), "pronouncer")
    }
    done.setdefault(("subset", first), done["network", first])
    return done


def compared(
    words: runs.Words, counted: Mapping[str, Any], trained: Mapping[Job, Any]
) -> dict[str, dict[str, Any]]:
    """Error rates of all models, with intervals."""
    references = list(words.heldout.values())
    tables = {n: [scoring.per_word(s, references)] for n, s in counted.items()}
    greedy: dict[str, list[Tensor]] = {}
    for (name, _), result in trained.items():
        for kind, rows in (("beam", tables), ("greedy", greedy)):
            one = scoring.per_word(result["said"][kind], references)
            rows.setdefault(name, []).append(one)
    cases: dict[str, dict[str, Any]] = {}
    for name, several in tables.items():
        baseline = {"network": "graphones", "subset": "graphones_subset"}.get(name)
        other = tables[baseline][0] if baseline else None
        cases[name] = scoring.rates(several, other)
    for name, several in greedy.items():
        cases[name]["greedy"] = scoring.rates(several)
    return cases


def per_cent(case: Mapping[str, Any], name: str) -> str:
    """A rate with its interval: 7.1 (6.9 to 7.3)."""
    middle, low, high = (100 * case[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def rates_table(record: Mapping[str, Any]) -> str:
    """PER and WER of all models on the same held-out words."""
    cases, numbers = record["cases"], record["numbers"]
    rows = []
    for name, label in LABELS.items():
        whole = name in ("graphones", "network")
        learned = numbers["whole" if whole else "subset"]
        seeds = len(cases[name]["per_seeds"])
        text = label + (f", mean of {seeds} seeds" if seeds > 1 else "")
        rates = [per_cent(cases[name], rate) for rate in ("per", "wer")]
        rows.append([text, f"{learned:,}", *rates])
    return lab.table(["model", "words learned from", "PER, %", "WER, %"], rows)


def draw_alignments(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """A square for each weight, as large as it is: letters across, phonemes down."""
    shown = record["series"]["shown"]
    figure.set_size_inches(figure.get_figwidth(), figure.get_figwidth() * 0.95)
    for axes, row in zip(figure.subplots(2, 2).flat, shown, strict=True):
        word, said = row["word"], [*row["said"], "EOS"]
        x, y, sizes = zip(
            *(
                (i, t, 170 * weight)
                for t, weights in enumerate(row["weights"])
                for i, weight in enumerate(weights)
            ),
            strict=True,
        )
        axes.scatter(x, y, s=sizes, marker="s", color=theme.colours[0], linewidths=0)
        axes.set_xticks(range(len(word)), list(word))
        axes.set_yticks(range(len(said)), said)
        axes.set_xlim(-0.6, len(word) - 0.4)
        axes.set_ylim(len(said) - 0.4, -0.6)
        axes.set_title(word)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)


def numbers(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Rates in per cent, for sentences."""
    made = {}
    for name, case in cases.items():
        for rate in ("per", "wer"):
            made[f"{name}_{rate}"] = 100 * case[rate]
            made[f"{name}_{rate}_least"] = 100 * min(case[f"{rate}_seeds"])
            made[f"{name}_{rate}_most"] = 100 * max(case[f"{rate}_seeds"])
            if f"{rate}_less" in case:
                # How much more the network has wrong than the counts.
                for end, other in (("", ""), ("_low", "_high"), ("_high", "_low")):
                    less = case[f"{rate}{other}_less"]
                    made[f"{name}_{rate}_more{end}"] = -100 * less
            if "greedy" in case:
                made[f"{name}_{rate}_greedy"] = 100 * case["greedy"][rate]
        for key, value in case.get("kinds", {}).items():
            made[f"{name}_{key}"] = 100 * value
        for key in ("forward", "same", "near"):
            if f"looks_{key}" in case:
                made[f"{name}_{key}"] = 100 * case[f"looks_{key}"]
    return made


experiment = lab.Experiment(
    small=Config(
        words=600,
        subset=600,
        heldout_words=1_500,
        hidden_size=32,
        batch_size=100,
        epochs=8,
        subset_epochs=8,
        learning_rate=0.02,
        looked_at=30,
        keep=None,
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C154",
            "A network with attention learns from pairs of words and pronunciations "
            "alone: its phoneme error rate on held-out words is below 0.75; it is not "
            "where each word has the pronunciations of another.",
            lab.below("per", 0.75),
            case="subset",
            control="shuffled",
        ),
        lab.Claim(
            "C154.context",
            "A joint n-gram model has a phoneme error rate below a third; one that "
            "sees each letter alone has not.",
            lab.below("per", 1 / 3),
            case="graphones_subset",
            control="letters",
        ),
    ],
    numbers=[numbers],
    tables={
        "rates": rates_table,
        "mistakes": lab.Table(
            rows="series.mistakes",
            columns={
                "word": lambda row: row["word"],
                "the network": lambda row: row["said"],
                "the dictionary": lambda row: row["dictionary"],
            },
        ),
    },
    figures={"alignments": draw_alignments},
)
