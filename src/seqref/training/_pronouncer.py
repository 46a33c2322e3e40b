r"""A model that spells out how a word is said, and the file that it is kept in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from seqref.attention import AdditiveAttention
from seqref.decoding import beam_search
from seqref.errors import check_size
from seqref.models import BahdanauDecoder, EncoderDecoder, TanhBridge
from seqref.recurrent import GRU, Bidirectional, ChoGRU
from seqref.tasks import BOS, EOS, Alphabet, Pairs
from seqref.tasks.pronunciation import as_pairs
from seqref.training.checkpoint import load_checkpoint, save_checkpoint

FORMAT = "pronouncer/1"
EMBEDDING = 64
# Tokens of an answer at most, whatever words are asked for beside it; the longest one
# of the dictionary has 28 phonemes.
LIMIT = 64
# Rows that are decoded side by side.
ROWS = 256


class Pronounced(NamedTuple):
    r"""One answer: its phonemes, its log-probability in nats, and whether it ended."""

    phonemes: tuple[str, ...]
    log_probability: float
    finished: bool


@dataclass(frozen=True)
class Pronouncer:
    r"""An encoder-decoder over letters and phonemes, with what its tokens mean.

    A GRU in each direction reads the letters; a GRU of Cho's kind writes the phonemes
    with Bahdanau's attention. `build_pronouncer` makes one, `load_pronouncer` reads it.

    Args:
        model: From letters to phonemes.
        alphabet: Its tokens.
        hidden_size: Width of each layer.

    Source:
        Bahdanau, Cho & Bengio (2015), appendix A.
        Differs: another encoder cell (GRU as in torch.nn), sizes for words.
    """

    model: EncoderDecoder
    alphabet: Alphabet
    hidden_size: int

    def pronounce(
        self, words: Sequence[str], n_best: int = 1, width: int = 4
    ) -> list[list[Pronounced]]:
        r"""The n best answers for each word by beam search, best first.

        Args:
            words: Of the letters a to z.
            n_best: Answers for each word, at most `width`.
            width: Of the beam; 1 is greedy.

        Shapes:
            - returns: a list of `n_best` answers for each word, in the order of `words`

        Raises:
            ValueError: there is no word, one is empty or has another letter; a number
                is out of range.
            TypeError: `words` is one string, or a number no int.
        """
        where = "Pronouncer.pronounce"
        check_size(where, "n_best", n_best)
        check_size(where, "width", width, minimum=n_best)
        self.alphabet.encode(words)
        order = sorted(range(len(words)), key=lambda row: len(words[row]))
        answers: list[list[Pronounced]] = [[] for _ in words]
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            said = self._decoded([words[row] for row in rows], n_best, width)
            for row, answer in zip(rows, said, strict=True):
                answers[row] = answer
        return answers

    @torch.no_grad()
    def _decoded(
        self, words: list[str], n_best: int, width: int
    ) -> list[list[Pronounced]]:
        source, lengths = self.alphabet.encode(words)
        start = torch.full((len(words),), BOS, device="cpu")
        with _evaluating(self.model):
            bound = self.model.attend(source, lengths)
            best = beam_search(
                bound, start, width=width, n_best=n_best, max_length=LIMIT, end=EOS
            )
        return [
            [
                # A model may say BOS, which is no phoneme; a trained one hardly does.
                Pronounced(
                    self.alphabet.decode(tokens[tokens != BOS]),
                    float(log_p),
                    bool(ended),
                )
                for tokens, ended, log_p in zip(*row, strict=True)
            ]
            for row in zip(
                best.tokens, best.finished, best.log_probabilities, strict=True
            )
        ]

    @torch.no_grad()
    def alignment(
        self, word: str, phonemes: Sequence[str]
    ) -> Float[Tensor, "time source"]:
        r"""The weight of each letter while each phoneme, and EOS, is written.

        Shapes:
            - returns: (phonemes + 1, letters); each row sums to 1

        Raises:
            ValueError: a letter or phoneme is unknown.
        """
        pair = as_pairs([(word, tuple(phonemes))], self.alphabet)
        with _evaluating(self.model):
            bound = self.model.attend(pair.source, pair.source_lengths)
            return bound.align(pair.target_in, None, pair.target_lengths)[0]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; each module then gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def build_pronouncer(
    hidden_size: int = 128, *, stress: bool = False, seed: int = 0
) -> Pronouncer:
    r"""A pronouncer with fresh weights; torch's global generator stays as it is.

    Args:
        hidden_size: Width of each layer, of the scores and of the readout.
        stress: Whether vowels have a stress.
        seed: Of the weights.

    Raises:
        ValueError, TypeError: `hidden_size` is below 1, or no int.
    """
    check_size("build_pronouncer", "hidden_size", hidden_size)
    alphabet, width = Alphabet(stress=stress), hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Bidirectional(GRU(EMBEDDING, width), GRU(EMBEDDING, width))
        layer = ChoGRU(EMBEDDING + 2 * width, width)
        attention = AdditiveAttention(width, 2 * width, width)
        model = EncoderDecoder(
            alphabet.source_size,
            alphabet.target_size,
            encoder,
            BahdanauDecoder(layer, attention, width),
            hand_over=TanhBridge(encoder, layer),
        )
    return Pronouncer(model, alphabet, hidden_size)


def pronunciation_loss(
    model: EncoderDecoder, batch: Pairs, state: Any = None
) -> tuple[Tensor, None]:
    r"""Mean cross-entropy over the real target tokens, EOS included; for `fit`.

    Units:
        Nats per token.
    """
    logits = model(
        batch.source, batch.target_in, batch.source_lengths, batch.target_lengths
    )
    return cross_entropy(logits.flatten(0, 1), batch.target_out.flatten()), None


def save_pronouncer(
    path: str | Path, pronouncer: Pronouncer, facts: dict[str, Any] | None = None
) -> None:
    r"""Write a pronouncer to one file, whole or not at all.

    Raises:
        RuntimeError: safetensors is not installed.
        TypeError: `facts` has no form in JSON.
    """
    config = {
        "format": FORMAT,
        "hidden_size": pronouncer.hidden_size,
        "stress": pronouncer.alphabet.stress,
        "facts": facts or {},
    }
    save_checkpoint(path, pronouncer.model, config)


def load_pronouncer(path: str | Path) -> tuple[Pronouncer, dict[str, Any]]:
    r"""Read what `save_pronouncer` wrote: the pronouncer and the facts.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: safetensors is not installed.
        ValueError: the file is torn, or holds something else.
    """
    tensors, config = load_checkpoint(path)
    got = config.get("format") if isinstance(config, dict) else config
    if got != FORMAT:
        raise ValueError(
            f"load_pronouncer: {str(path)!r} must have format {FORMAT!r}, got {got!r}"
        )
    pronouncer = build_pronouncer(config["hidden_size"], stress=config["stress"])
    pronouncer.model.load_state_dict(tensors)
    pronouncer.model.eval()
    return pronouncer, config["facts"]
