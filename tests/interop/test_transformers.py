"""Models of the library transformers, with random weights, as those of seqref."""

import copy

import pytest
import torch

from seqref.decoding import greedy
from seqref.interop import from_left_padding, from_transformers, to_left_padding
from seqref.interop.transformers import translated
from seqref.models import MaskedLM, TransformerLM
from seqref.recurrence import select_rows
from seqref.testing import (
    check_cached_continuation,
    check_state_carry,
    check_state_fork,
)

transformers = pytest.importorskip("transformers")

VOCAB, TIME = 11, 7
LENGTHS = torch.tensor([7, 4, 2])
MASK = (torch.arange(TIME) < LENGTHS[:, None]).long()


def gpt2(**options):
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=20,
        n_embd=8,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        **options,
    )
    return transformers.GPT2LMHeadModel(config)


def llama(**options):
    given = {"num_key_value_heads": 2, **options}
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        **given,
    )
    return transformers.LlamaForCausalLM(config)


def mamba(**options):
    config = transformers.MambaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
        time_step_rank=3,
        # In float32 whatever the dtype, if it is left on.
        residual_in_fp32=False,
        **options,
    )
    return transformers.MambaForCausalLM(config)


def bert(**options):
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=20,
        **options,
    )
    return transformers.BertForMaskedLM(config)


MODELS = {
    "gpt2": gpt2,
    "gpt2, relu, narrow": lambda: gpt2(activation_function="relu", n_inner=12),
    "gpt2, free head": lambda: gpt2(tie_word_embeddings=False),
    "llama": llama,
    "llama, one key head": lambda: llama(num_key_value_heads=1),
    "llama, biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama, tied": lambda: llama(tie_word_embeddings=True),
    "llama, wide heads": lambda: llama(head_dim=6),
    "llama, other base": lambda: llama(
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}
    ),
    "mamba": mamba,
    "mamba, biases": lambda: mamba(use_bias=True, use_conv_bias=False),
    "mamba, free head": lambda: mamba(tie_word_embeddings=False, conv_kernel=2),
    "bert": bert,
    "bert, relu": lambda: bert(hidden_act="relu"),
}


def made(name, dtype=torch.float64):
    """With weights of which none is a constant, in evaluation."""
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.to(dtype).eval()


def tokens(seed=1):
    # Token 0 is BERT's padding token: its input has no gradient there.
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCAB, (len(LENGTHS), TIME), generator=generator)


def scores(model, x, lengths=LENGTHS, **options):
    result = model(x, lengths=lengths, **options)
    return result[0] if isinstance(result, tuple) else result


def close(got, expected, name, dtype=torch.float64):
    # Norms of Llama and Mamba, and other parts, are in float32 whatever the dtype.
    exact = dtype == torch.float64 and not name.startswith(("llama", "mamba"))
    bound = 1e-10 if exact else 2e-5
    # Mamba's logits are cast to float32 at the end.
    same = not name.startswith("mamba")
    torch.testing.assert_close(got, expected, rtol=bound, atol=bound, check_dtype=same)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_the_library_s(name, dtype):
    theirs = made(name, dtype)
    ours = from_transformers(theirs)
    x = tokens()
    logits = theirs(x, attention_mask=MASK).logits * MASK[..., None]
    got = scores(ours, x)
    close(got, logits, name, dtype)
    upstream = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    for values in (logits, got):
        (values * upstream.to(dtype)).sum().backward()
    wanted = {n: p.grad for n, p in theirs.named_parameters()}
    gradients = {n: p.grad for n, p in ours.named_parameters()}
    wanted = translated(theirs, wanted)
    assert wanted.keys() == gradients.keys()
    for parameter, gradient in gradients.items():
        close(gradient, wanted[parameter], name, dtype)


def test_the_kind_and_the_mode_are_those_of_the_model():
    random = torch.get_rng_state()
    for name, kind in (("gpt2", TransformerLM), ("bert", MaskedLM)):
        theirs = made(name)
        torch.set_rng_state(random)
        ours = from_transformers(theirs)
        assert torch.equal(torch.get_rng_state(), random)
        assert type(ours) is kind
        assert not ours.training
        assert from_transformers(theirs.train()).training
        # Copies: what happens to the one does not happen to the other.
        before = ours.embedding.weight.clone()
        with torch.no_grad():
            next(theirs.parameters()).zero_()
        assert torch.equal(ours.embedding.weight, before)
        assert all(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("name", ["gpt2", "llama", "mamba"])
def test_greedy_writes_what_generate_writes(name):
    theirs = made(name)
    ours = from_transformers(theirs)
    start = torch.tensor([3])
    written = greedy(ours, start, max_length=8).tokens
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    expected = theirs.generate(
        start[:, None], attention_mask=torch.ones(1, 1).long(), **options
    )
    assert written.tolist() == expected[:, 1:].tolist()


@pytest.mark.parametrize("name", ["gpt2", "llama", "mamba"])
def test_left_padding_goes_through_a_shift_of_rows(name):
    theirs = made(name)
    x = tokens()
    left, mask = to_left_padding(x, LENGTHS)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    logits = theirs(left, attention_mask=mask, position_ids=places).logits
    shifted, lengths = from_left_padding(left, mask)
    assert lengths.tolist() == LENGTHS.tolist()
    ours = scores(from_transformers(theirs), shifted, lengths)
    back, _ = to_left_padding(ours, lengths)
    close(back, logits * mask[..., None], name)


def test_bert_takes_segments():
    theirs = made("bert")
    x = tokens()
    kinds = (torch.arange(TIME) % 2).expand_as(x)
    expected = theirs(x, attention_mask=MASK, token_type_ids=kinds).logits
    got = scores(from_transformers(theirs), x, segments=kinds)
    close(got, expected * MASK[..., None], "bert")


def test_berts_padding_token_gets_the_gradient_of_its_input_here_alone():
    theirs = made("bert")
    ours = from_transformers(theirs)
    x = tokens()
    x[0, 2] = 0
    for logits in (theirs(x, attention_mask=MASK).logits, scores(ours, x)):
        (logits * MASK[..., None]).square().sum().backward()
    wanted = translated(theirs, {n: p.grad for n, p in theirs.named_parameters()})
    difference = wanted["embedding.weight"] - ours.embedding.weight.grad
    close(difference[1:], torch.zeros_like(difference[1:]), "bert")
    assert difference[0].abs().max() > 1e-3


REFUSED = {
    "scale_attn_weights": lambda: gpt2(scale_attn_weights=False),
    "scale_attn_by_inverse": lambda: gpt2(scale_attn_by_inverse_layer_idx=True),
    "activation must be one of": lambda: gpt2(activation_function="tanh"),
    "rope_type 'default'": lambda: llama(
        rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    ),
    "`config.hidden_act` must be 'silu'": lambda: mamba(hidden_act="gelu"),
    "`config.is_decoder` must be False": lambda: bert(is_decoder=True),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_equal_is_refused(message):
    with pytest.raises(ValueError, match=message):
        from_transformers(REFUSED[message]())


def test_tensors_without_a_place_are_named():
    more = gpt2()
    more.transformer.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"without a place here: transformer\.extra"):
        from_transformers(more)
    fewer = gpt2()
    del fewer.transformer.ln_f.bias
    with pytest.raises(ValueError, match=r"no tensor 'transformer\.ln_f\.bias'"):
        from_transformers(fewer)
    other = gpt2()
    other.transformer.ln_f = torch.nn.LayerNorm(5)
    with pytest.raises(ValueError, match=r"last_norm\.weight: \(8,\) here, \(5,\)"):
        from_transformers(other)


@pytest.mark.errors
def test_other_models_are_refused():
    with pytest.raises(TypeError, match="one of transformers' GPT2LMHeadModel"):
        from_transformers(torch.nn.Linear(2, 2))
    headless = gpt2().transformer
    with pytest.raises(TypeError, match=r"got .*GPT2Model"):
        from_transformers(headless)
    with pytest.raises(TypeError, match="one of transformers'"):
        translated(headless, {})


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gpt2", "lm_head.weight"),
        ("llama, tied", "lm_head.weight"),
        ("mamba", "lm_head.weight"),
        ("bert", "cls.predictions.decoder.weight"),
        ("bert", "cls.predictions.decoder.bias"),
    ],
)
def test_a_head_that_is_not_what_it_is_tied_to_is_refused(name, part):
    theirs = made(name)
    module, _, leaf = part.rpartition(".")
    holder = theirs.get_submodule(module)
    setattr(holder, leaf, torch.nn.Parameter(getattr(holder, leaf) + 1))
    with pytest.raises(ValueError, match="must be the tensor that it is tied to"):
        from_transformers(theirs)


DIRECTIONS = [("gpt2", False), ("llama", False), ("bert", True)]


@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
def test_the_other_direction_is_refused(name, causal):
    theirs = made(name)
    theirs.config.is_causal = causal
    with pytest.raises(ValueError, match=r"`config\.is_causal` must be"):
        from_transformers(theirs)


@pytest.mark.errors
def test_what_is_no_left_padded_batch_is_named():
    with pytest.raises(ValueError, match="`x` must have shape"):
        from_left_padding(torch.zeros(3), torch.ones(3, 1).long())
    with pytest.raises(TypeError, match="`attention_mask` must hold integers"):
        from_left_padding(torch.zeros(1, 3), torch.tensor([[0.0, 0.9, 1.0]]))


@pytest.mark.parametrize("model", [gpt2, llama])
def test_its_cache_is_written_in_place_and_beams_must_copy_it(model):
    """As the page of the bug museum says: one sequence is right, a fork is not."""

    def call(model, ids, cache):
        out = model(ids, cache=cache, use_cache=True)
        return out.logits, out.cache

    def copied(model, ids, cache):
        # Tensors of a graph cannot be copied.
        with torch.no_grad():
            return call(model, ids, copy.deepcopy(cache))

    ids = torch.randint(VOCAB, (3, 5), generator=torch.Generator().manual_seed(0))
    its = model()
    check_state_carry(its, ids, call=call)
    with pytest.raises(AssertionError, match=r"^state fork: "):
        check_state_fork(its, ids, call=call)
    assert check_state_fork(its, ids, call=copied) is None


def with_mask(model, ids, state, lengths):
    """Positions and mask of a padded prompt, and of what follows."""
    if state is None:
        cache, mask = None, torch.arange(ids.shape[1]) < lengths[:, None]
    else:
        cache, mask = state[0], torch.cat([state[1], state[1][:, :1]], dim=1)
    places = mask.cumsum(1)[:, -ids.shape[1] :] - 1
    options = {"attention_mask": mask.long(), "position_ids": places}
    out = model(ids, cache=cache, use_cache=True, **options)
    return out.logits, (out.cache, mask)


def mamba_call(model, ids, state, lengths):
    """As its documentation has it: a mask with the prompt, and none with a step."""
    mask = None
    if lengths is not None:
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    out = model(ids, cache=state, attention_mask=mask, use_cache=True)
    return out.logits, out.cache


def test_a_padded_prompt_leaves_their_transformers_right_and_their_mamba_wrong():
    x, lengths = tokens(), torch.tensor([5, 2, 4])
    for name in ("gpt2", "llama"):
        options = {"call": with_mask, "dtype": torch.float32}
        check_cached_continuation(made(name), x, lengths, **options)
    theirs = made("mamba")
    message = r"^cached continuation: .* after a prompt that is padded on the right in"
    with pytest.raises(AssertionError, match=message):
        check_cached_continuation(
            theirs, x, lengths, call=mamba_call, dtype=torch.float32
        )
    check_cached_continuation(from_transformers(theirs), x, lengths)


def test_their_mamba_ignores_its_state_in_a_second_call_of_several_tokens():
    def call(model, ids, cache):
        out = model(ids, cache=cache, use_cache=True)
        return out.logits, out.cache

    x = tokens()
    theirs = made("mamba", torch.float32)
    with pytest.raises(AssertionError, match=r"^state carry: "):
        check_state_carry(theirs, x, call=call, dtype=torch.float32)
    ours = from_transformers(theirs)
    check_state_carry(ours, x)
    check_state_fork(ours, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cached_steps_of_mamba_are_the_library_s_row_by_row(dtype):
    """Prompts without padding, one at a time, as theirs needs them."""
    theirs = made("mamba", dtype)
    ours = from_transformers(theirs)
    x = tokens()
    logits, state = ours(x[:, :5], lengths=torch.tensor([5, 2, 4]))
    for r, n in enumerate((5, 2, 4)):
        out = theirs(x[r : r + 1, :n], use_cache=True)
        close(logits[r : r + 1, :n], out.logits, "mamba", dtype)
        row = select_rows(state, torch.tensor([r]))
        for t in range(5, TIME):
            out = theirs(x[r : r + 1, t : t + 1], cache=out.cache, use_cache=True)
            scores_t, row = ours.step(x[r : r + 1, t], row)
            close(scores_t, out.logits[:, 0], "mamba", dtype)
