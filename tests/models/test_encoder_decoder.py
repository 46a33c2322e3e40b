"""Encoder-decoders against loops written from the papers, and what each must hold."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from seqref import (
    GRU,
    LSTM,
    RNN,
    AdditiveAttention,
    Bidirectional,
    ChoGRU,
    GRUState,
    LSTMState,
    MultiplicativeAttention,
    Stacked,
)
from seqref.decoding import beam_search, greedy
from seqref.models import (
    GNMT,
    BahdanauDecoder,
    BoundDecoder,
    EncoderDecoder,
    FinalState,
    GNMTDecoder,
    LuongDecoder,
    PlainDecoder,
    TanhBridge,
)
from seqref.recurrence import map_state, output_width, select_rows
from seqref.testing import (
    check_padding_invariance,
    check_sequence_layer,
    check_source_dependence,
    check_target_shift,
)
from tests.layers import CAUSAL, LAYERS

SOURCES, TARGETS = 9, 7
EMBEDDING, HIDDEN, MEMORY = 3, 5, 8


def both_ways():
    return Bidirectional(GRU(4, 4), GRU(4, 4))


def attention(hidden=HIDDEN):
    return AdditiveAttention(hidden, MEMORY, 4)


def plain():
    encoder, layer = LSTM(4, HIDDEN), LSTM(EMBEDDING, HIDDEN)
    return EncoderDecoder(SOURCES, TARGETS, encoder, layer, hand_over=FinalState())


def stacked():
    def stack(width):
        return Stacked([LSTM(width, HIDDEN), GRU(HIDDEN, HIDDEN)])

    encoder, layer = stack(4), stack(EMBEDDING)
    return EncoderDecoder(SOURCES, TARGETS, encoder, layer, hand_over=FinalState())


def bahdanau(kind=ChoGRU):
    encoder, layer = both_ways(), kind(EMBEDDING + MEMORY, HIDDEN)
    decoder = BahdanauDecoder(layer, attention(), 6)
    bridge = TanhBridge(encoder, layer)
    return EncoderDecoder(SOURCES, TARGETS, encoder, decoder, hand_over=bridge)


def luong(**options):
    encoder, layer = both_ways(), LSTM(EMBEDDING + 6, HIDDEN)
    asked = MultiplicativeAttention(HIDDEN, MEMORY, **options)
    decoder = LuongDecoder(layer, asked, 6)
    bridge = TanhBridge(encoder, layer)
    return EncoderDecoder(SOURCES, TARGETS, encoder, decoder, hand_over=bridge)


def gnmt():
    return GNMT(SOURCES, TARGETS, hidden_size=4, num_layers=4)


MODELS = {
    "plain": plain,
    "stacked": stacked,
    "bahdanau": bahdanau,
    "bahdanau over an LSTM": lambda: bahdanau(LSTM),
    "luong": luong,
    "luong, local": lambda: luong(window="monotonic", half_width=2),
    "gnmt": gnmt,
}
WITH_ATTENTION = [name for name in MODELS if name not in ("plain", "stacked")]


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().double()


@pytest.fixture(params=WITH_ATTENTION)
def attending(request):
    torch.manual_seed(0)
    return MODELS[request.param]().double()


def draw(high, *shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, shape, generator=generator)


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def local_m():
    return MultiplicativeAttention(HIDDEN, MEMORY, window="monotonic", half_width=2)


# Decoders as layers.

MULTIPLICATIVE = {
    "general": {},
    "location": {"score": "location", "max_source": 6},
    "monotonic": {"window": "monotonic", "half_width": 2},
    "predictive": {"window": "predictive", "half_width": 2},
}


def decoders():
    torch.manual_seed(0)
    yield "plain", PlainDecoder(LSTM(EMBEDDING, HIDDEN))
    for kind in (ChoGRU, GRU, LSTM):
        layer = kind(EMBEDDING + MEMORY, HIDDEN)
        yield f"bahdanau over {kind.__name__}", BahdanauDecoder(layer, attention(), 6)
    for kind in (LSTM, RNN):
        layer = kind(EMBEDDING + 6, HIDDEN)
        yield f"luong over {kind.__name__}", LuongDecoder(layer, attention(), 6)
    for name, options in MULTIPLICATIVE.items():
        layer = LSTM(EMBEDDING + 6, HIDDEN)
        asked = MultiplicativeAttention(HIDDEN, MEMORY, **options)
        yield f"luong, {name}", LuongDecoder(layer, asked, 6)
    yield "gnmt", GNMTDecoder(EMBEDDING, HIDDEN, attention(), 4)
    for window in (None, "predictive"):
        options = {"window": window, "half_width": window and 2}
        asked = MultiplicativeAttention(HIDDEN, MEMORY, **options)
        layer = ChoGRU(EMBEDDING + MEMORY, HIDDEN)
        yield f"bahdanau, {window}", BahdanauDecoder(layer, asked, 6)
        asked = MultiplicativeAttention(HIDDEN, MEMORY, **options)
        yield f"gnmt, {window}", GNMTDecoder(EMBEDDING, HIDDEN, asked, 3)


DECODERS = dict(decoders())


@pytest.fixture(params=DECODERS)
def decoder(request):
    return DECODERS[request.param].double()


def source(rows=3):
    generator = torch.Generator().manual_seed(2)
    memory = torch.randn(rows, 6, MEMORY, dtype=torch.float64, generator=generator)
    return memory, torch.tensor([6, 4, 2][:rows])


def test_contract(decoder):
    # One source for all rows: the contract tries them alone, and in other numbers.
    memory, lengths = source(1)
    with torch.no_grad():
        bound = decoder.attend(memory, lengths - 1)
    assert check_sequence_layer(bound, torch.randn(2, 13, EMBEDDING)).skipped == {}


def test_each_row_attends_to_its_own_source(decoder):
    memory, lengths = source()
    x = torch.randn(3, 5, EMBEDDING, dtype=torch.float64)
    whole, _ = decoder.attend(memory, lengths)(x)
    for row, length in enumerate(lengths.tolist()):
        alone = decoder.attend(memory[row : row + 1, :length])
        close(whole[row : row + 1], alone(x[row : row + 1])[0])


def test_rows_of_a_source_stand_next_to_each_other(decoder):
    memory, lengths = source()
    x = torch.randn(6, 5, EMBEDDING, dtype=torch.float64)
    bound = decoder.attend(memory, lengths)
    twice = decoder.attend(memory.repeat_interleave(2, 0), lengths.repeat_interleave(2))
    close(bound(x)[0], twice(x)[0])
    y_t, _ = bound.step(x[:, 0], bound.initial_state(6))
    close(y_t, twice(x)[0][:, 0])


def test_a_first_state_is_repeated_for_the_rows_of_its_source():
    decoder = DECODERS["luong over LSTM"].double()
    memory, lengths = source(2)
    h, c = torch.randn(2, 2, HIDDEN, dtype=torch.float64)
    bound = decoder.attend(memory, lengths, LSTMState(h, c))
    assert torch.equal(bound.initial_state(2).layer.h, h)
    assert torch.equal(bound.initial_state(6).layer.c, c.repeat_interleave(3, 0))


def test_weights_are_those_of_the_steps(attending):
    src, lengths = draw(SOURCES, 3, 6), torch.tensor([6, 4, 0])
    tokens, steps = draw(TARGETS, 3, 5), torch.tensor([5, 3, 5])
    bound = attending.attend(src, lengths)
    weights = bound.align(tokens, None, steps)
    state = bound.initial_state(3)
    for t in range(5):
        _, state = bound.step(tokens[:, t], state)
        reads = steps > t
        close(weights[:, t], state.weights.masked_fill(~reads[:, None], 0.0))
    sums = torch.where(torch.arange(5) < steps[:, None], 1.0, 0.0).double()
    sums[2] = 0.0  # no source
    close(weights.sum(-1), sums)
    assert (weights[1, :, 4:] == 0).all()


# The published equations, written again with torch alone.


def test_bahdanau_equals_the_paper():
    torch.manual_seed(0)
    model = bahdanau().double()
    decoder, layer = model.decoder, model.decoder.layer
    src, tokens = draw(SOURCES, 2, 6), draw(TARGETS, 2, 4)
    memory, state = model.encode(src)
    bridge = model.hand_over.maps[0]
    s_t = torch.tanh(state.backward.h @ bridge.weight.T + bridge.bias)
    w_r, w_z, w_n = layer.cell.weight_ih.chunk(3)
    u_r, u_z, u_n = layer.cell.weight_hh.chunk(3)
    b_r, b_z, b_n = layer.cell.bias_ih.chunk(3)
    d_r, d_z, d_n = layer.cell.bias_hh.chunk(3)
    query, key, score = (
        decoder.attention.weight_query,
        decoder.attention.weight_key,
        decoder.attention.weight_score,
    )
    logits = []
    for t in range(4):
        word = model.target_embedding.weight[tokens[:, t]]
        e = torch.tanh((s_t @ query.T)[:, None] + memory @ key.T) @ score
        c = (e.softmax(1)[..., None] * memory).sum(1)
        v = torch.cat([word, c], 1)
        r = torch.sigmoid(v @ w_r.T + b_r + s_t @ u_r.T + d_r)
        z = torch.sigmoid(v @ w_z.T + b_z + s_t @ u_z.T + d_z)
        n = torch.tanh(v @ w_n.T + b_n + (r * s_t) @ u_n.T + d_n)
        pairs = torch.cat([s_t, word, c], 1) @ decoder.readout.weight.T
        pairs = pairs + decoder.readout.bias
        maxout = torch.maximum(pairs[:, 0::2], pairs[:, 1::2])
        logits.append(maxout @ model.head.weight.T + model.head.bias)
        s_t = (1 - z) * n + z * s_t
    close(model(src, tokens), torch.stack(logits, 1))


def test_luong_equals_the_paper():
    torch.manual_seed(0)
    model = luong().double()
    decoder = model.decoder
    src, tokens = draw(SOURCES, 2, 6), draw(TARGETS, 2, 4)
    memory, state = model.encode(src)
    maps = model.hand_over.maps
    h, c = (torch.tanh(m(state.backward.h)) for m in maps)
    cell = nn.LSTMCell(EMBEDDING + 6, HIDDEN).double()
    cell.load_state_dict(decoder.layer.cell.state_dict())
    general = decoder.attention.scores.weight_key
    tilde = torch.zeros(2, 6, dtype=torch.float64)
    logits = []
    for t in range(4):
        word = model.target_embedding.weight[tokens[:, t]]
        h, c = cell(torch.cat([word, tilde], 1), (h, c))
        scores = torch.einsum("bd,de,bse->bs", h, general, memory)
        context = (scores.softmax(1)[..., None] * memory).sum(1)
        tilde = torch.tanh(torch.cat([context, h], 1) @ decoder.combine.weight.T)
        logits.append(tilde @ model.head.weight.T + model.head.bias)
    close(model(src, tokens), torch.stack(logits, 1))


def test_plain_equals_torch():
    torch.manual_seed(0)
    model = plain().double()
    src, tokens = draw(SOURCES, 3, 6), draw(TARGETS, 3, 4)
    lengths = torch.tensor([2, 6, 4])
    encoder, decoder = (
        nn.LSTM(width, HIDDEN, batch_first=True).double() for width in (4, EMBEDDING)
    )
    for ours, theirs in ((model.encoder, encoder), (model.decoder.layer, decoder)):
        weights = {f"{name}_l0": w for name, w in ours.cell.state_dict().items()}
        theirs.load_state_dict(weights)
    embedded = model.source_embedding(src)
    packed = nn.utils.rnn.pack_padded_sequence(
        embedded, lengths, batch_first=True, enforce_sorted=False
    )
    _, state = encoder(packed)
    y, _ = decoder(model.target_embedding(tokens), state)
    close(model(src, tokens, lengths), model.head(y))


def lstm_of(layer):
    module = nn.LSTM(layer.input_size, layer.hidden_size, batch_first=True).double()
    names = layer.cell.state_dict().items()
    module.load_state_dict({f"{name}_l0": value for name, value in names})
    return module


def test_gnmt_equals_the_paper():
    torch.manual_seed(0)
    model = gnmt().double()
    src, tokens = draw(SOURCES, 2, 6), draw(TARGETS, 2, 4)
    first, second, rest = model.encoder.layers
    x = model.source_embedding(src)
    ahead, _ = lstm_of(first.forward_layer)(x)
    behind, _ = lstm_of(first.backward_layer)(x.flip(1))
    x, _ = lstm_of(second)(torch.cat([ahead, behind.flip(1)], 2))
    assert len(rest.layers) == 2
    for layer in rest.layers:
        x = x + lstm_of(layer)(x)[0]
    modules = [lstm_of(layer) for layer in model.decoder.layers]
    states = [None] * 4
    asked = model.decoder.attention
    bottom = torch.zeros(2, 1, 4, dtype=torch.float64)
    logits = []
    for t in range(4):
        query = bottom @ asked.weight_query.T
        e = torch.tanh(query + x @ asked.weight_key.T) @ asked.weight_score
        context = e.softmax(1)[:, None] @ x
        u, states[0] = modules[0](
            model.target_embedding(tokens[:, t : t + 1]), states[0]
        )
        bottom = u
        for level in (1, 2, 3):
            h, states[level] = modules[level](torch.cat([u, context], 2), states[level])
            u = h + u if level >= 2 else h
        logits.append(model.head(u))
    close(model(src, tokens), torch.cat(logits, 1))


def test_gnmt_has_eight_layers_on_each_side():
    with torch.device("meta"):
        model = GNMT(100, 100)
    first, _, rest = model.encoder.layers
    assert isinstance(first, Bidirectional)
    assert (len(model.encoder.layers) - 1 + len(rest.layers), rest.residual) == (
        8,
        True,
    )
    assert len(model.decoder.layers) == 8
    assert model.decoder.layers[1].input_size == 2048


# What every model must hold.


def test_every_output_reads_all_of_its_source(model):
    check_source_dependence(model, draw(SOURCES, 3, 5), draw(TARGETS, 3, 4))


def test_the_weights_read_the_source(attending):
    check_source_dependence(
        attending,
        draw(SOURCES, 3, 5),
        draw(TARGETS, 3, 4),
        call=lambda model, src, tgt: model.attend(src).align(tgt),
    )


def test_each_prediction_sees_the_targets_before_its_own(model):
    src = draw(SOURCES, 3, 5)
    check_target_shift(
        model, draw(TARGETS, 3, 6), call=lambda m, t: (m(src, t[:, :-1]), t[:, 1:])
    )


def test_padding_of_the_source_is_not_read(model):
    tokens = draw(TARGETS, 1, 4)

    def call(model, src, lengths):
        return model(src, tokens.expand(len(src), -1), lengths)

    check_padding_invariance(
        model, draw(SOURCES, 3, 5), torch.tensor([5, 3, 1]), call=call
    )


def test_padding_of_the_target_is_not_read(model):
    src = draw(SOURCES, 1, 5)

    def call(model, tokens, lengths):
        return model(src.expand(len(tokens), -1), tokens, None, lengths)

    check_padding_invariance(
        model, draw(TARGETS, 3, 5), torch.tensor([5, 3, 1]), call=call
    )


def test_padding_may_hold_any_number_and_gives_zeros(model):
    src, tokens = draw(SOURCES, 2, 5), draw(TARGETS, 2, 4)
    lengths, steps = torch.tensor([5, 3]), torch.tensor([2, 4])
    expected = model(src, tokens, lengths, steps)
    src[1, 3:], tokens[0, 2:] = -100, 10**6
    logits = model(src, tokens, lengths, steps)
    assert torch.equal(logits, expected)
    assert (logits[0, 2:] == 0).all()


def test_a_row_without_a_source_is_finite_and_has_no_gradient(model):
    src, tokens = draw(SOURCES, 2, 5), draw(TARGETS, 2, 4)
    logits = model(src, tokens, torch.tensor([5, 0]))
    assert logits.isfinite().all()
    logits[1].sum().backward()
    assert (model.source_embedding.weight.grad == 0).all()
    assert all(
        p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


def test_every_parameter_gets_a_gradient(model):
    src, tokens = draw(SOURCES, 4, 5), draw(TARGETS, 4, 4)
    weight = torch.randn(4, 4, TARGETS, dtype=torch.float64)
    (model(src, tokens) * weight).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_stepwise_equals_teacher_forcing(model):
    src, tokens = draw(SOURCES, 3, 5), draw(TARGETS, 3, 4)
    lengths = torch.tensor([5, 3, 0])
    logits = model(src, tokens, lengths)
    bound = model.attend(src, lengths)
    state = bound.initial_state(3)
    for t in range(4):
        scores, state = bound.step(tokens[:, t], state)
        close(scores, logits[:, t])


# Decoding.


def test_greedy_writes_what_the_model_finds_likeliest(model):
    src, lengths = draw(SOURCES, 3, 5), torch.tensor([5, 3, 1])
    start = torch.zeros(3, dtype=torch.int64)
    bound = model.attend(src, lengths)
    written = greedy(bound, start, max_length=6).tokens
    logits = model(src, torch.cat([start[:, None], written[:, :-1]], 1), lengths)
    assert torch.equal(written, logits.argmax(-1))


def test_a_beam_scores_by_the_models_own_probabilities(model):
    model.float()
    src, lengths = draw(SOURCES, 2, 5), torch.tensor([5, 3])
    start = torch.zeros(2, dtype=torch.int64)
    best = beam_search(
        model.attend(src, lengths), start, width=TARGETS**3, max_length=3, n_best=4
    )
    for row in range(2):
        words = torch.tensor(list(itertools.product(range(TARGETS), repeat=3)))
        inputs = torch.cat([torch.zeros(len(words), 1).long(), words[:, :-1]], 1)
        rows = src[row : row + 1].expand(len(words), -1)
        logits = model(rows, inputs, lengths[row].expand(len(words)))
        log_p = logits.log_softmax(-1).gather(2, words[..., None]).sum((1, 2))
        top = log_p.topk(4)
        torch.testing.assert_close(
            best.log_probabilities[row], top.values.detach(), rtol=1e-5, atol=1e-5
        )
        assert torch.equal(best.tokens[row], words[top.indices])


def test_coverage_reads_the_weights_from_the_state(attending):
    attending.float()
    src, lengths = draw(SOURCES, 2, 5), torch.tensor([5, 3])
    start = torch.zeros(2, dtype=torch.int64)
    bound = attending.attend(src, lengths)
    best = beam_search(
        bound,
        start,
        width=3,
        max_length=4,
        coverage_penalty=0.2,
        attention=lambda state: state.weights,
        source_lengths=lengths,
    )
    inputs = torch.cat([start[:, None], best.tokens[:, 0, :-1]], 1)
    sums = bound.align(inputs).sum(1).clamp(max=1.0)
    real = torch.arange(5) < lengths[:, None]
    penalty = 0.2 * sums.log().masked_fill(~real, 0.0).sum(1)
    expected = best.log_probabilities[:, 0] + penalty
    torch.testing.assert_close(best.scores[:, 0], expected, rtol=1e-4, atol=1e-4)


def tensors(state):
    """The tensors of a state, in order."""
    parts = []
    map_state(lambda tensor: parts.append(tensor) or tensor, state)
    return parts


def test_beams_share_memory_and_keys():
    """What is held at width 4: one source, and four states a row without it."""
    torch.manual_seed(0)
    bound = bahdanau().attend(draw(SOURCES, 2, 50))
    before = tensors(bound.decoder.source.attended)
    state = bound.initial_state(2)
    state = select_rows(state, torch.arange(2).repeat_interleave(4))
    _, state = bound.step(draw(TARGETS, 8), state)
    held = bound.decoder.source.attended
    assert all(a is b for a, b in zip(tensors(held), before, strict=True))
    floats = sum(part.numel() for part in before if part.is_floating_point())
    assert floats == 2 * 50 * (4 + MEMORY)
    # A copy of the source for each beam would be 50 times its width beside this.
    assert sum(part.numel() for part in tensors(state)) == 8 * (2 * HIDDEN + 50)


def test_nothing_of_the_source_stays_on_the_decoder(attending):
    before = set(vars(attending.decoder)), list(attending.state_dict())
    attending.attend(draw(SOURCES, 2, 5))
    assert (set(vars(attending.decoder)), list(attending.state_dict())) == before
    tensors = [v for v in vars(attending.decoder).values() if torch.is_tensor(v)]
    assert tensors == []


def test_a_bound_decoder_shares_the_parameters(attending):
    bound = attending.attend(draw(SOURCES, 2, 5))
    mine = {id(p) for p in attending.parameters()}
    assert all(id(p) in mine for p in bound.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_bound_decoder_moves_with_its_source(decoder, dtype):
    memory, lengths = source()
    bound = copy.deepcopy(decoder).float().attend(memory.float(), lengths)
    with torch.no_grad():
        bound = bound.to(dtype)
        assert isinstance(bound, BoundDecoder)
        y, _ = bound(torch.randn(3, 2, EMBEDDING, dtype=dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()


def test_a_bound_decoder_is_copied_where_its_source_has_no_graph(decoder):
    memory, lengths = source()
    x = torch.randn(3, 4, decoder.input_size, dtype=memory.dtype)
    bound = decoder.attend(memory, lengths)
    with torch.no_grad():
        ready = decoder.attend(memory, lengths)
        expected, _ = ready(x)
    for other in (copy.deepcopy(ready), pickle.loads(pickle.dumps(ready))):
        close(other(x)[0], expected)
        shared = zip(other.parameters(), ready.parameters(), strict=True)
        assert not any(mine is its for mine, its in shared)
    found = []
    map_state(lambda tensor: found.append(tensor) or tensor, bound.source.attended)
    if all(tensor.is_leaf for tensor in found):
        close(copy.deepcopy(bound)(x)[0], expected)
        return
    message = r"__deepcopy__: the source has a graph.*bind it under torch\.no_grad"
    with pytest.raises(RuntimeError, match=message):
        copy.deepcopy(bound)


def test_a_bound_model_has_the_mode_of_its_parts(model):
    for training in (True, False):
        bound = model.train(training).attend(draw(SOURCES, 2, 5))
        assert all(m.training == training for m in bound.modules())


def test_an_empty_batch_passes(decoder):
    memory, lengths = source()
    bound = decoder.attend(memory[:0], lengths[:0])
    for time in (0, 3):
        x = torch.zeros(0, time, EMBEDDING, dtype=torch.float64)
        y, _ = bound(x, None, lengths[:0])
        assert y.shape == (0, time, decoder.output_size)


# What is handed over.


def test_the_last_state_is_handed_over_h_and_c():
    model = plain()
    src, lengths = draw(SOURCES, 3, 5), torch.tensor([5, 2, 3])
    _, state = model.encode(src, lengths)
    start = model.attend(src, lengths).initial_state(3)
    assert isinstance(start, LSTMState)
    assert torch.equal(start.h, state.h)
    assert torch.equal(start.c, state.c)


def test_a_bridge_reads_the_direction_that_ends_at_the_first_word():
    encoder, layer = both_ways(), GRU(EMBEDDING, HIDDEN)
    bridge = TanhBridge(encoder, layer)
    _, state = encoder(torch.randn(2, 5, 4))
    start = bridge(state)
    assert isinstance(start, GRUState)
    expected = torch.tanh(bridge.maps[0](state.backward.h))
    torch.testing.assert_close(start.h, expected)


# Attention keeps keys and values, and nothing that could be handed over; the state of a
# state space model is complex, or has several numbers for each channel.
STATE_SPACE = ["LRU", "LTI", "Mamba"]
VECTORS = [n for n in CAUSAL if "Attention" not in n and n not in STATE_SPACE]


@pytest.mark.parametrize("name", STATE_SPACE)
def test_a_bridge_is_refused_where_the_state_is_no_vector(name):
    layer = LAYERS[name](EMBEDDING, HIDDEN)
    with pytest.raises(TypeError, match=f"`layer` must have a state .*, got {name}"):
        TanhBridge(both_ways(), layer)


@pytest.mark.parametrize("name", VECTORS)
def test_a_bridge_fits_every_layer(name):
    layer = LAYERS[name](EMBEDDING, HIDDEN)
    encoder = both_ways()
    fresh = layer.initial_state(3)
    start = TanhBridge(encoder, layer)(encoder(torch.randn(3, 5, 4))[1])
    shapes = []
    map_state(lambda a, b: shapes.append((a.shape, b.shape)) or a, start, fresh)
    assert all(one == two for one, two in shapes)
    assert not any(
        torch.equal(getattr(start, f), getattr(fresh, f))
        for f in ("h", "c")
        if hasattr(start, f)
    )


def test_none_starts_from_the_layers_own_state():
    model = EncoderDecoder(
        SOURCES, TARGETS, LSTM(4, 3), LSTM(EMBEDDING, HIDDEN), hand_over=None
    )
    start = model.attend(draw(SOURCES, 2, 5)).initial_state(2)
    assert (start.h == 0).all()


@pytest.mark.parametrize("name", CAUSAL)
def test_both_decoders_run_over_every_layer(name):
    torch.manual_seed(0)
    case = LAYERS[name]
    layer = case(EMBEDDING + MEMORY, HIDDEN)
    other = case(EMBEDDING + 6, HIDDEN)
    width, of_other = output_width(layer), output_width(other)
    memory, lengths = source()
    x = torch.randn(3, 4, EMBEDDING, dtype=torch.float64)
    first = BahdanauDecoder(layer, attention(width), 6)
    second = LuongDecoder(other, attention(of_other), 6)
    for decoder in (first.double().eval(), second.double().eval()):
        bound = decoder.attend(memory, lengths)
        y, last = bound(x, None, torch.tensor([4, 2, 0]))
        state = bound.initial_state(3)
        for t in range(4):
            y_t, state = bound.step(x[:, t], state)
            close(y[0, t], y_t[0])
        close(last.weights[0], state.weights[0])
        assert (y[2] == 0).all()


# Errors in words.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (
            lambda: EncoderDecoder(
                9, 7, both_ways(), LSTM(3, 5), hand_over=FinalState()
            ),
            ValueError,
            r"hand_over.*BidirectionalState.*LSTMState.*TanhBridge",
        ),
        (
            lambda: EncoderDecoder(
                9, 7, LSTM(4, 6), LSTM(3, 5), hand_over=FinalState()
            ),
            ValueError,
            r"got LSTMState\(\(6,\), \(6,\)\) for LSTMState\(\(5,\), \(5,\)\)",
        ),
        (
            lambda: EncoderDecoder(9, 7, LSTM(4, 5), both_ways(), hand_over=None),
            TypeError,
            r"PlainDecoder: `layer` must be causal, and Bidirectional",
        ),
        (
            lambda: EncoderDecoder(9, 7, nn.LSTM(4, 5), LSTM(3, 5), hand_over=None),
            TypeError,
            r"EncoderDecoder: `encoder` must be a layer.*got LSTM",
        ),
        (
            lambda: EncoderDecoder(0, 7, LSTM(4, 5), LSTM(3, 5), hand_over=None),
            ValueError,
            r"`source_size` must be at least 1, got 0",
        ),
        (
            lambda: BahdanauDecoder(ChoGRU(8, 5), attention(), 6),
            ValueError,
            r"input_size above the attention's memory_size=8.*got 8",
        ),
        (
            lambda: BahdanauDecoder(ChoGRU(11, 4), attention(), 6),
            ValueError,
            r"`attention` must have query_size=4.*got 5",
        ),
        (
            lambda: BahdanauDecoder(ChoGRU(11, 5), nn.Linear(2, 2), 6),
            TypeError,
            r"`attention` must have `prepare`.*got Linear",
        ),
        (
            lambda: BahdanauDecoder(ChoGRU(11, 5), local_m(), 6),
            ValueError,
            r"`attention` must not need the target step.*only LuongDecoder",
        ),
        (
            lambda: GNMTDecoder(3, 5, local_m(), 2),
            ValueError,
            r"GNMTDecoder: `attention` must not need the target step",
        ),
        (
            lambda: EncoderDecoder(
                9, 7, LSTM(4, 6), DECODERS["luong over LSTM"], hand_over=None
            ),
            ValueError,
            r"must have memory_size=6, the width of the encoder's outputs, got 8",
        ),
        (
            lambda: EncoderDecoder(9, 7, LSTM(4, 5), LSTM(3, 5), hand_over=FinalState),
            TypeError,
            r"`hand_over` must be a module, such as FinalState\(\), or None, got Final",
        ),
        (
            lambda: LuongDecoder(LSTM(6, 5), attention(), 6),
            ValueError,
            r"input_size above output_size=6.*got 6",
        ),
        (
            lambda: GNMT(9, 7, 4, 1),
            ValueError,
            r"GNMT: `num_layers`.*at least 2, got 1",
        ),
        (
            lambda: TanhBridge(nn.LSTM(4, 5), LSTM(3, 5)),
            TypeError,
            r"TanhBridge: `encoder` must have `initial_state`.*got LSTM",
        ),
    ],
)
def test_a_model_that_cannot_be_is_refused(make, kind, match):
    with pytest.raises(kind, match=match):
        make()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (
            lambda m: m(draw(9, 2, 5), draw(7, 3, 4)),
            ValueError,
            r"forward: `target` must have shape \(batch=2, time\), got \(3, 4\)",
        ),
        (
            lambda m: m(draw(9, 2, 5), draw(7, 2, 4), torch.tensor([6, 1])),
            ValueError,
            r"forward: `source_lengths` must be at most source=5, got 6",
        ),
        (
            lambda m: m(draw(9, 2, 5), draw(7, 2, 4), None, torch.tensor([-1, 1])),
            ValueError,
            r"forward: `target_lengths` must be at least 0, got -1",
        ),
        (
            lambda m: m(draw(9, 2, 5) + 1, draw(7, 2, 4)),
            ValueError,
            r"forward: `source` must lie in 0 to 8, got . to 9",
        ),
        (
            lambda m: m(draw(9, 2, 5), draw(7, 2, 4).float()),
            TypeError,
            r"forward: `target` must have dtype int64 or int32, got torch.float32",
        ),
        (
            lambda m: m.attend(draw(9, 2, 5)).initial_state(3),
            ValueError,
            r"`batch_size` must be the source's batch=2 or a multiple of it, got 3",
        ),
        (
            lambda m: m.attend(draw(9, 2, 5))(draw(7, 3, 4)),
            ValueError,
            r"`rows of x` must be the source's batch=2 or a multiple of it, got 3",
        ),
        (
            lambda m: m.attend(draw(9, 2, 5)).step(
                draw(7, 2), m.attend(draw(9, 2, 6)).initial_state(2)
            ),
            ValueError,
            r"`state.weights` must have shape \(rows=2, source=5\), got \(2, 6\)",
        ),
        (
            lambda m: m.attend(draw(9, 2, 5))(
                draw(7, 4, 3),
                m.attend(draw(9, 2, 5))
                .initial_state(2)
                ._replace(weights=torch.zeros(4, 5)),
            ),
            ValueError,
            r"each tensor of `state` must have rows=4, got \(2, 5\)",
        ),
        (
            lambda m: m.attend(draw(9, 2, 5)).step(draw(7, 2), (torch.zeros(2, 5),)),
            TypeError,
            r"step: `state` must be BahdanauState, got tuple",
        ),
    ],
)
def test_a_wrong_call_is_an_error_in_words(call, kind, match):
    torch.manual_seed(0)
    with pytest.raises(kind, match=match):
        call(bahdanau())


@pytest.mark.errors
def test_a_decoder_without_attention_has_no_weights():
    with pytest.raises(TypeError, match="PlainDecoder has no attention"):
        plain().attend(draw(SOURCES, 2, 5)).align(draw(TARGETS, 2, 4))
