"""The recipe against the package, and what its page says of it."""

import importlib.util
import math
import pathlib
import random
import subprocess
import sys

import pytest
import torch

import seqref
from seqref.decoding import beam_search
from seqref.models import BahdanauDecoder, EncoderDecoder, TanhBridge
from seqref.testing import (
    check_padding_invariance,
    check_source_dependence,
    check_target_shift,
)

FILE = pathlib.Path(__file__).parents[2] / "docs/recipes/attention_seq2seq.py"
SIZE, VOCAB = 6, 9


def load():
    spec = importlib.util.spec_from_file_location("attention_seq2seq", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = load()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return recipe.Seq2Seq(VOCAB, VOCAB, SIZE).eval()


@pytest.fixture
def batch():
    return recipe.collated(recipe.letters_backwards(5, random.Random(0)))


def of_the_package(model):
    """The same weights in the package's classes."""
    encoder = seqref.Bidirectional(seqref.GRU(SIZE, SIZE), seqref.GRU(SIZE, SIZE))
    layer = seqref.GRU(3 * SIZE, SIZE)
    attention = seqref.AdditiveAttention(SIZE, 2 * SIZE, SIZE)
    decoder = BahdanauDecoder(layer, attention, SIZE)
    bridge = TanhBridge(encoder, layer)
    made = EncoderDecoder(VOCAB, VOCAB, encoder, decoder, hand_over=bridge)
    gru = model.encoder.gru
    for part, end in (
        (encoder.forward_layer, ""),
        (encoder.backward_layer, "_reverse"),
    ):
        names = part.cell.state_dict()
        part.cell.load_state_dict({n: getattr(gru, f"{n}_l0{end}") for n in names})
    layer.cell.load_state_dict(model.decoder.gru.state_dict())
    bridge.maps[0].load_state_dict(model.decoder.start.state_dict())
    decoder.readout.load_state_dict(model.decoder.readout.state_dict())
    made.head.load_state_dict(model.decoder.head.state_dict())
    made.source_embedding.load_state_dict(model.encoder.embedding.state_dict())
    made.target_embedding.load_state_dict(model.decoder.embedding.state_dict())
    with torch.no_grad():
        attention.weight_query.copy_(model.decoder.query.weight)
        attention.weight_key.copy_(model.decoder.key.weight)
        attention.weight_score.copy_(model.decoder.score)
    return made


def test_logits_equal_the_packages(model, batch):
    source, lengths, inputs, _ = batch
    assert len(set(lengths.tolist())) > 1
    ours = of_the_package(model.double())
    torch.testing.assert_close(
        model(source, lengths, inputs),
        ours.double()(source, inputs, lengths),
        rtol=1e-10,
        atol=1e-10,
    )


def test_beams_equal_the_packages(model, batch):
    source, lengths, _, _ = batch
    with torch.no_grad():
        # An untrained model hardly prefers anything, and its state tells it little:
        # with small weights all hypotheses end at once, and no parent counts.
        model.decoder.head.weight.mul_(8)
        model.decoder.embedding.weight.mul_(3)
        for parameter in model.decoder.gru.parameters():
            parameter.mul_(3)
    ours = of_the_package(model)
    start = torch.full((len(source),), recipe.BOS)
    best = beam_search(
        ours.attend(source, lengths),
        start,
        width=3,
        n_best=3,
        end=recipe.EOS,
        max_length=12,
    )
    assert best.finished.sum() > 8
    assert best.lengths[best.finished].max() > 3
    # Where none has ended the recipe gives those that were cut, and the package too.
    for row in best.finished.any(dim=1).nonzero().flatten().tolist():
        length = int(lengths[row])
        mine = recipe.beam_search(model, source[row, :length], width=3, max_length=12)
        scores = torch.tensor([score for score, _ in mine])
        # The package adds those that were cut.
        expected = best.scores[row][best.finished[row]]
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
        for n, (_, tokens) in enumerate(mine):
            written = best.tokens[row, n, : best.lengths[row, n] - 1].tolist()
            assert tokens == written


def test_what_the_checks_ask(model, batch):
    source, lengths, inputs, _ = batch
    tokens = inputs[:1]

    def on_source(model, source, lengths):
        return model(source, lengths, tokens.expand(len(source), -1))

    check_padding_invariance(model, source, lengths, call=on_source)
    full = source[:, : int(lengths.min())]
    steps = torch.full((len(full),), full.shape[1])
    check_source_dependence(
        model,
        full,
        inputs[:, :4],
        call=lambda model, source, target: model(source, steps[: len(source)], target),
    )
    check_target_shift(
        model,
        torch.randint(3, VOCAB, (len(full), 5)),
        call=lambda model, t: (model(full, steps, t[:, :-1]), t[:, 1:]),
    )


def counted(module, calls):
    module.register_forward_hook(lambda *_: calls.append(1))


def test_keys_are_made_once_and_a_search_stops(model, batch):
    source, lengths, inputs, _ = batch
    keys, steps = [], []
    counted(model.decoder.key, keys)
    counted(model.decoder, steps)
    model(source, lengths, inputs)
    assert (len(keys), len(steps)) == (1, inputs.shape[1])
    with torch.no_grad():
        model.decoder.head.bias[recipe.EOS] += 100
    steps.clear()
    recipe.beam_search(model, source[0], width=1, max_length=50)
    assert len(steps) == 1


def test_the_shift_puts_an_end_after_each_rows_own_last_token():
    _, lengths, inputs, labels = recipe.collated(
        [([3, 4, 5], [5, 4]), ([6], [7, 8, 7])]
    )
    assert lengths.tolist() == [3, 1]
    assert inputs.tolist() == [[1, 5, 4, 0], [1, 7, 8, 7]]
    assert labels.tolist() == [[5, 4, 2, 0], [7, 8, 7, 2]]


def test_the_loss_does_not_count_padding(model, batch):
    source, lengths, inputs, labels = batch
    logits = model(source, lengths, inputs)
    total, count = 0.0, 0
    for row, length in enumerate((labels != recipe.PAD).sum(1).tolist()):
        log_p = logits[row, :length].log_softmax(-1)
        total -= log_p.gather(1, labels[row, :length, None]).sum().item()
        count += length
    assert math.isclose(
        recipe.loss_of(logits, labels).item(), total / count, rel_tol=1e-5
    )


def test_greedy_ends_where_the_model_says_so(model, batch):
    source, lengths, _, _ = batch
    with torch.no_grad():
        model.decoder.head.bias[recipe.EOS] += 100
    written, weights = recipe.greedy(model, source, lengths, max_length=4)
    assert written == [[]] * 5
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 4))


@pytest.mark.errors
def test_an_empty_row_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="row 1 is empty"):
        recipe.collated([([3], [3]), ([], [4])])


def test_it_learns_and_runs_from_an_empty_folder(tmp_path):
    """In a folder without the package, with `import seqref` refused."""
    (tmp_path / "seqref.py").write_text("raise ImportError('torch alone')")
    file = tmp_path / FILE.name
    file.write_text(FILE.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-W", "error", file.name, "--updates", "80"]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    right = int(run.stdout.split("rows right: ")[1].split()[0])
    # Without a source one row in 6^3 to 6^8 would be right.
    assert right > 100, run.stdout
