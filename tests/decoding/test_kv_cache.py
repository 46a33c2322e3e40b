"""A cache in place: the model's own step as the judge, and tickets used once."""

import pickle
from copy import copy, deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from seqref.attention import (
    LearnedPositions,
    MultiHeadAttention,
    Rotary,
    alibi_slopes,
)
from seqref.decoding import CachedDecoder, CacheTicket, beam_search, greedy, sample
from seqref.models import (
    AddPositions,
    FeedForward,
    GatedFeedForward,
    LanguageModel,
    PostNormBlock,
    PreNormBlock,
    SinusoidalPositions,
    Transformer,
    TransformerLM,
)
from seqref.recurrence import select_rows

F64 = torch.float64
D, H, V = 16, 4, 11
TOKENS = torch.tensor(
    [[1, 5, 2, 9, 4, 4, 7], [3, 3, 8, 1, 0, 6, 2], [2, 7, 1, 8, 2, 8, 1]]
)
LENGTHS = torch.tensor([4, 7, 1])


def model_of(
    block=PreNormBlock,
    *,
    positions=None,
    below=LearnedPositions,
    norm=nn.LayerNorm,
    network=FeedForward,
    whole=TransformerLM,
    bias=True,
    dtype=F64,
    **attention,
):
    layers = []
    if below is LearnedPositions:
        layers.append(AddPositions(LearnedPositions(64, D), norm=nn.LayerNorm(D)))
    elif below is not None:
        layers.append(AddPositions(below(D)))
    for _ in range(2):
        heads = MultiHeadAttention(D, H, positions=positions, bias=bias, **attention)
        layers.append(block(heads, network(D, 24, bias=bias), norm=norm))
    last = norm(D) if block is PreNormBlock else None
    model = whole(V, Transformer(layers, last_norm=last)).to(dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


KINDS = {
    "gpt": partial(model_of),
    "post-norm": partial(model_of, PostNormBlock),
    "llama": partial(
        model_of,
        positions=Rotary(4),
        below=None,
        norm=nn.RMSNorm,
        network=GatedFeedForward,
        bias=False,
        n_kv_heads=2,
    ),
    "one head of keys": partial(model_of, n_kv_heads=1),
    "window": partial(model_of, window=5),
    "window, rotary": partial(model_of, window=5, positions=Rotary(4), below=None),
    "alibi": partial(model_of, positions=alibi_slopes(H), below=None),
    "alibi, window": partial(
        model_of, positions=alibi_slopes(H), below=None, window=5, n_kv_heads=2
    ),
    "sinusoidal": partial(model_of, below=SinusoidalPositions),
    "free head": partial(model_of, whole=LanguageModel),
}


def prompted(model, tokens, lengths):
    """Scores after each prompt and the model's own state, by its whole form."""
    h, state = model.layer(model.embedding(tokens), None, lengths)
    last = tokens.shape[1] - 1 if lengths is None else lengths - 1
    h = h[torch.arange(len(tokens)), last]
    head = model.head or partial(linear, weight=model.embedding.weight)
    return head(h), state


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["even", "ragged"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_model(kind, lengths):
    model = KINDS[kind]()
    decoder = CachedDecoder(model, rows=4, capacity=40)
    for _ in range(2):  # A second prompt finds the caches of the first.
        logits, ticket = decoder.read(TOKENS, lengths)
        expected, state = prompted(model, TOKENS, lengths)
        torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
        for t in range(14):
            token = torch.randint(V, (3,))
            expected, state = model.step(token, state)
            logits, ticket = decoder.step(token, ticket)
            torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
            if t % 4 == 1:
                rows = torch.randint(3, (3,))
                state, ticket = select_rows(state, rows), select_rows(ticket, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_searches_find_the_same(kind):
    model = KINDS[kind]()
    decoder = CachedDecoder(model, rows=12, capacity=20)
    start = TOKENS[:, 0]
    ends = {"max_length": 12, "end": 0}
    for one, other in (
        (greedy(model, start, **ends), greedy(decoder, start, **ends)),
        (
            sample(model, start, generator=torch.Generator().manual_seed(1), **ends),
            sample(decoder, start, generator=torch.Generator().manual_seed(1), **ends),
        ),
        (
            beam_search(model, start, width=4, n_best=4, **ends),
            beam_search(decoder, start, width=4, n_best=4, **ends),
        ),
    ):
        assert torch.equal(one.tokens, other.tokens)
        torch.testing.assert_close(
            one.log_probabilities, other.log_probabilities, atol=1e-10, rtol=1e-10
        )


def test_a_prompt_goes_before_the_start_of_a_search():
    model = model_of()
    decoder = CachedDecoder(model, rows=3, capacity=30)
    _, ticket = decoder.read(TOKENS[:, :-1])
    written = greedy(decoder, TOKENS[:, -1], max_length=9, state=ticket)
    _, state = model(TOKENS[:, :-1])
    expected = greedy(model, TOKENS[:, -1], max_length=9, state=state)
    assert torch.equal(written.tokens, expected.tokens)


def test_a_step_writes_no_new_memory_for_the_past():
    """The same tensors before and after, and no more than they hold."""
    decoder = CachedDecoder(model_of(window=5), rows=2, capacity=30)
    caches = [block.attend.cache for block in decoder._blocks]
    before = [(cache.k.data_ptr(), cache.v.data_ptr()) for cache in caches]
    assert [cache.size for cache in caches] == [5, 5]
    _, ticket = decoder.read(TOKENS[:2])
    for _ in range(12):
        _, ticket = decoder.step(torch.tensor([1, 2]), ticket)
    assert before == [(cache.k.data_ptr(), cache.v.data_ptr()) for cache in caches]


def test_heads_that_share_keys_share_memory():
    sizes = []
    for kv_heads in (4, 1):
        decoder = CachedDecoder(model_of(n_kv_heads=kv_heads), rows=2, capacity=30)
        sizes.append(sum(b.attend.cache.k.numel() for b in decoder._blocks))
    assert sizes == [2 * 2 * 30 * 4 * 4, 2 * 2 * 30 * 1 * 4]


def test_a_ticket_is_good_once():
    decoder = CachedDecoder(model_of(), rows=3, capacity=30)
    _, first = decoder.read(TOKENS)
    _, second = decoder.step(TOKENS[:, 0], first)
    with pytest.raises(RuntimeError, match="`state` must be the newest one"):
        decoder.step(TOKENS[:, 0], first)
    decoder.step(TOKENS[:, 0], second)
    decoder.initial_state(3)
    with pytest.raises(RuntimeError, match="`state` must be the newest one"):
        decoder.step(TOKENS[:, 0], second)


def test_a_prompt_is_read_once_for_several_answers():
    model = model_of()
    decoder = CachedDecoder(model, rows=3, capacity=30)
    _, ticket = decoder.read(TOKENS)
    answers = []
    for _ in range(2):
        written = greedy(decoder, TOKENS[:, -1], max_length=5, state=ticket)
        answers.append(written.tokens)
        ticket = decoder.rewind(7)
    assert torch.equal(*answers)
    # To the middle of the prompt, as if the rest had not been read.
    _, state = model(TOKENS[:, :3])
    expected, _ = model.step(TOKENS[:, 3], state)
    logits, _ = decoder.step(TOKENS[:, 3], decoder.rewind(3))
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
    with pytest.raises(ValueError, match="`length` must be at most 4"):
        decoder.rewind(5)


def test_a_window_is_not_rewound_over_what_it_has_lost():
    decoder = CachedDecoder(model_of(window=5), rows=3, capacity=30)
    _, ticket = decoder.read(TOKENS)
    with pytest.raises(ValueError, match="keeps the last 5 steps alone"):
        decoder.rewind(6)
    logits, _ = decoder.step(TOKENS[:, 0], ticket)
    again, _ = decoder.step(TOKENS[:, 0], decoder.rewind(8))
    assert logits.shape == again.shape


def test_a_window_goes_on_for_ever_and_room_ends():
    model = model_of(window=5, positions=Rotary(4), below=None)
    decoder = CachedDecoder(model, rows=1, capacity=8)
    start = torch.tensor([1])
    expected = greedy(model, start, max_length=30)
    assert torch.equal(greedy(decoder, start, max_length=30).tokens, expected.tokens)
    full = CachedDecoder(model_of(), rows=1, capacity=8)
    with pytest.raises(ValueError, match="room for capacity=8 steps a row, got 9"):
        greedy(full, start, max_length=30)
    with pytest.raises(ValueError, match="room for capacity=8 steps a row, got 9"):
        full.read(torch.zeros(1, 9, dtype=torch.int64))


def test_changed_parameters_are_not_decoded_with_old_copies():
    model = model_of()
    decoder = CachedDecoder(model, rows=1, capacity=8)
    with torch.no_grad():
        model.embedding.weight.mul_(2)
    with pytest.raises(RuntimeError, match="parameters have changed"):
        decoder.initial_state(1)
    with pytest.raises(RuntimeError, match="parameters have changed"):
        decoder.read(TOKENS[:1])
    CachedDecoder(model, rows=1, capacity=8).initial_state(1)


def through_a_file(decoder):
    return pickle.loads(pickle.dumps(decoder))


COPIES = {"copy": copy, "deepcopy": deepcopy, "pickle": through_a_file}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_where_it_was_taken(kind, copied):
    model = KINDS[kind]()
    decoder = CachedDecoder(model, rows=3, capacity=30)
    _, ticket = decoder.read(TOKENS, LENGTHS)
    _, ticket = decoder.step(TOKENS[:, 0], ticket)
    other = copied(decoder)
    # Each writes another token, and neither sees what the other wrote.
    written = []
    for one, token in ((decoder, TOKENS[:, 1]), (other, TOKENS[:, 2])):
        _, after = one.step(token, ticket)
        with pytest.raises(RuntimeError, match="`state` must be the newest one"):
            one.step(token, ticket)
        written.append((one, token, after))
    for one, token, after in written:
        logits, _ = one.step(TOKENS[:, 3], after)
        for row, length in enumerate(LENGTHS.tolist()):
            tokens = [*TOKENS[row, :length].tolist(), TOKENS[row, 0].item()]
            tokens += [token[row].item(), TOKENS[row, 3].item()]
            expected, _ = model(torch.tensor([tokens]))
            torch.testing.assert_close(logits[row], expected[0, -1])
    own = copied is copy
    assert (other.model is model) == own


def test_a_deep_copy_has_weights_of_its_own():
    model = model_of(network=GatedFeedForward)
    decoder = CachedDecoder(model, rows=3, capacity=30)
    expected, _ = decoder.read(TOKENS)
    with_model, other = deepcopy((model, decoder))
    assert other.model is with_model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(other.read(TOKENS)[0], expected)
    for copied in COPIES.values():
        with pytest.raises(RuntimeError, match="__reduce__: the model's parameters"):
            copied(decoder)


def test_a_ticket_from_a_file_is_of_no_later_decoder():
    decoder = CachedDecoder(model_of(), rows=3, capacity=30)
    decoder.read(TOKENS)
    # As one that was written by a process that has counted further.
    kind, sizes, kept = decoder.__reduce__()
    other = kind(*sizes)
    other.__setstate__({**kept, "turn": kept["turn"] + 2})
    for _ in range(4):
        _, ticket = decoder.read(TOKENS)
        with pytest.raises(RuntimeError, match="`state` must be the newest one"):
            other.step(TOKENS[:, 0], ticket)


def test_dropout_is_off_and_the_mode_stays():
    model = model_of()
    for block in model.layer.layers[1:]:
        block.dropout = 0.5
    expected, _ = prompted(model, TOKENS, None)
    model.train()
    decoder = CachedDecoder(model, rows=3, capacity=30)
    logits, ticket = decoder.read(TOKENS)
    torch.testing.assert_close(logits, expected)
    assert model.training
    again, _ = decoder.step(TOKENS[:, 0], ticket)
    model.eval()
    _, state = model(TOKENS)
    torch.testing.assert_close(again, model.step(TOKENS[:, 0], state)[0])


def test_a_network_of_another_kind_is_evaluated_too():
    network = nn.Sequential(
        nn.Linear(D, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, D)
    )
    block = PreNormBlock(MultiHeadAttention(D, H), network)
    model = TransformerLM(V, Transformer([block])).double()
    model.eval()
    expected, state = prompted(model, TOKENS, None)
    following, _ = model.step(TOKENS[:, 0], state)
    model.train()
    model.layer.layers[0].attention.eval()
    modes = [part.training for part in model.modules()]
    decoder = CachedDecoder(model, rows=3, capacity=30)
    logits, ticket = decoder.read(TOKENS)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(decoder.step(TOKENS[:, 0], ticket)[0], following)
    assert [part.training for part in model.modules()] == modes


def test_what_the_padding_holds_is_not_read():
    model = model_of()
    decoder = CachedDecoder(model, rows=3, capacity=30)
    expected, _ = decoder.read(TOKENS, LENGTHS)
    held = TOKENS.masked_fill(torch.arange(7) >= LENGTHS[:, None], -100)
    assert torch.equal(decoder.read(held, LENGTHS)[0], expected)


def test_a_window_as_wide_as_the_room_goes_on_too():
    model = model_of(window=8, positions=Rotary(4), below=None)
    decoder = CachedDecoder(model, rows=1, capacity=8)
    start = torch.tensor([1])
    expected = greedy(model, start, max_length=20)
    assert torch.equal(greedy(decoder, start, max_length=20).tokens, expected.tokens)


def test_the_ticket_of_another_decoder_is_refused():
    one, other = (CachedDecoder(model_of(), rows=3, capacity=30) for _ in range(2))
    _, ticket = one.read(TOKENS)
    _, foreign = other.read(TOKENS)
    with pytest.raises(RuntimeError, match="`state` must be the newest one"):
        one.step(TOKENS[:, 0], foreign)
    with pytest.raises(RuntimeError, match="`state` must be the newest one"):
        one.step(TOKENS[:0, 0], CacheTicket(ticket.row[:0], ticket.turn[:0]))
    one.step(TOKENS[:, 0], ticket)


def test_rows_of_a_ticket_are_those_of_the_step_before():
    decoder = CachedDecoder(model_of(), rows=4, capacity=30)
    _, ticket = decoder.read(TOKENS)
    for row in ([0, 1, 3], [-1, 0, 1]):
        wrong = ticket._replace(row=torch.tensor(row))
        with pytest.raises(ValueError, match=r"`state\.row` must be from 0 to 2"):
            decoder.step(TOKENS[:, 0], wrong)
    wrong = ticket._replace(row=torch.tensor([0.0, 2.0, 1.0]))
    with pytest.raises(TypeError, match=r"`state\.row` must have dtype int64"):
        decoder.step(TOKENS[:, 0], wrong)


def test_subclasses_are_not_taken_for_what_they_were():
    class Scaled(PreNormBlock):
        pass

    class Adapted(nn.Linear):
        pass

    heads = MultiHeadAttention(D, H)
    model = TransformerLM(V, Transformer([Scaled(heads, FeedForward(D, 24))]))
    with pytest.raises(TypeError, match="got Scaled"):
        CachedDecoder(model, rows=1, capacity=8)
    heads.out_proj = Adapted(D, D)
    model = TransformerLM(V, Transformer([PreNormBlock(heads, FeedForward(D, 24))]))
    with pytest.raises(TypeError, match="got Adapted"):
        CachedDecoder(model, rows=1, capacity=8)


def test_it_runs_in_inference_mode_and_out_of_it():
    with torch.inference_mode():
        model = model_of()
        decoder = CachedDecoder(model, rows=3, capacity=30)
        _, ticket = decoder.read(TOKENS)
        inside, _ = decoder.step(TOKENS[:, 0], ticket)
    _, ticket = decoder.read(TOKENS)
    outside, _ = decoder.step(TOKENS[:, 0], ticket)
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_keep_to_the_model(dtype):
    exact, rough = model_of(), model_of(dtype=dtype)
    rough.load_state_dict(exact.state_dict())
    exact.load_state_dict(rough.state_dict())
    decoder = CachedDecoder(rough, rows=3, capacity=30)
    _, ticket = decoder.read(TOKENS)
    _, state = rough(TOKENS)
    _, exact_state = exact(TOKENS)
    for t in range(5):
        expected, exact_state = exact.step(TOKENS[:, t], exact_state)
        stepped, state = rough.step(TOKENS[:, t], state)
        logits, ticket = decoder.step(TOKENS[:, t], ticket)
        assert logits.dtype == dtype
        error, usual = (
            (x.to(F64) - expected).abs().max().item() for x in (logits, stepped)
        )
        eps = torch.finfo(dtype).eps
        assert error <= 2 * usual + 8 * eps * expected.abs().max().item()


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", ["gpt", "one head of keys", "window", "alibi"])
def test_scores_that_overflow_are_not_those_of_nothing_seen(kind, ragged):
    """NaN, as in the model's own step, also where all are minus infinity."""
    model = KINDS[kind](dtype=torch.float32)
    last = model.layer.layers[-1].attention
    with torch.no_grad():
        # Its queries and keys alone.
        last.in_proj_weight[: -last.n_kv_heads * last.d_head].mul_(1e20)
    decoder = CachedDecoder(model, rows=V, capacity=30)
    every = torch.arange(V)
    state, ticket = model.initial_state(V), decoder.initial_state(V)
    if ragged:
        prompts, lengths = every[:, None].repeat(1, 3), every % 3 + 1
        _, ticket = decoder.read(prompts, lengths)
        _, state = prompted(model, prompts, lengths)
    for _ in range(2):
        expected, state = model.step(every, state)
        logits, ticket = decoder.step(every, ticket)
        assert expected.isnan().any()
        torch.testing.assert_close(logits, expected, equal_nan=True)


def test_no_rows_are_legal():
    decoder = CachedDecoder(model_of(), rows=3, capacity=30)
    empty = torch.zeros(0, dtype=torch.int64)
    logits, _ = decoder.step(empty, decoder.initial_state(0))
    assert logits.shape == (0, V)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: CachedDecoder(nn.Linear(2, 2), rows=1, capacity=1), TypeError,
         "`model` must be a TransformerLM or a LanguageModel over a Transformer"),
        (lambda m: CachedDecoder(m, rows=0, capacity=1), ValueError, "`rows`"),
        (lambda m: CachedDecoder(m, rows=1, capacity=0), ValueError, "`capacity`"),
        (lambda m: CachedDecoder(m, rows=1, capacity=65), ValueError,
         "`capacity` must be at most 64"),
        (lambda m: CachedDecoder(m, rows=1, capacity=9).initial_state(2), ValueError,
         "there are rows=1 rows, got a batch of 2"),
        (lambda m: CachedDecoder(m, rows=1, capacity=9).read(TOKENS), ValueError,
         "there are rows=1 rows, got a batch of 3"),
        (lambda m: CachedDecoder(m, rows=3, capacity=9).read(TOKENS, LENGTHS - 1),
         ValueError, "each row must have at least 1 token"),
        (lambda m: CachedDecoder(m, rows=3, capacity=9).read(TOKENS + 9), ValueError,
         "`tokens` must lie in 0 to 10"),
        (lambda m: CachedDecoder(m, rows=3, capacity=9).step(TOKENS[:, 0], ()),
         TypeError, "`state` must be a CacheTicket"),
        (lambda m: CachedDecoder(m, rows=3, capacity=9).step(
            TOKENS[:, 0], CacheTicket(LENGTHS[:2], LENGTHS)), ValueError, "state.row"),
        (lambda m: CachedDecoder(m, rows=3, capacity=9).rewind(1), ValueError,
         "`length` must be at most 0"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call(model_of())


@pytest.mark.errors
def test_a_layer_without_a_cache_is_named():
    from seqref import LSTM

    block = PreNormBlock(LSTM(D, D), FeedForward(D, 24))
    model = TransformerLM(V, Transformer([block]))
    with pytest.raises(TypeError, match="blocks with MultiHeadAttention, got LSTM"):
        CachedDecoder(model, rows=1, capacity=8)
