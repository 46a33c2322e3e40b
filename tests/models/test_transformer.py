"""Transformers against torch.nn's layers, and what blocks, stacks and models hold."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seqref import LSTM, CrossAttention, LearnedPositions, MultiHeadAttention, Rotary
from seqref.decoding import beam_search, greedy, sample
from seqref.models import (
    AddPositions,
    EncoderDecoder,
    FeedForward,
    GatedFeedForward,
    LanguageModel,
    MaskedLM,
    PositionState,
    PostNormBlock,
    PostNormDecoderBlock,
    PreNormBlock,
    PreNormDecoderBlock,
    SinusoidalPositions,
    Transformer,
    TransformerDecoder,
    TransformerLM,
    TransformerSeq2Seq,
    TwoWayAttention,
    gelu_tanh,
)
from seqref.recurrence import map_state, select_rows
from seqref.testing import (
    check_causality,
    check_padding_invariance,
    check_sequence_layer,
    check_source_dependence,
    check_target_shift,
)
from tests.layers import stirred

WIDTH, HEADS, HIDDEN = 8, 2, 12
VOCAB, SOURCES, TARGETS = 11, 9, 7
BLOCKS = {"pre-norm": PreNormBlock, "post-norm": PostNormBlock}
DECODER_BLOCKS = {"pre-norm": PreNormDecoderBlock, "post-norm": PostNormDecoderBlock}


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def draw(high, *shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, shape, generator=generator)


def noise(*shape, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def block(kind=PreNormBlock, network=FeedForward, **options):
    return kind(MultiHeadAttention(WIDTH, HEADS, **options), network(WIDTH, HIDDEN))


def two_way(kind=PostNormBlock, dropout=0.0):
    attention = TwoWayAttention(CrossAttention(WIDTH, HEADS))
    return kind(attention, FeedForward(WIDTH, HIDDEN, F.gelu), dropout=dropout)


def decoder_block(kind=PreNormDecoderBlock):
    return kind(
        MultiHeadAttention(WIDTH, HEADS),
        CrossAttention(WIDTH, HEADS),
        FeedForward(WIDTH, HIDDEN),
    )


def stack(kind=PreNormBlock, depth=2):
    positions = AddPositions(LearnedPositions(40, WIDTH))
    blocks = [block(kind) for _ in range(depth)]
    return Transformer([positions, *blocks], last_norm=nn.LayerNorm(WIDTH))


def rotary_stack():
    def one():
        rotary = Rotary(WIDTH // HEADS)
        attention = MultiHeadAttention(
            WIDTH, HEADS, n_kv_heads=1, bias=False, positions=rotary
        )
        return PreNormBlock(attention, GatedFeedForward(WIDTH, HIDDEN), norm=nn.RMSNorm)

    return Transformer([one(), one()], last_norm=nn.RMSNorm(WIDTH))


def encoder(kind=PostNormBlock):
    positions = AddPositions(SinusoidalPositions(WIDTH), norm=nn.LayerNorm(WIDTH))
    return Transformer([positions, two_way(kind), two_way(kind)])


def decoder(kind=PreNormDecoderBlock, depth=2):
    positions = AddPositions(SinusoidalPositions(WIDTH))
    blocks = [decoder_block(kind) for _ in range(depth)]
    return TransformerDecoder([positions, *blocks], last_norm=nn.LayerNorm(WIDTH))


LAYERS = {
    "pre-norm": block,
    "post-norm": lambda: block(PostNormBlock),
    "gated": lambda: block(network=GatedFeedForward),
    "grouped heads": lambda: block(n_kv_heads=1),
    "over an LSTM": lambda: PreNormBlock(
        LSTM(WIDTH, WIDTH), FeedForward(WIDTH, HIDDEN)
    ),
    "learned positions": lambda: AddPositions(LearnedPositions(40, WIDTH)),
    "sinusoidal positions": lambda: AddPositions(SinusoidalPositions(WIDTH)),
    "stack": stack,
    "post-norm stack": lambda: stack(PostNormBlock),
    "rotary stack": rotary_stack,
}


@pytest.mark.parametrize("name", LAYERS)
def test_contract(name):
    torch.manual_seed(0)
    layer = stirred(LAYERS[name]())
    report = check_sequence_layer(layer, torch.randn(2, 13, WIDTH))
    no_numbers = {"initial state"} if "positions" in name else set()
    assert set(report.skipped) == no_numbers


@pytest.mark.parametrize("kind", DECODER_BLOCKS)
def test_contract_of_a_bound_decoder(kind):
    torch.manual_seed(0)
    bound = stirred(decoder(DECODER_BLOCKS[kind]).double())
    # One source for all rows: the contract tries them alone, and in other numbers.
    with torch.no_grad():
        bound = bound.attend(noise(1, 6, WIDTH), torch.tensor([5]))
    assert check_sequence_layer(bound, torch.randn(2, 13, WIDTH)).skipped == {}


def test_a_layer_over_float32_meets_the_contract():
    torch.manual_seed(0)
    check_sequence_layer(
        stack(), torch.randn(2, 6, WIDTH), dtype=torch.float32, atol=2e-5, rtol=2e-5
    )


# torch.nn as the judge.


def copy_attention(theirs, ours):
    """The weights of torch.nn.MultiheadAttention, for a source in three parts."""
    state = theirs.state_dict()
    if isinstance(ours, CrossAttention):
        parts = state.pop("in_proj_weight").chunk(3)
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        state |= dict(zip(names, parts, strict=True))
    ours.load_state_dict(state)


def attention_gradients(theirs, ours):
    """Pairs of gradients of the same weights."""
    if isinstance(ours, CrossAttention):
        parts = (ours.q_proj_weight, ours.k_proj_weight, ours.v_proj_weight)
        weight = torch.cat([part.grad for part in parts])
    else:
        weight = ours.in_proj_weight.grad
    yield theirs.in_proj_weight.grad, weight
    yield theirs.in_proj_bias.grad, ours.in_proj_bias.grad
    for name in ("weight", "bias"):
        yield getattr(theirs.out_proj, name).grad, getattr(ours.out_proj, name).grad


def copy_rest(theirs, ours, norms):
    pairs = [(theirs.linear1, ours.feed_forward.inward)]
    pairs += [(theirs.linear2, ours.feed_forward.outward)]
    pairs += [(getattr(theirs, a), getattr(ours, b)) for a, b in norms.items()]
    for one, two in pairs:
        two.load_state_dict(one.state_dict())
    return pairs


def check_gradients(pairs, attentions):
    for one, two in pairs:
        for name, parameter in one.named_parameters():
            close(two.get_parameter(name).grad, parameter.grad)
    for theirs, ours in attentions:
        for one, two in attention_gradients(theirs, ours):
            close(two, one)


ENCODER_NORMS = {"norm1": "norm_attention", "norm2": "norm_feed_forward"}
DECODER_NORMS = {
    "norm1": "norm_attention",
    "norm2": "norm_cross_attention",
    "norm3": "norm_feed_forward",
}
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": gelu_tanh}


def their_layer(kind, norm_first, activation):
    """A layer of torch.nn; in training and without dropout it takes no fast path."""
    return kind(
        WIDTH,
        HEADS,
        HIDDEN,
        dropout=0.0,
        activation=ACTIVATIONS[activation],
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
    )


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_block_equals_torch(kind, causal, activation):
    torch.manual_seed(0)
    theirs = their_layer(nn.TransformerEncoderLayer, kind == "pre-norm", activation)
    stirred(theirs)
    attention = MultiHeadAttention(WIDTH, HEADS)
    if not causal:
        attention = TwoWayAttention(CrossAttention(WIDTH, HEADS))
    network = FeedForward(WIDTH, HIDDEN, ACTIVATIONS[activation])
    ours = BLOCKS[kind](attention, network).double()
    inner = attention if causal else attention.attention
    copy_attention(theirs.self_attn, inner)
    pairs = copy_rest(theirs, ours, ENCODER_NORMS)
    lengths = torch.tensor([6, 4, 1])
    padding = torch.arange(6) >= lengths[:, None]
    x = noise(3, 6, WIDTH)
    x_theirs, x_ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else None
    y_theirs = theirs(x_theirs, src_mask=mask, src_key_padding_mask=padding)
    y_theirs = y_theirs.masked_fill(padding[..., None], 0)
    y_ours, _ = ours(x_ours, None, lengths)
    close(y_ours, y_theirs)
    upstream = noise(3, 6, WIDTH, seed=3)
    (y_theirs * upstream).sum().backward()
    (y_ours * upstream).sum().backward()
    close(x_ours.grad, x_theirs.grad)
    check_gradients(pairs, [(theirs.self_attn, inner)])


@pytest.mark.parametrize("kind", DECODER_BLOCKS)
def test_a_decoder_block_equals_torch(kind):
    torch.manual_seed(0)
    theirs = their_layer(nn.TransformerDecoderLayer, kind == "pre-norm", "relu")
    stirred(theirs)
    one = decoder_block(DECODER_BLOCKS[kind]).double()
    copy_attention(theirs.self_attn, one.attention)
    copy_attention(theirs.multihead_attn, one.cross_attention)
    pairs = copy_rest(theirs, one, DECODER_NORMS)
    x, memory = noise(3, 6, WIDTH), noise(3, 5, WIDTH, seed=4)
    lengths = torch.tensor([5, 3, 1])
    padding = torch.arange(5) >= lengths[:, None]
    causal = torch.ones(6, 6, dtype=torch.bool).triu(1)
    m_theirs, m_ours = memory.clone().requires_grad_(), memory.clone().requires_grad_()
    y_theirs = theirs(x, m_theirs, tgt_mask=causal, memory_key_padding_mask=padding)
    y_ours, _ = TransformerDecoder([one]).attend(m_ours, lengths)(x)
    close(y_ours, y_theirs)
    upstream = noise(3, 6, WIDTH, seed=3)
    (y_theirs * upstream).sum().backward()
    (y_ours * upstream).sum().backward()
    close(m_ours.grad, m_theirs.grad)
    attentions = [
        (theirs.self_attn, one.attention),
        (theirs.multihead_attn, one.cross_attention),
    ]
    check_gradients(pairs, attentions)


# torch 2.13 warns of a fast path that pre-norm does not have.
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [False, True])
def test_both_stacks_equal_torchs_transformer(norm_first):
    """It has a norm at both ends even where its blocks are post-norm."""
    torch.manual_seed(0)
    theirs = nn.Transformer(
        WIDTH, HEADS, 2, 2, HIDDEN, 0.0, batch_first=True, norm_first=norm_first
    )
    theirs = stirred(theirs.double())
    kinds = list(BLOCKS)[:: 1 if norm_first else -1]
    kind = kinds[0]
    blocks = [two_way(BLOCKS[kind]) for _ in range(2)]
    for one in blocks:
        one.feed_forward.activation = F.relu
    deep = [decoder_block(DECODER_BLOCKS[kind]) for _ in range(2)]
    ours = Transformer(blocks, last_norm=nn.LayerNorm(WIDTH)).double()
    reads = TransformerDecoder(deep, last_norm=nn.LayerNorm(WIDTH)).double()
    for one, two in zip(theirs.encoder.layers, blocks, strict=True):
        copy_attention(one.self_attn, two.attention.attention)
        copy_rest(one, two, ENCODER_NORMS)
    for one, two in zip(theirs.decoder.layers, deep, strict=True):
        copy_attention(one.self_attn, two.attention)
        copy_attention(one.multihead_attn, two.cross_attention)
        copy_rest(one, two, DECODER_NORMS)
    ours.last_norm.load_state_dict(theirs.encoder.norm.state_dict())
    reads.last_norm.load_state_dict(theirs.decoder.norm.state_dict())
    source, target = noise(3, 5, WIDTH), noise(3, 4, WIDTH, seed=5)
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    expected = theirs(source, target, tgt_mask=causal)
    close(reads.attend(ours(source)[0])(target)[0], expected)


def test_layers_of_torchs_stack_begin_equal():
    """Copies of one layer; nn.Transformer draws them anew. Ours are made one by one."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True)
    first, second = nn.TransformerEncoder(layer, 2).layers
    assert torch.equal(first.linear1.weight, second.linear1.weight)
    assert first.linear1.weight is not second.linear1.weight
    first, second = nn.Transformer(
        WIDTH, HEADS, 2, 2, HIDDEN, batch_first=True
    ).encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    _, first, second = stack().layers
    ours = (one.feed_forward.inward.weight for one in (first, second))
    assert not torch.equal(*ours)


def test_torch_drops_the_causal_hint_where_no_mask_is_given():
    """In evaluation without gradients; elsewhere it asks for the mask."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True).eval()
    x = torch.randn(1, 5, WIDTH)
    with torch.no_grad():
        assert torch.equal(layer(x, is_causal=True), layer(x))
        masked = layer(x, torch.ones(5, 5, dtype=torch.bool).triu(1))
        assert (masked - layer(x)).abs().max() > 0.1
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        layer(x, is_causal=True)


# What blocks and stacks compute, in closed form.


def test_without_weights_pre_norm_is_the_identity_and_post_norm_is_two_norms():
    x = noise(2, 5, WIDTH)
    for kind, expected in (
        (PreNormBlock, x),
        (PostNormBlock, F.layer_norm(F.layer_norm(x, (WIDTH,)), (WIDTH,))),
    ):
        one = block(kind).double()
        with torch.no_grad():
            for name, parameter in one.named_parameters():
                if "norm" not in name:
                    parameter.zero_()
        close(one(x)[0], expected)


def test_the_networks_are_their_formulas():
    x = noise(5, WIDTH)
    plain = FeedForward(WIDTH, HIDDEN, torch.tanh).double()
    w_1, b_1, w_2, b_2 = plain.parameters()
    close(plain(x), torch.tanh(x @ w_1.T + b_1) @ w_2.T + b_2)
    gated = GatedFeedForward(WIDTH, HIDDEN).double()
    w_g, w_1, w_2 = gated.parameters()
    gate = x @ w_g.T
    close(gated(x), (gate * gate.sigmoid() * (x @ w_1.T)) @ w_2.T)
    assert len(list(GatedFeedForward(WIDTH, HIDDEN, bias=True).parameters())) == 6


def test_gelu_by_tanh_is_its_formula_and_not_the_exact_one():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
    close(gelu_tanh(x), x / 2 * (1 + torch.tanh(inner)))
    assert 1e-4 < (gelu_tanh(x) - F.gelu(x)).abs().max() < 1e-3


def test_positions_go_on_where_the_state_stands():
    layer = AddPositions(LearnedPositions(10, WIDTH)).double()
    x = torch.zeros(2, 6, WIDTH, dtype=torch.float64)
    rows = layer.positions.weight
    lengths = torch.tensor([4, 1])
    y, state = layer(x, None, lengths)
    assert state.position.tolist() == [4, 1]
    close(y[0, :4], rows[:4])
    assert not y[0, 4:].any()
    assert not y[1, 1:].any()
    y, state = layer(x[:, :3], state)
    close(y[0], rows[4:7])
    close(y[1], rows[1:4])
    y_t, _ = layer.step(x[:, 0], state)
    close(y_t, rows[[7, 4]])


def test_dropout_acts_in_training_alone_and_where_the_paper_has_it():
    torch.manual_seed(0)
    x = noise(2, 5, WIDTH)
    one = PreNormBlock(
        MultiHeadAttention(WIDTH, HEADS), FeedForward(WIDTH, HIDDEN), dropout=0.5
    ).double()
    assert not torch.equal(one(x)[0], one(x)[0])
    one.eval()
    close(one(x)[0], one(x)[0])
    # What is dropped is a sublayer's output: x itself comes through.
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if "norm" not in name:
                parameter.zero_()
    close(one.train()(x)[0], x)
    network = FeedForward(WIDTH, HIDDEN, dropout=0.5).double()
    assert not torch.equal(network(x), network(x))
    added = AddPositions(SinusoidalPositions(WIDTH), dropout=0.5).double()
    assert (added(x)[0] == 0).any()
    assert not (added.eval()(x)[0] == 0).any()


# Models.


def lm(layer=stack, **options):
    torch.manual_seed(0)
    return TransformerLM(VOCAB, layer(), **options).double()


def masked(n_segments=2):
    torch.manual_seed(0)
    return stirred(MaskedLM(VOCAB, encoder(), n_segments=n_segments).double())


def seq2seq():
    torch.manual_seed(0)
    sizes = WIDTH, HEADS, 2, HIDDEN
    return TransformerSeq2Seq(SOURCES, TARGETS, *sizes, dropout=0.0).double()


def pre_norm_seq2seq():
    torch.manual_seed(0)
    return EncoderDecoder(
        SOURCES, TARGETS, encoder(PreNormBlock), decoder(), hand_over=None
    ).double()


SEQ2SEQ = {"2017": seq2seq, "pre-norm": pre_norm_seq2seq}


@pytest.mark.parametrize("layer", [stack, rotary_stack])
def test_a_language_model_by_step_equals_the_whole(layer):
    model, tokens = lm(layer), draw(VOCAB, 2, 9)
    whole, last = model(tokens)
    state = model.initial_state(2)
    for t in range(9):
        scores, state = model.step(tokens[:, t], state)
        close(scores, whole[:, t])
    map_state(lambda one, two: close(one, two) or one, state, last)
    first, state = model(tokens[:, :4])
    close(torch.cat([first, model(tokens[:, 4:], state)[0]], dim=1), whole)


def test_the_language_model_is_a_language_model_with_another_head():
    layer = stack().double()
    tokens = draw(VOCAB, 2, 9)
    free = LanguageModel(VOCAB, layer)
    head = nn.Linear(WIDTH, VOCAB, dtype=torch.float64)
    ours = TransformerLM(VOCAB, layer, head=head)
    ours.embedding.load_state_dict(free.embedding.state_dict())
    ours.head.load_state_dict(free.head.state_dict())
    close(ours(tokens)[0], free(tokens)[0])
    tied = TransformerLM(VOCAB, layer)
    assert len(list(ours.parameters())) == len(list(tied.parameters())) + 2
    h, _ = layer(tied.embedding(tokens))
    close(tied(tokens)[0], h @ tied.embedding.weight.T)


def test_models_pass_the_checks_of_models():
    model = lm()
    check_causality(model, draw(VOCAB, 2, 7), call=lambda m, x: m(x)[0])
    check_target_shift(model, draw(VOCAB, 2, 7))
    lengths = torch.tensor([6, 4, 2])
    check_padding_invariance(
        model, draw(VOCAB, 3, 6), lengths, call=lambda m, x, n: m(x, None, n)[0]
    )
    check_padding_invariance(
        masked(), draw(VOCAB, 3, 6), lengths, call=lambda m, x, n: m(x, n)
    )


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_models_of_a_source_pass_the_checks_of_models(name):
    model = SEQ2SEQ[name]()
    source, target = draw(SOURCES, 3, 6), draw(TARGETS, 3, 5)
    lengths = torch.tensor([6, 4, 2])
    check_source_dependence(model, source, target)
    check_target_shift(
        model, target, call=lambda m, t: (m(source, t[:, :-1]), t[:, 1:])
    )
    check_padding_invariance(
        model,
        source,
        lengths,
        call=lambda m, x, n: m(x, target[:1].expand(len(x), -1), n),
    )
    check_padding_invariance(
        model,
        target,
        lengths - 1,
        call=lambda m, x, n: m(source[:1].expand(len(x), -1), x, None, n),
    )


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_a_bound_model_by_step_equals_the_whole(name):
    model = SEQ2SEQ[name]()
    source, target = draw(SOURCES, 3, 6), draw(TARGETS, 3, 5)
    lengths = torch.tensor([6, 4, 2])
    whole = model(source, target, lengths)
    bound = model.attend(source, lengths)
    state = bound.initial_state(3)
    for t in range(5):
        scores, state = bound.step(target[:, t], state)
        close(scores, whole[:, t])
    # The memory is in no state: what each layer keeps is of the target alone.
    sizes = {tuple(t.shape) for t in flat(state)}
    assert all(6 not in size[1:] for size in sizes)


def test_beams_share_the_source_of_their_row():
    torch.manual_seed(0)
    reads = stirred(decoder().double())
    memory, lengths = noise(2, 5, WIDTH), torch.tensor([5, 3])
    x = noise(6, 4, WIDTH, seed=6)
    bound = reads.attend(memory, lengths)
    alone = reads.attend(memory.repeat_interleave(3, 0), lengths.repeat_interleave(3))
    close(bound(x)[0], alone(x)[0])
    y_t, _ = bound.step(x[:, 0], bound.initial_state(6))
    close(y_t, alone(x)[0][:, 0])
    with pytest.raises(ValueError, match="a multiple"):
        bound(x[:5])


def flat(state):
    found = []
    map_state(lambda tensor: found.append(tensor) or tensor, state)
    return found


def exhaustive(model, start, length):
    """The likeliest continuation of all, one row."""
    best = None
    for tokens in itertools.product(range(TARGETS), repeat=length):
        state, token, total = model.initial_state(1), start, 0.0
        for following in tokens:
            scores, state = model.step(token, state)
            total = total + scores.log_softmax(-1)[0, following]
            token = torch.tensor([following])
        if best is None or total > best[0]:
            best = total, tokens
    return list(best[1])


def test_the_searches_take_all_models():
    start = torch.tensor([1, 2])
    for model in (lm(), seq2seq().attend(draw(SOURCES, 2, 4), torch.tensor([4, 2]))):
        by_greedy = greedy(model, start, max_length=4)
        one_beam = beam_search(model, start, width=1, max_length=4, end=0)
        stop = int(one_beam.lengths[0, 0])
        drawn = sample(model, start, max_length=4)
        assert by_greedy.tokens.shape == drawn.tokens.shape == (2, 4)
        assert (
            one_beam.tokens[0, 0, :stop].tolist() == by_greedy.tokens[0, :stop].tolist()
        )
    bound = seq2seq().attend(draw(SOURCES, 1, 4))
    wide = beam_search(bound, start[:1], width=49, max_length=3, end=None)
    assert wide.tokens[0, 0].tolist() == exhaustive(bound, start[:1], 3)


def test_rows_of_a_state_can_be_chosen():
    model, tokens = lm(), draw(VOCAB, 3, 5)
    _, state = model(tokens)
    chosen = torch.tensor([2, 0, 0])
    _, expected = model(tokens[chosen])
    one, _ = model.step(tokens[chosen, 0], select_rows(state, chosen))
    close(one, model.step(tokens[chosen, 0], expected)[0])


def test_segments_are_added_and_none_is_the_first():
    model, tokens = masked(), draw(VOCAB, 2, 6)
    lengths = torch.tensor([6, 3])
    zeros = torch.zeros_like(tokens)
    close(model(tokens, lengths), model(tokens, lengths, zeros))
    ones = zeros + 1
    assert (model(tokens, lengths) - model(tokens, lengths, ones)).abs().max() > 1e-3
    ones[1, 3:] = 99
    assert model(tokens, lengths, ones)[1, :3].isfinite().all()
    with pytest.raises(ValueError, match="n_segments=0"):
        masked(0)(tokens, None, zeros)


def test_every_position_of_a_masked_model_reads_both_sides():
    model, tokens = masked(), draw(VOCAB, 1, 6)
    whole = model(tokens)
    for t in range(6):
        other = tokens.clone()
        other[0, t] = (other[0, t] + 1) % VOCAB
        assert ((model(other) - whole).abs().amax(-1) > 1e-9).all()


# Counts.


@pytest.mark.parametrize("width", [16, 32])
def test_a_block_has_twelve_squares_of_weights_and_multiplications(width):
    one = PreNormBlock(MultiHeadAttention(width, 4), FeedForward(width, 4 * width))
    weights = sum(p.numel() for p in one.parameters() if p.dim() == 2)
    assert weights == 12 * width**2
    # Biases: 4 of the projections, 4 + 1 of the network, 2 of each norm and its gain.
    assert sum(p.numel() for p in one.parameters()) == 12 * width**2 + 13 * width
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        one.feed_forward(torch.randn(1, 7, width))
    assert counter.get_total_flops() == 2 * 7 * 8 * width**2


# What is refused.


@pytest.mark.errors
def test_what_reads_both_ways_has_no_step():
    for one in (two_way(), encoder()):
        assert not one.causal
        with pytest.raises(TypeError, match="the inputs that come after"):
            one.step(torch.zeros(2, WIDTH), one.initial_state(2))
        with pytest.raises(TypeError, match="causal = False"):
            TransformerLM(VOCAB, one)
        with pytest.raises(TypeError, match="causal = False"):
            LanguageModel(VOCAB, one)
    with pytest.raises(TypeError, match="use TransformerLM"):
        masked().step(torch.tensor([1]), ())
    with pytest.raises(TypeError, match="`model` must have `initial_state`"):
        greedy(masked(), torch.tensor([1]), max_length=2)


def wrong():
    attention, network = MultiHeadAttention(WIDTH, HEADS), FeedForward(WIDTH, HIDDEN)
    cross = CrossAttention(WIDTH, HEADS)
    one = block()
    yield lambda: PreNormBlock(network, network), "`attention` must be a layer"
    yield lambda: PreNormBlock(LSTM(WIDTH, 5), network), "return its input's width"
    yield (
        lambda: PostNormBlock(attention, FeedForward(5, 5)),
        "must have d_model=8",
    )
    yield lambda: PreNormBlock(attention, network, dropout=1.5), "`dropout`"
    yield (
        lambda: PreNormDecoderBlock(TwoWayAttention(cross), cross, network),
        "must be causal",
    )
    yield (
        lambda: PreNormDecoderBlock(attention, attention, network),
        "`prepare` and `attend`",
    )
    yield lambda: Transformer([]), "at least 1 layer"
    yield lambda: Transformer(one), "pass \\[layer\\]"
    yield lambda: Transformer([one, one]), "module of its own"
    yield lambda: Transformer([one, LSTM(WIDTH, 5)]), "one width"
    yield lambda: Transformer([one, network]), "must be a layer"
    yield lambda: Transformer([one], last_norm=nn.LayerNorm), "must be a module"
    yield lambda: Transformer([decoder_block()]), "use TransformerDecoder"
    yield lambda: TransformerDecoder([one]), "use Transformer"
    yield lambda: TwoWayAttention(attention), "must be a CrossAttention"
    yield (
        lambda: TwoWayAttention(CrossAttention(WIDTH, HEADS, memory_size=5)),
        "must have memory_size=8",
    )
    both = TwoWayAttention(cross)
    yield lambda: both(torch.zeros(2, 3)), "TwoWayAttention.forward: `x` must have"
    yield (
        lambda: both(torch.zeros(2, 3, WIDTH), None, torch.tensor([4, 1])),
        "TwoWayAttention.forward: `lengths` must be at most",
    )
    yield lambda: AddPositions(nn.Linear(2, 2)), "must be a module with `d_model`"
    yield lambda: SinusoidalPositions(7), "must be even"
    yield lambda: FeedForward(WIDTH, HIDDEN, "relu"), "function of a tensor"
    yield lambda: FeedForward(WIDTH, 0), "at least 1"
    yield lambda: network(torch.zeros(2, 5)), "d_model=8"
    yield lambda: TransformerLM(VOCAB, LSTM(WIDTH, 5)), "the embedding scores"
    yield lambda: TransformerLM(VOCAB, one, head=3), "`head` must be a module"
    yield lambda: MaskedLM(VOCAB, network), "`encoder` must be a layer"
    yield lambda: MaskedLM(VOCAB, LSTM(WIDTH, 5)), "return its input's width"
    yield lambda: one(torch.zeros(2, WIDTH)), "must have shape"
    yield lambda: one(torch.zeros(2, 3, WIDTH), None, torch.tensor([4, 1])), "at most"
    yield lambda: stack()(torch.zeros(2, 3, WIDTH), one.initial_state(2)), "tuple of 3"
    yield lambda: stack()(torch.zeros(2, 3, WIDTH), ()), "tuple of 3 states"
    yield (
        lambda: AddPositions(SinusoidalPositions(WIDTH))(torch.zeros(2, 3, WIDTH), ()),
        "must be a PositionState",
    )
    yield (
        lambda: EncoderDecoder(
            SOURCES, TARGETS, LSTM(WIDTH, 5), decoder(), hand_over=None
        ),
        "must have memory_size=5",
    )


@pytest.mark.errors
@pytest.mark.parametrize(("call", "message"), list(wrong()))
def test_bad_arguments(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_state_has_a_row_for_each_of_the_batch():
    state = PositionState(torch.zeros(3, dtype=torch.int64))
    layer = AddPositions(SinusoidalPositions(WIDTH))
    with pytest.raises(ValueError, match=r"`state\.position` must"):
        layer(torch.zeros(2, 3, WIDTH), state)


def test_a_head_of_another_vocabulary_is_named():
    block = PreNormBlock(MultiHeadAttention(8, 2), FeedForward(8, 16))
    head = nn.Linear(8, 5)
    with pytest.raises(ValueError, match="`head` must return vocab_size=11 scores"):
        TransformerLM(11, Transformer([block]), head=head)
