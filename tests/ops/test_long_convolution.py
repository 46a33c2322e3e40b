"""The op: definition, backends, padding, gradients, judge, refusals."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from seqref.ops.long_convolution import BACKENDS, long_convolution, parallel, reference

F64 = torch.float64
LENGTHS = torch.tensor([13, 0, 5])


@pytest.fixture(params=["one block", "blocks and a rest"])
def blocks(request, monkeypatch):
    """All five channels at once, or two at a time."""
    most = {"one block": 32, "blocks and a rest": 2}[request.param]
    monkeypatch.setattr(parallel, "MOST", most)


def case(time=13, channels=5, taps=13, batch=3, dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, time, channels, generator=generator, dtype=F64)
    kernel = torch.randn(channels, taps, generator=generator, dtype=F64)
    return [z.to(dtype).requires_grad_() for z in (x, kernel)]


def with_gradients(tensors, backend=None, **options):
    y = long_convolution(*tensors, backend=backend, **options)
    generator = torch.Generator().manual_seed(9)
    above = torch.randn(y.shape, generator=generator, dtype=F64).to(y.dtype)
    return y, *torch.autograd.grad(y, tensors, above)


def close(ours, expected, tolerance=1e-12):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("taps", [1, 4, 13, 20])
def test_equals_torch(backend, taps, blocks):
    """A convolution of torch with the kernel reversed, each channel a group."""
    x, kernel = case(taps=taps)
    padded = torch.nn.functional.pad(x.mT, (taps - 1, 0))
    judge = torch.nn.functional.conv1d(padded, kernel.flip(1)[:, None], groups=5).mT
    close((long_convolution(x, kernel, backend=backend),), (judge,))


def test_equals_the_sum():
    x, kernel = case(time=7, taps=7)
    y = reference.run(x, kernel)
    for t in range(7):
        y_t = sum(kernel[:, s] * x[:, t - s] for s in range(t + 1))
        torch.testing.assert_close(y[:, t], y_t)


@pytest.mark.parametrize("taps", [1, 6, 13, 20])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_backends_agree_in_values_and_gradients(taps, lengths, blocks):
    made = case(taps=taps)
    expected = with_gradients(made, "reference", lengths=lengths)
    close(with_gradients(made, "parallel", lengths=lengths), expected)


@pytest.mark.parametrize("least", [1, 2, 3, 7, 25, 127, 8191, 9999, 100_003])
def test_sizes_are_even_and_smooth(least):
    size = parallel.fast_size(least)
    assert least <= size < 2 * least + 2
    assert size % 2 == 0
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    assert size == 1


@pytest.mark.parametrize("law", ["normal", "decays", "grows"])
def test_is_about_as_near_to_float64_as_the_sum(law):
    """Twice the sum's error and eight roundings of the largest, over five seeds."""
    time = 400
    slope = {"normal": 0.0, "decays": -0.02, "grows": 0.005}[law]
    for seed in range(5):
        made = case(time, 8, time, 2, torch.float32, seed)
        with torch.no_grad():
            made[1].mul_(torch.exp(slope * torch.arange(time)))
        exact = [z.detach().double().requires_grad_() for z in made]
        truth = with_gradients(exact, "reference")
        ours, its = with_gradients(made, "parallel"), with_gradients(made, "reference")
        for one, other, true in zip(ours, its, truth, strict=True):
            error, bound = (one - true).abs().max(), 2 * (other - true).abs().max()
            assert (
                error <= bound + 8 * torch.finfo(torch.float32).eps * true.abs().max()
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_step_sees_a_later_one(backend, blocks):
    x, kernel = case()
    y = long_convolution(x, kernel, backend=backend)
    with torch.no_grad():
        x[:, 7:] += 1.0
    other = long_convolution(x, kernel, backend=backend)
    torch.testing.assert_close(y[:, :7], other[:, :7], atol=1e-12, rtol=0)
    assert ((y - other)[:, 7:].abs() > 1e-3).any()


def test_a_large_step_is_felt_before_it():
    """Of rounding, and of what is not finite: transforms mix all steps."""
    x, kernel = (z.detach().float() for z in case())
    x[:, 12] = 2.0**30
    sums, ours = (long_convolution(x, kernel, backend=name) for name in BACKENDS)
    error = (ours - sums)[:, :12].abs().max()
    assert 1.0 < error < 2.0**30 * 1e-6
    x[0, 12] = torch.inf
    assert long_convolution(x, kernel, backend="reference")[0, :12].isfinite().all()
    ours = long_convolution(x, kernel, backend="parallel")
    assert not ours[0].isfinite().any()
    assert ours[1:].isfinite().all()


@pytest.mark.parametrize("law", ["grows", "alternates", "decays"])
def test_rounding_has_the_size_of_both_norms(law):
    """Not that of the largest output: of a growing kernel that is cut off."""
    t = torch.arange(64.0)
    kernel = {"grows": 2.0**t, "alternates": (-1.0) ** t, "decays": 0.9**t}[law][None]
    inputs = torch.stack([(t == 63).float(), torch.ones(64), t])[..., None]
    sums = long_convolution(inputs.double(), kernel.double(), backend="reference")
    error = (long_convolution(inputs, kernel) - sums).abs().amax(dim=(1, 2))
    norms = inputs.norm(dim=(1, 2)) * kernel.norm()
    assert (error <= 8 * torch.finfo(torch.float32).eps * norms).all()
    if law == "grows":
        assert sums[0].abs().max() == 1
        assert error[0] > 1e6


def test_only_its_row_and_channel_hears_what_is_not_finite():
    x, kernel = (z.detach() for z in case())
    x[1, 12, 2] = torch.inf
    finite = long_convolution(x, kernel).isfinite()
    assert not finite[1, :, 2].any()
    assert finite.sum() == finite.numel() - 13
    kernel[4, 0] = torch.nan
    finite = long_convolution(x, kernel).isfinite()
    assert not finite[..., 4].any()
    assert finite[0, :, :4].all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_changes_nothing(backend, blocks):
    made = case()
    expected = with_gradients(made, backend, lengths=LENGTHS)
    other = [z.detach().clone() for z in made]
    for row, length in enumerate(LENGTHS.tolist()):
        other[0][row, length:] = torch.nan
    ours = with_gradients([z.requires_grad_() for z in other], backend, lengths=LENGTHS)
    for one, same in zip(ours, expected, strict=True):
        assert torch.equal(one, same)
    for row, length in enumerate(LENGTHS.tolist()):
        for padded in ours[:2]:
            assert (padded[row, length:] == 0).all()


@pytest.mark.parametrize("taps", [1, 3, 5])
def test_gradients_and_theirs(taps, blocks):
    made = case(time=5, channels=3, taps=taps, batch=2)

    def run(*tensors):
        return long_convolution(*tensors, backend="parallel")

    assert gradcheck(run, made)
    assert gradgradcheck(run, made)


@pytest.mark.parametrize("which", [0, 1])
def test_a_gradient_that_is_not_wanted(which, blocks):
    made = case()
    expected = torch.autograd.grad(long_convolution(*made).sum(), made[which])
    made[1 - which].requires_grad_(False)
    close(torch.autograd.grad(long_convolution(*made).sum(), made[which]), expected)


def test_gradients_of_several_things_at_once():
    made = case()
    y = long_convolution(*made)
    above = torch.stack([torch.ones_like(y), torch.arange(13.0)[:, None] * y.detach()])
    batched = torch.autograd.grad(
        y, made, above, is_grads_batched=True, retain_graph=True
    )
    for k, one in enumerate(above):
        close(
            [z[k] for z in batched],
            torch.autograd.grad(y, made, one, retain_graph=True),
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_computed_in_float32(dtype, backend):
    x, kernel = (z.detach() for z in case(dtype=dtype))
    y = long_convolution(x, kernel, backend=backend)
    wide = long_convolution(x.float(), kernel.float(), backend=backend)
    assert y.dtype == dtype
    assert torch.equal(y, wide.to(dtype))


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_no_steps_no_rows_no_channels_no_taps(backend):
    for sizes in ((0, 5, 3, 3), (4, 0, 3, 3), (4, 5, 0, 3), (4, 5, 3, 0)):
        time, channels, taps, batch = sizes
        x, kernel = case(time, channels, taps, batch)
        if backend == "parallel":
            with pytest.raises(RuntimeError, match="the input is empty"):
                long_convolution(x, kernel, backend=backend)
            continue
        y = long_convolution(x, kernel, backend=backend)
        assert y.shape == x.shape
        assert (y == 0).all()


def test_transforms_of_functions():
    x, kernel = (z.detach() for z in case())

    def total(kernel):
        return (long_convolution(x, kernel) ** 2).sum()

    k = kernel.clone().requires_grad_()
    torch.testing.assert_close(grad(total)(kernel), torch.autograd.grad(total(k), k)[0])
    rows = vmap(lambda row: long_convolution(row[None], kernel)[0])(x)
    torch.testing.assert_close(rows, long_convolution(x, kernel))


def test_arguments_stay_as_they_are(blocks):
    made = case()
    before = [z.detach().clone() for z in made]
    with_gradients(made, "parallel")
    for one, other in zip(made, before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.errors
def test_bad_arguments():
    x, kernel = case()
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, time, chann"):
        long_convolution(x[0], kernel)
    with pytest.raises(ValueError, match=r"`kernel` must have shape \(channels=5, ta"):
        long_convolution(x, kernel.T)
    with pytest.raises(TypeError, match="`x` must have one of float16, bfloat16"):
        long_convolution(x.to(torch.complex128), kernel)
    with pytest.raises(ValueError, match="`kernel` must have x's dtype"):
        long_convolution(x, kernel.float())
    with pytest.raises(ValueError, match="`lengths` must be at most time=13"):
        long_convolution(x, kernel, lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match="`backend` must be"):
        long_convolution(x, kernel, backend="fft")
    with pytest.raises(RuntimeError, match=r"torch\.func cannot"):
        grad(lambda k: long_convolution(x, k, backend="parallel").sum())(kernel)
