r"""What `seqref train-pronouncer` says in the end: error rates, and examples."""

from dataclasses import dataclass

from seqref.tasks import ErrorRates, Graphones, error_rates
from seqref.tasks.pronunciation import Parts
from seqref.tasks.pronunciation.dictionary import Phonemes
from seqref.tasks.pronunciation.split import digest_number
from seqref.training._bar import Bar
from seqref.training._output import say
from seqref.training._pronouncer import Pronouncer

FORMAT = "pronouncer-report/1"
ORDER = 6
# Words that are said between two moves of the bar.
PIECE = 256
EXAMPLES = 8


@dataclass(frozen=True)
class Report:
    r"""Error rates of both models on the same words, and what was said of some."""

    measured: int
    heldout: int
    learned: int
    graphones: ErrorRates
    network: ErrorRates
    examples: list[tuple[str, str, bool]]


def report(pronouncer: Pronouncer, parts: Parts, limit: int) -> Report:
    r"""PER and WER on held-out words, beside a joint n-gram of the same training words.

    At most `limit` words are measured: those whose digests come first.
    """
    words = sorted(parts.heldout, key=lambda word: digest_number(word, 1))[:limit]
    references = [parts.heldout[word] for word in words]
    with Bar(2 * len(words), 0, "word") as bar:
        said: list[Phonemes] = []
        for first in range(0, len(words), PIECE):
            piece = words[first : first + PIECE]
            said += [best[0].phonemes for best in pronouncer.pronounce(piece)]
            bar.update(len(piece), lambda: "network")
        model, counted = Graphones(parts.train, ORDER), []
        for word in words:
            # A small set of words to learn from may lack a letter.
            known = set(word) <= model.aligner.letters.keys()
            counted.append(model.pronounce(word)[0][0] if known else ())
            bar.update(1, lambda: "n-gram")
    examples = [
        (word, " ".join(one), one in several)
        for word, one, several in zip(words, said, references, strict=True)
    ]
    return Report(
        len(words),
        len(parts.heldout),
        len(parts.train),
        error_rates(counted, references),
        error_rates(said, references),
        examples[:EXAMPLES],
    )


def show(result: Report, steps: int) -> None:
    r"""Print a report on a model that was trained for so many steps."""
    part = ""
    if result.measured < result.heldout:
        part = f" of {result.heldout:,} (--report-words)"
    say(
        f"wrong on {result.measured:,} held-out words{part}, learned from "
        f"{result.learned:,}:"
    )
    say("                     phonemes    words")
    for name, rates in (
        ("joint 6-gram", result.graphones),
        ("network", result.network),
    ):
        per, wer = (f"{100 * rate:.1f} %" for rate in rates)
        after = f"   after {steps:,} steps" if name == "network" else ""
        say(f"  {name:<18} {per:>8} {wer:>8}{after}")
    for word, said, right in result.examples:
        say(f"  {word}: {said}{'' if right else '   (not in the dictionary)'}")
