"""The op: definition, backends, the state, padding, judge, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap

from seqref.ops.short_convolution import BACKENDS, short_convolution
from seqref.ops.short_convolution.reference import short_convolution_step

F64 = torch.float64
LENGTHS = torch.tensor([13, 0, 2])


def case(time=13, channels=5, width=4, dtype=F64, seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (batch, time, channels),
        (channels, width),
        (channels,),
        (batch, width - 1, channels),
    )
    made = [torch.randn(shape, generator=generator, dtype=F64) for shape in shapes]
    return [x.to(dtype).requires_grad_() for x in made]


def with_gradients(tensors, backend=None, **options):
    """Outputs, the new state, and the gradient of each tensor."""
    outputs = short_convolution(*tensors, backend=backend, **options)
    generator = torch.Generator().manual_seed(9)
    upstream = [
        torch.randn(x.shape, generator=generator, dtype=F64).to(x.dtype)
        for x in outputs
    ]
    return *outputs, *torch.autograd.grad(outputs, tensors, upstream)


def close(ours, expected, tolerance=1e-12):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_equals_the_definition(backend, width):
    x, weight, bias, state = case(width=width)
    y, last = short_convolution(x, weight, bias, state, backend=backend)
    window = torch.cat([state, x], dim=1)
    for t in range(13):
        step, state = short_convolution_step(x[:, t], weight, bias, state)
        torch.testing.assert_close(y[:, t], step, atol=1e-12, rtol=1e-12)
        by_hand = bias + sum(weight[:, k] * window[:, t + k] for k in range(width))
        torch.testing.assert_close(step, by_hand, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(last, state, atol=0, rtol=0)


def test_equals_torch():
    """`conv1d` with a group for each channel, and zeros before the sequence."""
    x, weight, bias, _ = case()
    y, _ = short_convolution(x, weight, bias, backend="parallel")
    theirs = F.conv1d(x.mT, weight[:, None], bias, padding=3, groups=5)[..., :13].mT
    close([y], [theirs])


@pytest.mark.parametrize("backend", ["parallel", "torch"])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("time", [2, 3, 13])
def test_backends_agree_in_values_and_gradients(backend, lengths, time):
    made = case(time=time)
    lengths = None if lengths is None else lengths.clamp(max=time)
    expected = with_gradients(made, "reference", lengths=lengths)
    close(with_gradients(made, backend, lengths=lengths), expected)


def test_is_about_as_near_to_float64_as_the_loop():
    """Twice the loop's error and eight roundings of the largest, over five seeds."""
    eps = torch.finfo(torch.float32).eps
    for seed in range(5):
        made = case(200, 8, dtype=torch.float32, seed=seed)
        exact = [x.detach().double().requires_grad_() for x in made]
        truth = with_gradients(exact, "reference")
        ours, loop = with_gradients(made, "parallel"), with_gradients(made, "reference")
        for one, other, true in zip(ours, loop, truth, strict=True):
            error, errors, largest = (
                x.abs().max() for x in (one - true, other - true, true)
            )
            assert error <= 2 * errors + 8 * eps * largest


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_step_sees_a_later_one_nor_another_channel(backend):
    x, weight, bias, state = case()
    y, _ = short_convolution(x, weight, bias, state, backend=backend)
    with torch.no_grad():
        x[:, 7:] = torch.nan
        x[:, :, 2] = torch.inf
    other, _ = short_convolution(x, weight, bias, state, backend=backend)
    rest = [0, 1, 3, 4]
    assert torch.equal(y[:, :7, rest], other[:, :7, rest])
    assert other[:, 7:].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", [0, 1, 2, 6, 13])
def test_parts_with_the_state_between_are_the_whole(backend, cut):
    x, weight, bias, state = case()
    whole = short_convolution(x, weight, bias, state, backend=backend)
    first, state = short_convolution(x[:, :cut], weight, bias, state, backend=backend)
    second, last = short_convolution(x[:, cut:], weight, bias, state, backend=backend)
    close((torch.cat([first, second], dim=1), last), whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_changes_nothing(backend):
    """Also of a row that is shorter than the state."""
    made = case()
    expected = with_gradients(made, backend, lengths=LENGTHS)
    other = [x.detach().clone() for x in made]
    for row, length in enumerate(LENGTHS.tolist()):
        other[0][row, length:] = torch.nan
    ours = with_gradients([x.requires_grad_() for x in other], backend, lengths=LENGTHS)
    for one, same in zip(ours, expected, strict=True):
        assert torch.equal(one, same)
    y, last, grad_x, *_ = ours
    x, _, _, state = made
    for row, length in enumerate(LENGTHS.tolist()):
        assert (y[row, length:] == 0).all()
        assert (grad_x[row, length:] == 0).all()
        inputs = torch.cat([state[row], x[row, :length]])
        assert torch.equal(last[row], inputs[len(inputs) - 3 :])


@pytest.mark.parametrize("backend", ["parallel", "torch"])
def test_gradients_and_theirs(backend):
    made = case(time=5, channels=2, width=3, batch=2)

    def run(*tensors):
        return short_convolution(*tensors, backend=backend)

    assert gradcheck(run, made)
    assert gradgradcheck(run, made)


@pytest.mark.parametrize("at", range(4))
def test_the_gradient_of_one_input_alone(at):
    made = case()
    alone = [x.detach() for x in made]
    alone[at].requires_grad_()
    expected = torch.autograd.grad(
        short_convolution(*made, backend="reference")[0].sum(), made[at]
    )
    close(torch.autograd.grad(short_convolution(*alone)[0].sum(), alone[at]), expected)


def test_gradients_of_several_things_at_once():
    made = case()
    y, _ = short_convolution(*made, backend="parallel")
    upstream = torch.stack([torch.ones_like(y), torch.arange(13.0)[:, None] * y])
    batched = torch.autograd.grad(
        y, made, upstream, is_grads_batched=True, retain_graph=True
    )
    for k, above in enumerate(upstream):
        each = torch.autograd.grad(y, made, above, retain_graph=True)
        close([x[k] for x in batched], each)


def test_vmap_over_a_backward_pass():
    made = case()
    y, _ = short_convolution(*made, backend="parallel")
    upstream = torch.stack([torch.ones_like(y), torch.arange(13.0)[:, None] * y])
    batched = vmap(lambda g: torch.autograd.grad(y, made, g, retain_graph=True))
    for k, above in enumerate(upstream):
        each = torch.autograd.grad(y, made, above, retain_graph=True)
        close([x[k] for x in batched(upstream.detach())], each)


@pytest.mark.parametrize("backend", BACKENDS)
def test_under_autocast_the_dtype_stays(backend):
    made = case(dtype=torch.float32)
    expected = with_gradients(made, backend)
    with torch.autocast("cpu", torch.bfloat16):
        ours = with_gradients(made, backend)
    assert {x.dtype for x in ours} == {torch.float32}
    close(ours, expected, 0.1 if backend == "torch" else 1e-6)


def test_arguments_stay_as_they_are():
    made = case()
    before = [x.detach().clone() for x in made]
    for backend in BACKENDS:
        for length in (13, 0):
            x, weight, bias, state = made
            _, last = short_convolution(
                x[:, :length], weight, bias, state, backend=backend
            )
            last.detach().fill_(7.0)
    for one, other in zip(made, before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["reference", "parallel"])
def test_half_precision_is_computed_in_float32(dtype, backend):
    made = case(dtype=dtype)
    wide = [x.detach().float() for x in made]
    y, last = short_convolution(*made, backend=backend)
    expected, _ = short_convolution(*wide, backend=backend)
    assert y.dtype == last.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    theirs, _ = short_convolution(*made, backend="torch")
    assert theirs.dtype == dtype
    torch.testing.assert_close(theirs, y, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_no_steps_no_rows_no_channels(backend):
    for batch, time, channels in ((3, 0, 5), (0, 4, 5), (3, 4, 0)):
        x, weight, bias, state = case(time, channels, batch=batch)
        y, last = short_convolution(x, weight, bias, state, backend=backend)
        assert y.shape == x.shape
        assert torch.equal(last, state) if time == 0 else last.shape == state.shape
        grads = torch.autograd.grad(y.sum(), (x, weight, bias))
        assert [g.shape for g in grads] == [x.shape, weight.shape, bias.shape]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_bias_and_state(backend):
    x, weight, bias, state = case()
    nothing = torch.zeros_like(bias), torch.zeros_like(state)
    close(
        short_convolution(x, weight, backend=backend),
        short_convolution(x, weight, *nothing, backend=backend),
    )


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_of_functions():
    x, weight, bias, state = (v.detach() for v in case())

    def total(x):
        return short_convolution(x, weight, bias, state)[0].square().sum()

    expected = torch.autograd.functional.jacobian(total, x)
    torch.testing.assert_close(grad(total)(x), expected)
    rows = vmap(lambda x, s: short_convolution(x[None], weight, bias, s[None])[0][0])
    close([rows(x, state)], [short_convolution(x, weight, bias, state)[0]])
    biases = torch.stack([bias, 2 * bias])
    both = vmap(lambda b: short_convolution(x, weight, b, state)[0])(biases)
    close([both[1]], [short_convolution(x, weight, biases[1], state)[0]])
    tangent = torch.ones_like(x)
    torch.testing.assert_close(jvp(total, (x,), (tangent,))[1], expected.sum())


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.")
def test_compile_and_export():
    made = tuple(v.detach() for v in case())
    expected = short_convolution(*made)
    close(torch.compile(short_convolution)(*made), expected)

    class Module(torch.nn.Module):
        def forward(self, x, weight, bias, state):
            return short_convolution(x, weight, bias, state)

    close(torch.export.export(Module(), made).module()(*made), expected)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_runs_at_other_lengths_than_its_own():
    """Also at fewer steps than the state has, of which it has to keep some."""

    class Module(torch.nn.Module):
        def forward(self, x, weight, bias, state):
            return short_convolution(x, weight, bias, state)

    whole, *others = (v.detach() for v in case())
    traced = torch.jit.trace(Module(), (whole, *others), check_trace=False)
    for time in (1, 2, 3, 13):
        x = whole[:, :time]
        close(traced(x, *others), short_convolution(x, *others))


@pytest.mark.compile
def test_an_export_for_every_length():
    class Module(torch.nn.Module):
        def forward(self, x, weight, bias):
            return short_convolution(x, weight, bias)

    x, *others = (v.detach() for v in case()[:3])
    steps = torch.export.Dim("steps", min=2, max=100)
    sizes = {1: steps}, None, None
    made = torch.export.export(Module(), (x, *others), dynamic_shapes=sizes).module()
    for time in (2, 3, 13):
        close(made(x[:, :time], *others), short_convolution(x[:, :time], *others))


@pytest.mark.errors
def test_bad_arguments():
    x, weight, bias, state = case()
    with pytest.raises(ValueError, match="`x` must have shape"):
        short_convolution(x[0], weight, bias, state)
    with pytest.raises(TypeError, match="`x` must have a floating dtype"):
        short_convolution(x.long(), weight, bias, state)
    with pytest.raises(ValueError, match=r"`weight` must have shape \(channels=5, wi"):
        short_convolution(x, weight[:, None], bias, state)
    with pytest.raises(ValueError, match="`weight` must have a width of at least 1"):
        short_convolution(x, weight[:, :0], bias)
    with pytest.raises(ValueError, match=r"`bias` must have shape \(channels=5,\)"):
        short_convolution(x, weight, bias[1:], state)
    with pytest.raises(ValueError, match=r"\(batch=3, width - 1=3, channels=5\)"):
        short_convolution(x, weight, bias, state.mT)
    with pytest.raises(ValueError, match="`weight` must have x's dtype"):
        short_convolution(x, weight.float(), bias, state)
    with pytest.raises(ValueError, match="`lengths` must be at most time=13"):
        short_convolution(x, weight, bias, lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match="`backend` must be"):
        short_convolution(x, weight, bias, backend="triton")
