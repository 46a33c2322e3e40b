r"""Error rates of pronouncers with intervals, and their kinds of mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref.tasks.pronunciation import nearest
from seqref.tasks.pronunciation.alphabet import VOWELS
from seqref.tasks.pronunciation.dictionary import Lexicon, Phonemes
from seqref.tasks.pronunciation.split import digest_number

RESAMPLES = 1000
ENDINGS = ("s", "es", "d", "ed", "ing", "er", "ers", "ly", "y", "e")


def per_word(said: Sequence[Sequence[str]], references: Sequence[Any]) -> Tensor:
    """Edits, phonemes of the reference, and whether the word is wrong: (words, 3)."""
    rows = [nearest(tuple(s), r) for s, r in zip(said, references, strict=True)]
    counted = [[row.edits, row.phonemes, row.edits > 0] for row in rows]
    return torch.tensor(counted, dtype=torch.float64)


def rates(tables: Sequence[Tensor], other: Tensor | None = None) -> dict[str, Any]:
    r"""PER and WER of networks that differ in their seed, over the same words.

    The numbers of a word are means over the seeds. The intervals are 95 % of the
    percentile bootstrap over words; `low` and `high` of a seed are beside them. With
    `other`, the difference of another's rates, word by word, too.
    """
    each = torch.stack([_rates_of(table) for table in tables])
    joined = torch.stack(list(tables)).mean(dim=0)
    result: dict[str, Any] = dict(_with_interval(joined, None))
    for place, name in enumerate(("per", "wer")):
        result[f"{name}_seeds"] = each[:, place].tolist()
    if other is not None:
        differences = _with_interval(joined, other)
        result |= {f"{key}_less": value for key, value in differences.items()}
    return result


def _rates_of(table: Tensor) -> Tensor:
    edits, phonemes, wrong = table.sum(dim=-2).unbind(-1)
    return torch.stack([edits / phonemes, wrong / table.shape[-2]], dim=-1)


def _with_interval(table: Tensor, other: Tensor | None) -> dict[str, float]:
    random, drawn = lab.generator(0), []
    for _ in range(RESAMPLES):
        rows = torch.randint(len(table), (len(table),), generator=random)
        one = _rates_of(table[rows])
        drawn.append(one if other is None else _rates_of(other[rows]) - one)
    values = torch.stack(drawn).sort(dim=0).values
    middle = _rates_of(table)
    if other is not None:
        middle = _rates_of(other) - middle
    ends = values[RESAMPLES * 25 // 1000], values[RESAMPLES * 975 // 1000 - 1]
    named = {"": middle, "_low": ends[0], "_high": ends[1]}
    return {
        f"{name}{end}": part[place].item()
        for place, name in enumerate(("per", "wer"))
        for end, part in named.items()
    }


def without_vowels(phonemes: Sequence[str]) -> Phonemes:
    """The same with one symbol for every vowel."""
    return tuple("V" if name in VOWELS else name for name in phonemes)


def kinds(
    said: Sequence[Sequence[str]], heldout: Lexicon, learned: Lexicon
) -> dict[str, float]:
    """WER where vowels count as one, and of words with and without a relative."""
    references = list(heldout.values())
    bare = [[without_vowels(one) for one in several] for several in references]
    merged = per_word([without_vowels(s) for s in said], bare)
    wrong = per_word(said, references)[:, 2]
    relative = torch.tensor([has_relative(word, learned) for word in heldout])
    shares = {"wer_merged": merged[:, 2].mean().item()}
    for name, mask in (("related", relative), ("unrelated", ~relative)):
        shares[f"wer_{name}"] = wrong[mask].mean().item() if mask.any() else 0.0
    return shares | {"related": relative.double().mean().item()}


def has_relative(word: str, learned: Mapping[str, Any]) -> bool:
    """Whether a word with another common ending, or none, was learned from."""
    if any(word + ending in learned for ending in ENDINGS):
        return True
    stems = [word[: -len(ending)] for ending in ENDINGS if word.endswith(ending)]
    return any(len(stem) > 1 and stem in learned for stem in stems)


def mistakes(
    said: Sequence[Sequence[str]], heldout: Lexicon, count: int
) -> list[dict[str, str]]:
    """Wrong words in the order of their digests, which no one chose."""
    rows = [
        {
            "word": word,
            "said": " ".join(one),
            "dictionary": " / ".join(" ".join(reference) for reference in references),
        }
        for one, (word, references) in zip(said, heldout.items(), strict=True)
        if tuple(one) not in references
    ]
    return sorted(rows, key=lambda row: digest_number(row["word"], 1))[:count]
