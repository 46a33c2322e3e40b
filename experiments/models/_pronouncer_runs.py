r"""One trained pronouncer: what it says of the held-out words, and where it looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from experiments import lab
from seqref.tasks import (
    Alphabet,
    Graphones,
    PronunciationBatches,
    read_dictionary,
    split_lexicon,
)
from seqref.tasks.pronunciation import Aligner
from seqref.tasks.pronunciation.dictionary import Lexicon, Phonemes
from seqref.tasks.pronunciation.split import digest_number
from seqref.training import Pronouncer, build_pronouncer, fit, pronunciation_loss


@dataclass(frozen=True)
class Words:
    """The words to learn from, all and a fixed subset, and those held out."""

    whole: Lexicon
    subset: Lexicon
    heldout: Lexicon


def read_words(config: Any) -> Words:
    """The parts of the dictionary that a config asks for."""
    lexicon = read_dictionary()
    return Words(
        split_lexicon(lexicon, config.words).train,
        split_lexicon(lexicon, config.subset).train,
        split_lexicon(lexicon, config.heldout_words).heldout,
    )


def shuffled(lexicon: Lexicon, seed: int) -> Lexicon:
    """The same words and pronunciations, each word with those of another."""
    order = torch.randperm(len(lexicon), generator=lab.generator(seed)).tolist()
    said = list(lexicon.values())
    return {word: said[place] for word, place in zip(lexicon, order, strict=True)}


def trained(config: Any, lexicon: Lexicon, epochs: int, seed: int) -> Pronouncer:
    """Adam, its rate falling along a cosine to a tenth, batches of similar length."""
    pronouncer = build_pronouncer(config.hidden_size, seed=seed)
    batches = PronunciationBatches(
        lexicon,
        config.batch_size,
        alphabet=Alphabet(),
        generator=lab.generator(seed + 1000),
    )
    rate, steps = config.learning_rate, epochs * len(batches)
    optimizer = torch.optim.Adam(pronouncer.model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=steps, eta_min=rate / 10
    )
    fit(
        *(pronouncer.model, batches, optimizer, steps, pronunciation_loss),
        max_norm=config.max_norm,
        scheduler=scheduler,
    )
    return pronouncer


def answers(
    config: Any, pronouncer: Pronouncer, heldout: Lexicon, aligner: Aligner
) -> dict[str, Any]:
    """What is said of the held-out words, greedily and by beam, and the weights."""
    words = list(heldout)
    said = {
        name: [[*best[0].phonemes] for best in pronouncer.pronounce(words, width=width)]
        for name, width in (("greedy", 1), ("beam", config.beam))
    }
    shown = []
    for word in config.shown:
        best = pronouncer.pronounce([word], width=config.beam)[0][0].phonemes
        weights = pronouncer.alignment(word, best).tolist()
        rounded = [[round(weight, 4) for weight in row] for row in weights]
        shown.append({"word": word, "said": [*best], "weights": rounded})
    return {
        "said": said,
        "shown": shown,
        "looks": looks(pronouncer, heldout, aligner, config.looked_at),
        "parameters": lab.parameter_count(pronouncer.model),
    }


def looks(
    pronouncer: Pronouncer, heldout: Lexicon, aligner: Aligner, limit: int
) -> dict[str, float]:
    """Where the largest weight is, over phonemes of some held-out words.

    The words are written with their first pronunciation in the dictionary. `forward`
    is the share of phonemes whose letter stands at or after that of the phoneme before;
    `same` and `near` are the shares whose letter is that of the aligner, or beside it.
    """
    forward = steps = same = near = phonemes = 0
    for word in sorted(heldout, key=lambda word: digest_number(word, 1))[:limit]:
        said = heldout[word][0]
        expected = letters_of(aligner, word, said)
        if expected is None:
            continue
        weights = pronouncer.alignment(word, said)
        looked = weights[:-1].argmax(dim=1).tolist()
        ahead = [b >= a for a, b in pairwise(looked)]
        forward, steps = forward + sum(ahead), steps + len(ahead)
        distances = [abs(a - b) for a, b in zip(looked, expected, strict=True)]
        phonemes += len(distances)
        same += sum(distance == 0 for distance in distances)
        near += sum(distance <= 1 for distance in distances)
    shares = {"forward": forward / max(steps, 1)}
    return shares | {"same": same / phonemes, "near": near / phonemes}


def letters_of(aligner: Aligner, word: str, phonemes: Phonemes) -> Sequence[int] | None:
    """The place of each phoneme's letter in the likeliest cut."""
    cut = aligner.align(word, phonemes)
    if cut is None:
        return None
    return [place for place, (_, piece) in enumerate(cut) for _ in piece]


def counted(lexicon: Lexicon, heldout: Lexicon, order: int) -> dict[str, Any]:
    """What a joint n-gram model says of the held-out words."""
    model = Graphones(lexicon, order)
    return {"said": [[*model.pronounce(word)[0][0]] for word in heldout]}
