"""The op: definition, backends, padding, gradients, judges, refusals."""

import importlib
import importlib.util
import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import grad, jvp, vmap

from seqref.ops.linear_scan import BACKENDS, linear_scan, parallel
from seqref.ops.linear_scan.reference import linear_step

F64, C128 = torch.float64, torch.complex128
# Lower and upper bound of uniform decays.
DECAYS = {
    "any": (0.0, 1.0),
    "near 0": (0.0, 1e-3),
    "negative": (-1.0, 1.0),
    "near 1": (0.999, 1.0),
    "nearer 1": (0.9999, 1.0),
    "near -1": (-1.0, -0.999),
    "nearer -1": (-1.0, -0.9999),
    "1": (1.0, 1.0),
    "-1": (-1.0, -1.0),
    "0": (0.0, 0.0),
    "growing": (0.9, 1.1),
}
LENGTHS = torch.tensor([13, 0, 5])
KERNEL = pytest.param("triton", marks=pytest.mark.triton)
FORMS = [KERNEL if name == "triton" else name for name in BACKENDS]
FAST = [name for name in FORMS if name != "reference"]


@pytest.fixture(params=["one chunk", "chunks", "chunks and a rest"])
def chunks(request, monkeypatch):
    """13 steps in one chunk, in chunks of 2 or 4, or of 5."""
    count = {"one chunk": 1, "chunks": 13, "chunks and a rest": 3}[request.param]
    monkeypatch.setattr(parallel, "chunks_of", lambda *_: count)
    # Of the kernel one tile that is not full, full tiles, and those with a rest.
    if kernel := sys.modules.get("seqref.ops.linear_scan.triton"):
        steps = {1: 16, 13: 1, 3: 4}[count]
        monkeypatch.setattr(kernel, "STEPS", steps)
        monkeypatch.setattr(kernel, "FEATURES", 4)


def case(time=13, shape=(5,), dtype=F64, decays=(-1.0, 1.0), seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    exact = C128 if dtype.is_complex else F64

    def draw(*sizes):
        return torch.randn(sizes, generator=generator, dtype=exact)

    low, high = decays
    a = torch.rand((batch, time, *shape), generator=generator, dtype=F64)
    a = (low + (high - low) * a).to(exact)
    if dtype.is_complex:
        a = a * torch.exp(1j * draw(batch, time, *shape).real)
    made = a, draw(batch, time, *shape), draw(batch, *shape)
    return [x.to(dtype).requires_grad_() for x in made]


def with_gradients(tensors, backend=None, **options):
    """States, the last state, and the gradient of each tensor."""
    h, h_n = linear_scan(*tensors, backend=backend, **options)
    generator = torch.Generator().manual_seed(9)
    exact = C128 if h.is_complex() else F64
    upstream = [
        torch.randn(x.shape, generator=generator, dtype=exact).to(x.dtype)
        for x in (h, h_n)
    ]
    return h, h_n, *torch.autograd.grad((h, h_n), tensors, upstream)


def close(ours, expected, tolerance=1e-12):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
@pytest.mark.parametrize("dtype", [F64, C128])
def test_equals_the_definition(backend, shape, dtype, chunks):
    a, b, h_0 = case(shape=shape, dtype=dtype)
    h, h_n = linear_scan(a, b, h_0, backend=backend)
    h_t = h_0
    for t in range(13):
        h_t = linear_step(a[:, t], b[:, t], h_t)
        torch.testing.assert_close(h[:, t], h_t, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(h_n, h_t, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("backend", FAST)
def test_backends_agree_in_values_and_gradients(backend, dtype, lengths, chunks):
    made = case(dtype=dtype)
    expected = with_gradients(made, "reference", lengths=lengths)
    close(with_gradients(made, backend, lengths=lengths), expected)


@pytest.mark.parametrize("time", [1, 2, 7, 64, 1000])
def test_any_length(time):
    made = case(time=time)
    close(with_gradients(made), with_gradients(made, "reference"))


@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("laws", ["a decay a step", "one for all", "signs"])
def test_is_about_as_near_to_float64_as_the_loop(decays, dtype, laws):
    """Twice the loop's error and eight roundings of the largest, over five seeds."""
    eps = torch.finfo(dtype).eps
    time = 4096 if "near" in decays else 400
    made = case(time, (8,), dtype, DECAYS[decays], batch=10)
    with torch.no_grad():
        if laws == "one for all":
            made[0].copy_(made[0][:, :1].expand_as(made[0]))
        elif laws == "signs":
            # Of complex ones the phases of four roots, which a product comes back to.
            turn = 1j if dtype.is_complex else -1
            made[0].copy_(made[0].abs() * turn ** torch.arange(8).expand(time, 8))
    exact = [x.detach().to(C128 if dtype.is_complex else F64) for x in made]
    truth = with_gradients([x.requires_grad_() for x in exact], "reference")
    ours, loop = with_gradients(made, "parallel"), with_gradients(made, "reference")
    for one, other, true in zip(ours, loop, truth, strict=True):
        assert one.isfinite().all()
        # Two rows a seed.
        error, errors, largest = (
            x.abs().unflatten(0, (5, 2)).flatten(1).amax(dim=1)
            for x in (one - true, other - true, true)
        )
        assert (error <= 2 * errors + 8 * eps * largest).all()


@pytest.mark.triton
@pytest.mark.parametrize("decays", ["near 1", "nearer 1", "near -1", "0", "growing"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_kernel_is_about_as_near_to_float64_as_the_loop(decays, dtype):
    """Five seeds as rows; several tiles of the size that is used."""
    eps = torch.finfo(dtype).eps
    made = case(200, (2,), dtype, DECAYS[decays], batch=5)
    exact = [x.detach().to(C128 if dtype.is_complex else F64) for x in made]
    truth = with_gradients([x.requires_grad_() for x in exact], "reference")
    ours, loop = with_gradients(made, "triton"), with_gradients(made, "reference")

    def of_rows(h, h_n, grad_a, grad_b, grad_h_0):
        # What is one vector a row has too few numbers for a largest error.
        joined = (h, h_n[:, None]), (grad_a,), (grad_b, grad_h_0[:, None])
        return [torch.cat(parts, dim=1).flatten(1) for parts in joined]

    for one, other, true in zip(
        *(of_rows(*x) for x in (ours, loop, truth)), strict=True
    ):
        error, errors, largest = (
            x.abs().amax(dim=1) for x in (one - true, other - true, true)
        )
        assert (error <= 2 * errors + 8 * eps * largest).all()


@pytest.mark.triton
def test_the_kernel_hands_on_what_is_no_number():
    a, b, h_0 = (x.detach() for x in case(time=9, shape=(2,), batch=1))
    h_0.zero_()
    a[0, 0, 0], b[0, 4, 1] = torch.nan, torch.nan
    ours, expected = (
        linear_scan(a, b, h_0, backend=name)[0].isnan()
        for name in ("triton", "reference")
    )
    assert torch.equal(ours, expected)
    assert ours.sum() == 9 + 5


def test_small_values_keep_their_digits():
    """A state that decays to nothing does so in both forms."""
    a = torch.full((1, 4096, 3), 0.99)
    h, _ = linear_scan(a, torch.zeros_like(a), torch.ones(1, 3), backend="parallel")
    steps = torch.arange(1, 4097, dtype=F64)
    exact = torch.tensor(0.99).double() ** steps
    torch.testing.assert_close(h[0, :, 0].double(), exact, rtol=1e-4, atol=0)


def test_a_decay_of_zero_forgets_exactly():
    a, b, h_0 = case(time=300, dtype=torch.float32)
    with torch.no_grad():
        a[:, 150] = 0.0
        b[:, :150] *= 1e30
    h, _ = linear_scan(a, b, h_0, backend="parallel")
    alone, _ = linear_scan(a[:, 151:], b[:, 151:], b[:, 150])
    torch.testing.assert_close(h[:, 150], b[:, 150], atol=0, rtol=0)
    torch.testing.assert_close(h[:, 151:], alone)


def test_what_single_precision_cannot_hold_of_a_product():
    """Growth and decay in one chunk, and a reset after growth of nothing."""
    a = torch.full((1, 4096, 1), 0.5)
    a[:, :41] = 10.0
    h_0 = torch.full((1, 1), 1e-30)
    b = torch.zeros_like(a)
    expected, _ = linear_scan(a, b, h_0, backend="reference")
    h, _ = linear_scan(a, b, h_0, backend="parallel")
    torch.testing.assert_close(h, expected, rtol=1e-4, atol=1e-30)
    a.fill_(0.5)
    a[:, 5:15], a[:, 20] = 1e30, 0.0
    b[:, 20:] = 1.0
    expected, _ = linear_scan(a, b, backend="reference")
    assert expected.isfinite().all()
    h, _ = linear_scan(a, b, backend="parallel")
    torch.testing.assert_close(h, expected)


def test_nothing_grows_out_of_nothing():
    """Also where the product of a chunk's decays overflows."""
    a = torch.full((1, 2000, 2), 10.0)
    b = torch.zeros_like(a)
    b[:, -3] = 1.0
    h, h_n = linear_scan(a, b, backend="parallel")
    assert (h[:, :-3] == 0).all()
    torch.testing.assert_close(h_n, torch.full((1, 2), 100.0))


@pytest.mark.parametrize("backend", FORMS)
def test_no_step_sees_a_later_one(backend, chunks):
    a, b, h_0 = case()
    h, _ = linear_scan(a, b, h_0, backend=backend)
    with torch.no_grad():
        a[:, 7:], b[:, 7:] = torch.nan, torch.inf
    other, _ = linear_scan(a, b, h_0, backend=backend)
    assert torch.equal(h[:, :7], other[:, :7])
    assert other[:, 7:].isnan().all()


@pytest.mark.parametrize("backend", FORMS)
def test_halves_with_the_state_between_are_the_whole(backend, chunks):
    a, b, h_0 = case()
    whole = linear_scan(a, b, h_0, backend=backend)
    first, state = linear_scan(a[:, :6], b[:, :6], h_0, backend=backend)
    second, last = linear_scan(a[:, 6:], b[:, 6:], state, backend=backend)
    close((torch.cat([first, second], dim=1), last), whole)


@pytest.mark.parametrize("backend", FORMS)
def test_padding_changes_nothing(backend, chunks):
    made = case()
    expected = with_gradients(made, backend, lengths=LENGTHS)
    other = [x.detach().clone() for x in made]
    for row, length in enumerate(LENGTHS.tolist()):
        other[0][row, length:], other[1][row, length:] = torch.nan, torch.inf
    ours = with_gradients([x.requires_grad_() for x in other], backend, lengths=LENGTHS)
    for one, same in zip(ours, expected, strict=True):
        assert torch.equal(one, same)
    h, h_n, grad_a, grad_b, _ = ours
    assert torch.equal(h_n[1], made[2][1])
    for row, length in enumerate(LENGTHS.tolist()):
        for padded in (h, grad_a, grad_b):
            assert (padded[row, length:] == 0).all()
        if length:
            torch.testing.assert_close(h_n[row], h[row, length - 1])


@pytest.mark.parametrize("dtype", [F64, C128])
def test_gradients_and_theirs(dtype, chunks):
    made = case(shape=(2,), dtype=dtype, batch=2)

    def run(*tensors):
        return linear_scan(*tensors, backend="parallel")

    assert gradcheck(run, made)
    assert gradgradcheck(run, made)


@pytest.mark.triton
@pytest.mark.parametrize("dtype", [F64, C128])
def test_gradients_of_the_kernel_and_theirs(dtype, monkeypatch):
    """A tile of two steps and one of a single step: each number takes long here."""
    kernel = importlib.import_module("seqref.ops.linear_scan.triton")
    monkeypatch.setattr(kernel, "STEPS", 2)

    def run(*tensors):
        return linear_scan(*tensors, backend="triton")

    made = case(time=3, shape=(1,), dtype=dtype, batch=1)
    assert gradcheck(run, made)
    assert gradgradcheck(run, made)


def test_a_gradient_that_is_not_wanted_of_the_last_state_alone(chunks):
    made = case()
    for which in (0, 1):
        ours, expected = (
            torch.autograd.grad(linear_scan(*made, backend=name)[which].sum(), made)
            for name in ("parallel", "reference")
        )
        close(ours, expected)


@pytest.mark.parametrize("backend", FAST)
def test_without_a_gradient_of_the_decays(backend, chunks):
    made = case()
    expected = torch.autograd.grad(linear_scan(*made)[0].sum(), made)[1:]
    a, b, h_0 = made[0].detach(), *made[1:]
    h, _ = linear_scan(a, b, h_0, backend=backend)
    close(torch.autograd.grad(h.sum(), (b, h_0)), expected)


@pytest.mark.parametrize("backend", FAST)
def test_a_decay_that_is_one_for_all_steps(backend, chunks):
    """Given by `expand`, whose gradient is a sum over the steps."""
    _, b, h_0 = case()
    decay = torch.linspace(0.1, 0.9, 5, dtype=F64).requires_grad_()
    ours, expected = (
        torch.autograd.grad(
            linear_scan(decay.expand(b.shape), b, h_0, backend=name)[0].sum(),
            (decay, b, h_0),
        )
        for name in (backend, "reference")
    )
    close(ours, expected)


@pytest.mark.parametrize("backend", FORMS)
def test_gradients_of_several_things_at_once(backend, chunks):
    a, b, h_0 = case()
    h, _ = linear_scan(a, b, h_0, backend=backend)
    upstream = torch.stack([torch.ones_like(h), torch.arange(13.0)[:, None] * h])
    batched = torch.autograd.grad(
        h, (a, b, h_0), upstream, is_grads_batched=True, retain_graph=True
    )
    for k, above in enumerate(upstream):
        each = torch.autograd.grad(h, (a, b, h_0), above, retain_graph=True)
        close([x[k] for x in batched], each)


@pytest.mark.parametrize("backend", FAST)
def test_arguments_stay_as_they_are(backend, chunks):
    made = case()
    before = [x.detach().clone() for x in made]
    h, h_n = linear_scan(*made, backend=backend)
    h_n.detach().fill_(7.0)
    assert not (h == 7.0).any()
    for one, other in zip(made, before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", FORMS)
def test_half_precision_is_computed_in_float32(dtype, backend):
    steps = 70 if backend == "triton" else 400
    made = case(time=steps, shape=(2,), dtype=dtype, decays=(0.9, 1.0))
    wide = [x.detach().float() for x in made]
    h, h_n = linear_scan(*made, backend=backend)
    expected, last = linear_scan(*wide, backend=backend)
    assert h.dtype == h_n.dtype == dtype
    assert torch.equal(h, expected.to(dtype))
    assert torch.equal(h_n, last.to(dtype))


@pytest.mark.parametrize("backend", [None, *FORMS])
def test_no_steps_no_rows_no_features(backend):
    for batch, time, width in ((3, 0, 5), (0, 4, 5), (3, 4, 0)):
        a, b, h_0 = case(time=time, shape=(width,), batch=batch)
        if backend in ("parallel", "triton"):
            with pytest.raises(RuntimeError, match="the input is empty"):
                linear_scan(a, b, h_0, backend=backend)
            continue
        h, h_n = linear_scan(a, b, h_0, backend=backend)
        assert h.shape == b.shape
        assert h_n is not h_0
        assert torch.equal(h_n, h_0) if time == 0 else h_n.shape == h_0.shape
        given = a, b, h_0
        grads = torch.autograd.grad((h.sum(), h_n.sum()), given)
        assert [g.shape for g in grads] == [x.shape for x in given]


def test_a_state_that_is_not_given_is_zero():
    a, b, h_0 = case()
    close(linear_scan(a, b), linear_scan(a, b, torch.zeros_like(h_0)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_of_functions_and_forward_mode():
    a, b, h_0 = (x.detach() for x in case())

    def total(b):
        return linear_scan(a, b, h_0)[0].sum()

    expected = torch.autograd.functional.jacobian(total, b)
    torch.testing.assert_close(grad(total)(b), expected)
    rows = vmap(lambda a, b, h: linear_scan(a[None], b[None], h[None])[0][0])(a, b, h_0)
    torch.testing.assert_close(rows, linear_scan(a, b, h_0)[0])
    tangent = torch.ones_like(b)
    torch.testing.assert_close(jvp(total, (b,), (tangent,))[1], expected.sum())
    with dual_level():
        h, _ = linear_scan(a, make_dual(b, tangent), h_0)
        torch.testing.assert_close(unpack_dual(h).tangent.sum(), expected.sum())


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_compile_export_and_trace():
    a, b, h_0 = (x.detach() for x in case())
    expected = linear_scan(a, b, h_0)
    close(torch.compile(linear_scan)(a, b, h_0), expected)

    class Module(torch.nn.Module):
        def forward(self, a, b, h_0):
            return linear_scan(a, b, h_0)

    exported = torch.export.export(Module(), (a, b, h_0)).module()
    close(exported(a, b, h_0), expected)
    close(
        torch.jit.trace(Module(), (a, b, h_0), check_trace=False)(a, b, h_0), expected
    )


@pytest.mark.errors
def test_bad_arguments():
    a, b, h_0 = case()
    with pytest.raises(ValueError, match=r"`b` must have shape \(batch=3, time=13, ax"):
        linear_scan(a, b[:, :-1], h_0)
    with pytest.raises(ValueError, match=r"`h_0` must have shape \(batch=3, axis_2=5"):
        linear_scan(a, b, h_0[:, :-1])
    with pytest.raises(ValueError, match="`a` must have shape"):
        linear_scan(a[0, 0], b, h_0)
    with pytest.raises(TypeError, match="`a` must have one of float16, bfloat16"):
        linear_scan(a.long(), b, h_0)
    with pytest.raises(TypeError, match=r"got torch\.float8_e5m2"):
        linear_scan(a.to(torch.float8_e5m2), b, h_0)
    with pytest.raises(TypeError, match=r"`a` must be a torch\.Tensor"):
        linear_scan(0.5, b, h_0)
    with pytest.raises(ValueError, match="`b` must have a's dtype"):
        linear_scan(a, b.float(), h_0)
    with pytest.raises(ValueError, match="`h_0` must have a's dtype"):
        linear_scan(a, b, h_0.to(C128))
    with pytest.raises(ValueError, match="`lengths` must be at most time=13"):
        linear_scan(a, b, h_0, lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match="`backend` must be"):
        linear_scan(a, b, h_0, backend="torch")
    with pytest.raises(RuntimeError, match=r"torch\.func cannot"):
        grad(lambda b: linear_scan(a, b, h_0, backend="parallel")[0].sum())(b)


def test_a_kernel_that_cannot_run_says_what_it_needs(monkeypatch):
    made = case()
    if not importlib.util.find_spec("triton"):
        with pytest.raises(RuntimeError, match=r"needs Triton, .* \(`seqref\[gpu\]`\)"):
            linear_scan(*made, backend="triton")
        return
    kernel = importlib.import_module("seqref.ops.linear_scan.triton")
    monkeypatch.setattr(kernel.triton.knobs.runtime, "interpret", False)
    with pytest.raises(RuntimeError, match="it is for CUDA, and the tensors are on"):
        linear_scan(*made, backend="triton")
