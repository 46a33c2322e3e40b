import math
import sys

import pytest
import torch

from seqref import LSTM, Stacked
from seqref.models import LanguageModel
from seqref.recurrence import detach_state
from seqref.tasks import Streams
from seqref.training.truncated import (
    PADDING,
    Documents,
    NonFiniteLossError,
    chunk_loss,
    evaluate,
    train,
)

VOCAB = 7


def small_model(seed=0):
    torch.manual_seed(seed)
    return LanguageModel(VOCAB, LSTM(3, 5)).double()


def text(length=101, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (length,), generator=generator)


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def test_chunks_with_carried_state_equal_the_whole_stream():
    model = small_model()
    whole = Streams(text(), batch_size=4, horizon=1000)
    expected = evaluate(model, whole)
    for horizon in (1, 3, 7, 25):
        parts = Streams(text(), batch_size=4, horizon=horizon)
        assert evaluate(model, parts) == pytest.approx(expected, rel=1e-12)


def test_evaluate_is_the_mean_over_all_targets():
    model = small_model()
    streams = Streams(text(), 1, 8)
    logits, _ = model(streams.inputs)
    log_p = logits.log_softmax(-1)[0]
    expected = -sum(
        log_p[t, target].item() for t, target in enumerate(streams.targets[0].tolist())
    ) / len(streams.targets[0])
    assert evaluate(model, streams) == pytest.approx(expected, rel=1e-12)


def test_evaluate_passes_over_a_chunk_of_padding_alone():
    model, tokens = small_model(), text()[None]
    x, y = tokens[:, :-1], tokens[:, 1:]
    blank = torch.full_like(y, PADDING)
    expected = evaluate(model, [(x, y)])
    assert evaluate(model, [(x, y), (x, blank)]) == pytest.approx(expected, rel=1e-12)


def test_evaluate_without_carry_starts_each_chunk_anew():
    model = small_model()
    streams = Streams(text(), 2, 8)
    losses = [chunk_loss(model, x, y)[0].item() * y.numel() for x, y in streams]
    expected = sum(losses) / streams.predicted
    assert evaluate(model, streams, carry=False) == pytest.approx(expected, rel=1e-12)
    assert evaluate(model, streams) != pytest.approx(expected, rel=1e-6)


@pytest.mark.errors
def test_evaluate_that_fails_puts_the_training_flag_back():
    model = LanguageModel(5, LSTM(3, 4)).train()
    wrong = [(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 4).long())]
    with pytest.raises(ValueError, match="must have one shape"):
        evaluate(model, wrong)
    assert model.training


def test_evaluate_puts_back_the_flag_of_each_part():
    model = small_model().train()
    model.layer.eval()
    before = [part.training for part in model.modules()]
    assert len(set(before)) == 2
    evaluate(model, Streams(text(), 2, 8))
    assert [part.training for part in model.modules()] == before


def test_evaluate_leaves_the_model_as_it_was():
    model = small_model()
    for flag in (True, False):
        model.train(flag)
        evaluate(model, Streams(text(), 2, 8))
        assert model.training is flag
    assert all(p.grad is None for p in model.parameters())


def test_evaluate_has_no_noise_of_training():
    torch.manual_seed(0)
    layer = Stacked([LSTM(3, 5), LSTM(5, 5)], dropout=0.5)
    model = LanguageModel(VOCAB, layer).double().eval()
    (chunk,) = Streams(text(), 2, 1000)
    expected, _ = chunk_loss(model, *chunk)
    noisy, _ = chunk_loss(model.train(), *chunk)
    assert evaluate(model, [chunk]) == pytest.approx(expected.item(), rel=1e-12)
    assert abs(noisy - expected) > 1e-4


def test_gradients_reach_the_start_of_the_chunk_and_no_further():
    model = small_model()
    x = model.embedding(text(30)[None]).detach().requires_grad_()
    _, state = model.layer(x[:, :12])
    second, _ = model.layer(x[:, 12:], detach_state(state))
    second[:, -1].sum().backward()
    reached = x.grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [False] * 12 + [True] * 18
    # The value of the carried state still counts.
    alone, _ = model.layer(x[:, 12:])
    assert not torch.allclose(alone, second)


def reference_training(model, streams, steps, lr, max_norm):
    """Truncated BPTT written out with nothing but torch."""
    state, losses, chunks = None, [], []
    while len(chunks) < steps:
        chunks += [(k == 0, chunk) for k, chunk in enumerate(streams)]
    for first, (x, y) in chunks[:steps]:
        if first:
            state = None
        logits, state = model(x, state)
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), y)
        grads = torch.autograd.grad(loss, list(model.parameters()))
        norm = math.sqrt(sum(g.square().sum().item() for g in grads))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p -= lr * g * min(1.0, max_norm / (norm + 1e-6))
        state = type(state)(*[s.detach() for s in state])
        losses.append((loss.item(), norm))
    return losses


# Seven chunks a pass: 17 steps pass over the text twice and a half.
@pytest.mark.parametrize("max_norm", [0.05, 1e9])
def test_train_equals_the_loop_written_out(max_norm):
    streams = Streams(text(), 4, 4)
    ours, theirs = small_model(), small_model()
    reports = []
    last = train(
        ours, streams, sgd(ours, 0.5), 17, max_norm=max_norm, on_step=reports.append
    )
    expected = reference_training(theirs, streams, 17, 0.5, max_norm)
    assert [r.number for r in reports] == list(range(1, 18))
    assert last == reports[-1]
    for report, (loss, norm) in zip(reports, expected, strict=True):
        assert report.loss == pytest.approx(loss, rel=1e-10)
        assert report.grad_norm == pytest.approx(norm, rel=1e-10)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
    sizes = [chunk.inputs.numel() for chunk in streams]
    assert last.characters == 2 * sum(sizes) + sum(sizes[:3])


def test_training_learns_a_rhythm():
    tokens = torch.arange(2000) % VOCAB
    torch.manual_seed(0)
    model = LanguageModel(VOCAB, LSTM(4, 16))
    streams = Streams(tokens, 4, 25)
    before = evaluate(model, streams)
    train(model, streams, torch.optim.Adam(model.parameters(), lr=0.02), 100)
    assert before == pytest.approx(math.log(VOCAB), abs=0.3)
    assert evaluate(model, streams) < 0.1


def test_scheduler_is_stepped_once_a_step():
    model = small_model()
    optimizer = sgd(model, 1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    train(model, Streams(text(), 4, 4), optimizer, 3, scheduler=scheduler)
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_on_step_can_end_training():
    model = small_model()
    last = train(
        model, Streams(text(), 4, 4), sgd(model), 100, on_step=lambda s: s.number == 5
    )
    assert last.number == 5


def test_no_steps():
    model = small_model()
    assert train(model, Streams(text(), 4, 4), sgd(model), 0) is None


@pytest.mark.parametrize("poison", ["loss", "gradient norm"])
def test_a_loss_that_is_not_finite_stops_before_the_update(poison):
    model = small_model()
    kept = []

    def spoil(step):
        if step.number == 3:
            if poison == "loss":
                with torch.no_grad():
                    model.head.bias[0] = math.nan
            else:
                model.head.bias.register_hook(lambda g: g * math.inf)
            kept.extend(p.detach().clone() for p in model.parameters())

    with pytest.raises(NonFiniteLossError) as caught:
        train(model, Streams(text(), 4, 4), sgd(model, 0.25), 9, on_step=spoil)
    message = str(caught.value)
    assert message.startswith(f"the {poison} is ")
    assert "at step 4, before its update" in message
    assert "`head.bias` is not finite" in message
    assert message.endswith("; learning rate 0.25, `max_norm` 1")
    assert caught.value.step == 4
    for p, q in zip(model.parameters(), kept, strict=True):
        assert torch.equal(p.isnan(), q.isnan())
        assert torch.equal(p.nan_to_num(), q.nan_to_num())


def test_progress_bar_goes_to_standard_error(capsys):
    model = small_model()
    train(model, Streams(text(), 4, 4), sgd(model), 3, progress=True)
    captured = capsys.readouterr()
    assert "3/3" in captured.err
    assert "bits=" in captured.err
    assert captured.out == ""


def test_progress_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    model = small_model()
    streams = Streams(text(), 4, 4)
    with pytest.raises(RuntimeError, match=r'pip install "\.\[train\]"'):
        train(model, streams, sgd(model), 3, progress=True)
    assert train(model, streams, sgd(model), 1).number == 1


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda m, s: train(m, s, sgd(m), -1),
            ValueError,
            "`steps` must be at least 0, got -1",
        ),
        (
            lambda m, s: train(m, s, sgd(m), 1, max_norm=0.0),
            ValueError,
            "`max_norm` must be above 0, got 0.0 ",
        ),
        (lambda m, s: train(m, [], sgd(m), 1), ValueError, "none in pass 1$"),
        (
            lambda m, s: train(m, iter(s), sgd(m), 99),
            ValueError,
            "none in pass 2: an iterator gives its items once",
        ),
        (lambda m, s: evaluate(m, []), ValueError, "at least one target"),
        (
            lambda m, s: chunk_loss(m, s.inputs, s.targets[:, 1:]),
            ValueError,
            r"one shape, got \(4, 25\) and \(4, 24\)",
        ),
    ],
)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call(small_model(), Streams(text(), 4, 4))


# Texts of any lengths.


def texts(lengths=(40, 3, 17, 2, 25, 9), seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (n,), generator=generator) for n in lengths]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9])
@pytest.mark.parametrize("horizon", [1, 5, 100])
def test_documents_reads_every_text_once_from_its_start(batch_size, horizon):
    documents = texts()
    chunks = list(Documents(documents, batch_size, horizon))
    firsts = []
    for row in range(batch_size):
        for inputs, targets, starts in chunks:
            real = targets[row] != PADDING
            # Padding stands on the right, with inputs of 0.
            assert real.tolist() == sorted(real.tolist(), reverse=True)
            assert (inputs[row][~real] == 0).all()
            if not real.any():
                assert not starts[row]
                continue
            read = inputs[row][real].tolist()
            if starts[row]:
                firsts.append(read[:1])
            assert read[0] == firsts[-1][-1]
            assert read[1:] == targets[row][real].tolist()[:-1]
            firsts[-1] += targets[row][real].tolist()
    assert sorted(firsts) == sorted(d.tolist() for d in documents)
    assert all(1 <= c.inputs.shape[1] <= horizon for c in chunks)
    assert all((c.targets != PADDING).any() for c in chunks)
    # Read again, it is the same.
    again = list(Documents(documents, batch_size, horizon))
    assert all(
        torch.equal(a, b)
        for c, d in zip(chunks, again, strict=True)
        for a, b in zip(c, d, strict=True)
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_texts_side_by_side_equal_each_text_alone(batch_size):
    """Loss and gradient over one pass, with the weights held still."""
    ours, theirs = small_model(), small_model()
    documents = texts()
    reports, weights = [], []
    chunks = Documents(documents, batch_size, 6)

    def note(step):
        weights.append(step.items - sum(weights))
        reports.append((step.loss, [p.grad.clone() for p in ours.parameters()]))

    steps = len(list(chunks))
    train(ours, chunks, sgd(ours, 0.0), steps, max_norm=None, on_step=note)
    total = sum(len(d) - 1 for d in documents)
    assert sum(weights) == total
    mean = sum(w * loss for w, (loss, _) in zip(weights, reports, strict=True))
    expected = torch.zeros((), dtype=torch.float64)
    for document in documents:
        state = None
        for start in range(0, len(document) - 1, 6):
            part = document[start : start + 7][None]
            loss, state = chunk_loss(theirs, part[:, :-1], part[:, 1:], state)
            state = detach_state(state)
            expected = expected + loss * (part.shape[1] - 1)
    assert mean == pytest.approx(expected.item(), rel=1e-12)
    grads = torch.autograd.grad(expected, list(theirs.parameters()))
    for index, grad in enumerate(grads):
        summed = sum(w * g[index] for w, (_, g) in zip(weights, reports, strict=True))
        torch.testing.assert_close(summed, grad, rtol=1e-10, atol=1e-12)


def test_evaluate_knows_where_texts_start():
    model, documents = small_model(), texts()
    losses = [chunk_loss(model, d[None, :-1], d[None, 1:])[0].item() for d in documents]
    sizes = [len(d) - 1 for d in documents]
    expected = sum(a * b for a, b in zip(losses, sizes, strict=True)) / sum(sizes)
    assert evaluate(model, Documents(documents, 2, 6)) == pytest.approx(
        expected, rel=1e-12
    )
    # Without the starts the state of one text runs into the next.
    blind = [chunk[:2] for chunk in Documents(documents, 2, 6)]
    assert evaluate(model, blind) != pytest.approx(expected, rel=1e-6)


@pytest.mark.errors
def test_documents_refuses():
    for arguments, kind, match in (
        (([], 2, 3), ValueError, "at least one, got none"),
        (([torch.arange(3), torch.arange(1)], 2, 3), ValueError, r"`documents\[1\]`"),
        (([torch.zeros(2, 3).long()], 2, 3), ValueError, r"shape \(time,\), got"),
        (([[1, 2]], 2, 3), TypeError, "must be a torch.Tensor, got list"),
        (([torch.arange(3)], 0, 3), ValueError, "`batch_size` must be at least 1"),
        (([torch.arange(3)], 2, 0), ValueError, "`horizon` must be at least 1"),
    ):
        with pytest.raises(kind, match=match):
            Documents(*arguments)


@pytest.mark.parametrize("kind", [Streams, Documents])
def test_tokens_of_32_bits_give_the_same_as_those_of_64(kind):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 7, (61,), generator=generator)
    results = []
    for dtype in (torch.int64, torch.int32):
        torch.manual_seed(0)
        model = LanguageModel(7, LSTM(3, 5)).double()
        text = tokens.to(dtype)
        source = text if kind is Streams else [text[:20], text[20:25], text[25:]]
        chunks = kind(source, 2, 6)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        last = train(model, chunks, optimizer, 4)
        results.append((last, evaluate(model, chunks)))
    assert results[0] == results[1]


@pytest.mark.errors
def test_documents_of_other_kinds_are_refused():
    text = torch.arange(5)
    for documents, kind, match in (
        ([text.to(torch.uint8)], TypeError, "int64 or int32, got torch.uint8"),
        ([text > 1], TypeError, r"`documents\[0\]` must have dtype .* torch.bool"),
        ([text, text.double()], TypeError, r"`documents\[1\]` must have dtype int64"),
        ([text, text.int()], ValueError, r"\[1\]` must have the dtype of the first"),
        ([text, text.to("meta")], ValueError, r"\[1\]` must have the device of the f"),
        (text.view(1, 5), TypeError, r"one tensor of shape \(1, 5\) .*list\(documents"),
        (text, TypeError, "must be a list of texts, got one tensor"),
        ([text.view(1, 5)], ValueError, r"`documents\[0\]` must have shape \(time,\)"),
        ([], ValueError, "must hold at least one, got none"),
    ):
        with pytest.raises(kind, match=match):
            Documents(documents, 2, 3)
    model = LanguageModel(5, LSTM(3, 5))
    with pytest.raises(
        TypeError, match="chunk_loss: `targets` must have dtype int64 or"
    ):
        chunk_loss(model, text[None], text[None].float())
