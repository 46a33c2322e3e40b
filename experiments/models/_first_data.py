r"""The text of the comparison, as every model in it sees it."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from seqref.tasks import Corpus, NGram, Streams, Vocabulary, python_source

ORDERS = {"unigram": 1, "bigram": 2, "fivegram": 5}


@dataclass(frozen=True)
class Config:
    """Sizes, text, training and seed of one run."""

    hidden_size: int
    embedding_size: int
    batch_size: int
    horizon: int
    passes: float
    learning_rate: float
    max_norm: float
    min_count: int
    train_characters: int | None
    heldout_characters: int | None
    longest_order: int
    marks: int
    resets: tuple[int, ...]
    control_steps: int
    shuffled_characters: int
    sample_length: int
    temperatures: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Data:
    """The corpus as indices, and the streams that the LSTM reads."""

    corpus: Corpus
    vocabulary: Vocabulary
    train: Int[Tensor, " train"]
    tune: Int[Tensor, " tune"]
    heldout: Int[Tensor, " heldout"]
    streams: Streams

    def read_by(self, steps: int) -> Int[Tensor, " time"]:
        """The training text that the LSTM has read after `steps` chunks."""
        columns = min(steps * self.streams.horizon, self.streams.row_length)
        # Joining the rows makes a few n-grams that the text does not have: fewer than
        # n a row.
        return self.streams.inputs[:, :columns].flatten()

    def evaluation(self, horizon: int = 512) -> Streams:
        """Held-out text in 64 rows, which start from an empty state."""
        return Streams(self.heldout, 64, horizon)

    def ngram_bits(self, text: Int[Tensor, " time"], order: int) -> float:
        """Bits of an n-gram counted on `text`, over what `evaluation` predicts."""
        model = NGram(text, self.tune, order, len(self.vocabulary))
        predicted = self.evaluation().predicted
        return model.bits_per_character(self.heldout[: predicted + 1])


def prepare(config: Config) -> Data:
    """Read the standard library, choose the vocabulary, encode the three parts."""
    corpus = python_source()
    text = corpus.train[: config.train_characters]
    vocabulary = Vocabulary.from_text(text, config.min_count)
    train_tokens = vocabulary.encode(text)
    return Data(
        corpus,
        vocabulary,
        train_tokens,
        vocabulary.encode(corpus.tune[: config.heldout_characters]),
        vocabulary.encode(corpus.heldout[: config.heldout_characters]),
        Streams(train_tokens, config.batch_size, config.horizon),
    )
