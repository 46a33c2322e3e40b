"""The op: definition, backends, precision, memory, padding, gradients, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import grad, jvp, vmap

from seqref.ops.selective_scan import BACKENDS, parallel, selective_scan
from seqref.ops.selective_scan.reference import selective_step
from seqref.ops.short_convolution import short_convolution
from seqref.testing import check_linear_cost

F64 = torch.float64
NAMES = ("x", "dt", "A", "B", "C", "D", "h_0")
# Largest step size, and the lowest and highest rate.
DECAYS = {
    "any": (0.1, -16.0, -1.0),
    "near 0": (1.0, -100.0, -10.0),
    "near 1": (0.001, -1.0, -0.1),
    "nearer 1": (1e-4, -1.0, -0.1),
    "0": (1.0, -1e8, -1e4),
    "1": (0.0, -16.0, -1.0),
    "growing": (0.01, 0.0, 1.0),
}
LENGTHS = torch.tensor([13, 0, 5])


@pytest.fixture(params=["one chunk", "chunks", "chunks and a rest"])
def chunks(request, monkeypatch):
    """13 steps of 3 rows in one chunk, in chunks of 1 row and 1 step, or of 2 and 5."""
    sizes = {"one chunk": (3, 13), "chunks": (1, 1), "chunks and a rest": (2, 5)}
    made = parallel.Sizes(*sizes[request.param])
    monkeypatch.setattr(parallel, "sizes_of", lambda *_: made)


def case(time=13, channels=5, state=4, dtype=F64, decays="any", seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    step, low, high = DECAYS[decays]

    def draw(*sizes):
        return torch.randn(sizes, generator=generator, dtype=F64)

    def uniform(*sizes):
        return torch.rand(sizes, generator=generator, dtype=F64)

    made = (
        draw(batch, time, channels),
        step * uniform(batch, time, channels),
        low + (high - low) * uniform(channels, state),
        draw(batch, time, state),
        draw(batch, time, state),
        draw(channels),
        draw(batch, channels, state),
    )
    return [x.to(dtype).requires_grad_() for x in made]


def with_gradients(tensors, backend=None, **options):
    """Outputs, the last state, and the gradient of each tensor."""
    outputs = selective_scan(*tensors, backend=backend, **options)
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
def test_equals_the_definition(backend, chunks):
    x, dt, A, B, C, D, h = case()
    y, h_n = selective_scan(x, dt, A, B, C, D, h, backend=backend)
    for t in range(13):
        step, h = selective_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], D, h)
        torch.testing.assert_close(y[:, t], step, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(h_n, h, atol=1e-12, rtol=1e-12)


def test_the_definition_is_one_sum_over_pairs_of_steps():
    r"""With the decay from step s to step t: of the rate by the time between."""
    x, dt, A, B, C, *_ = case()
    ends = dt.cumsum(dim=1)
    spans = ends[:, :, None] - ends[:, None]
    past = torch.ones(13, 13, dtype=F64).tril()[None, :, :, None]
    kernels = torch.einsum("btn,btsdn,bsn->btsd", C, torch.exp(spans[..., None] * A), B)
    expected = torch.einsum("btsd,bsd->btd", kernels * past, dt * x)
    close([selective_scan(x, dt, A, B, C)[0]], [expected], 1e-9)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_backends_agree_in_values_and_gradients(lengths, chunks):
    made = case()
    expected = with_gradients(made, "reference", lengths=lengths)
    close(with_gradients(made, "parallel", lengths=lengths), expected)


@pytest.mark.parametrize(
    ("time", "channels", "state"), [(1, 1, 1), (7, 3, 1), (300, 1, 2), (40, 600, 16)]
)
def test_any_size(time, channels, state):
    made = case(time, channels, state)
    close(with_gradients(made), with_gradients(made, "reference"), 1e-10)


@pytest.mark.parametrize("decays", DECAYS)
def test_is_about_as_near_to_float64_as_the_loop(decays, monkeypatch):
    """Twice the loop's error and eight roundings of the largest, over five seeds."""
    monkeypatch.setattr(parallel, "sizes_of", lambda *_: parallel.Sizes(1, 32))
    eps = torch.finfo(torch.float32).eps
    for seed in range(5):
        made = case(200, 8, 4, torch.float32, decays, seed, batch=2)
        exact = [x.detach().double().requires_grad_() for x in made]
        truth = with_gradients(exact, "reference")
        ours, loop = with_gradients(made, "parallel"), with_gradients(made, "reference")
        for one, other, true in zip(ours, loop, truth, strict=True):
            assert one.isfinite().all()
            error, errors, largest = (
                x.abs().max() for x in (one - true, other - true, true)
            )
            assert error <= 2 * errors + 8 * eps * largest


def test_a_step_of_size_nothing_changes_nothing_and_a_long_one_forgets():
    made = case(time=60, dtype=torch.float32)
    x, dt, A, B, C, D, h_0 = (v.detach() for v in made)
    dt[:, 20:] = 0.0
    first = selective_scan(x[:, :20], dt[:, :20], A, B[:, :20], C[:, :20], D, h_0)[1]
    _, h_n = selective_scan(x, dt, A, B, C, D, h_0, backend="parallel")
    torch.testing.assert_close(h_n, first, atol=0, rtol=0)
    dt[:, -1] = 1e4
    _, h_n = selective_scan(x, dt, A, B, C, D, h_0, backend="parallel")
    written = 1e4 * x[:, -1, :, None] * B[:, -1, None]
    torch.testing.assert_close(h_n, written, atol=0, rtol=1e-6)


def test_states_cannot_be_had_back_by_dividing():
    """From the last one, backwards in time: each division enlarges what was rounded."""
    x, dt, A, B, C, *_ = (v.detach() for v in case(40, dtype=torch.float32))
    states = [torch.zeros(3, 5, 4)]
    for t in range(40):
        steps = (v[:, : t + 1] for v in (x, dt)), (v[:, : t + 1] for v in (B, C))
        states.append(selective_scan(*steps[0], A, *steps[1])[1])
    h, errors = states[-1], []
    for t in range(39, -1, -1):
        written = (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        h = (h - written) / torch.exp(dt[:, t, :, None] * A)
        errors.append((h - states[t]).abs().max().item())
    assert errors[0] < 1e-5
    assert errors[-1] > 100


def test_equals_transformers():
    """Its Mamba mixer in plain PyTorch, around both ops, with its weights."""
    mamba = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = mamba.MambaConfig(
        hidden_size=6, state_size=4, conv_kernel=3, time_step_rank=2
    )
    torch.manual_seed(0)
    mixer = mamba.MambaMixer(config, layer_idx=0)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 13, 6)
    inner, gate = mixer.in_proj(x).chunk(2, dim=2)
    weight = mixer.conv1d.weight[:, 0]
    inner = F.silu(short_convolution(inner, weight, mixer.conv1d.bias)[0])
    dt, B, C = mixer.x_proj(inner).split([2, 4, 4], dim=2)
    dt = F.softplus(mixer.dt_proj(dt))
    y, _ = selective_scan(inner, dt, -mixer.A_log.exp(), B, C, mixer.D)
    ours = mixer.out_proj(y * F.silu(gate))
    torch.testing.assert_close(ours, mixer(x), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("time", [1, 40])
def test_equals_mambapy(time):
    """Values and gradients, from decays and inputs as whole tensors."""
    pscan = pytest.importorskip("mambapy.pscan").pscan
    made = case(time)[:5]
    x, dt, A, B, C = made
    decays = torch.exp(dt[..., None] * A)
    h = pscan(decays, (dt * x)[..., None] * B[:, :, None])
    theirs = (h @ C[..., None])[..., 0]
    ours, _ = selective_scan(*made, backend="parallel")
    close([ours], [theirs])
    close(*(torch.autograd.grad(y.square().sum(), made) for y in (ours, theirs)))


def test_states_are_not_kept():
    """Neither for the backward pass nor, all at one time, in either pass."""
    made = case(512, 256, 16, torch.float32, batch=1)
    states = 512 * 256 * 16
    saved = []

    def pack(x):
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y, _ = selective_scan(*made, backend="parallel")
    kept = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved}
    # The inputs are 4.25 numbers a step and channel; a state is 16.
    assert sum(kept.values()) < 4 * states / 2
    assert all(x.untyped_storage().nbytes() < 4 * states / 4 for x in saved)
    largest = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in torch.utils._pytree.tree_leaves(out):
                if isinstance(x, torch.Tensor):
                    largest.append(x.untyped_storage().nbytes())
            return out

    with Largest():
        y, _ = selective_scan(*made, backend="parallel")
        torch.autograd.grad(y.sum(), made)
    assert max(largest) < 4 * states / 4


def test_work_grows_with_the_steps():
    A, D = -torch.rand(32, 8), torch.rand(32)

    def scan(x):
        return selective_scan(x, x.sigmoid(), A, x[..., :8], x[..., 8:16], D)[0]

    assert scan(torch.randn(2, 64, 32)).isfinite().all()
    check_linear_cost(scan, torch.randn(2, 64, 32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_step_sees_a_later_one(backend, chunks):
    made = case()
    y, _ = selective_scan(*made, backend=backend)
    with torch.no_grad():
        for v in (made[0], made[1], made[3], made[4]):
            v[:, 7:] = torch.nan
    other, _ = selective_scan(*made, backend=backend)
    assert torch.equal(y[:, :7], other[:, :7])
    assert other[:, 7:].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_halves_with_the_state_between_are_the_whole(backend, chunks):
    x, dt, A, B, C, D, h_0 = case()
    whole = selective_scan(x, dt, A, B, C, D, h_0, backend=backend)
    parts, state = [], h_0
    for part in (slice(0, 6), slice(6, 13)):
        pieces = (v[:, part] for v in (x, dt))
        maps = (v[:, part] for v in (B, C))
        y, state = selective_scan(*pieces, A, *maps, D, state, backend=backend)
        parts.append(y)
    close((torch.cat(parts, dim=1), state), whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_changes_nothing(backend, chunks):
    made = case()
    expected = with_gradients(made, backend, lengths=LENGTHS)
    other = [x.detach().clone() for x in made]
    for row, length in enumerate(LENGTHS.tolist()):
        for k, bad in zip((0, 1, 3, 4), (torch.nan, torch.inf) * 2, strict=True):
            other[k][row, length:] = bad
    ours = with_gradients([x.requires_grad_() for x in other], backend, lengths=LENGTHS)
    for one, same in zip(ours, expected, strict=True):
        assert torch.equal(one, same)
    y, h_n, grad_x, grad_dt, _, grad_B, grad_C, *_ = ours
    assert torch.equal(h_n[1], made[-1][1])
    for row, length in enumerate(LENGTHS.tolist()):
        for padded in (y, grad_x, grad_dt, grad_B, grad_C):
            assert (padded[row, length:] == 0).all()


def test_gradients_and_theirs(chunks):
    made = case(time=4, channels=1, state=2, batch=2)

    def run(*tensors):
        return selective_scan(*tensors, backend="parallel")

    assert gradcheck(run, made)
    assert gradgradcheck(run, made)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_one_input_alone(name, chunks):
    at = NAMES.index(name)
    made = case()
    alone = [x.detach() for x in made]
    alone[at].requires_grad_()
    for which in (0, 1):
        if which == 1 and name in ("C", "D"):
            continue
        expected = torch.autograd.grad(
            selective_scan(*made, backend="reference")[which].sum(), made[at]
        )
        ours = torch.autograd.grad(
            selective_scan(*alone, backend="parallel")[which].sum(), alone[at]
        )
        close(ours, expected)


def test_second_order_of_inputs_that_hang_together(chunks):
    """Step sizes and maps are made from `x`, as a layer does."""
    x, _, A, *_ = case(state=2)
    results = []
    for backend in BACKENDS:
        maps = x[..., :2].tanh(), x[..., 2:4].sin()
        y, _ = selective_scan(x, x.sigmoid(), A, *maps, backend=backend)
        first = torch.autograd.grad(y.square().sum(), (x, A), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, A))
        results.append((*first, *second))
    close(*results, tolerance=1e-9)


def test_gradients_of_several_things_at_once(chunks):
    made = case()
    for backend in BACKENDS:
        y, _ = selective_scan(*made, backend=backend)
        upstream = torch.stack([torch.ones_like(y), torch.arange(13.0)[:, None] * y])
        batched = torch.autograd.grad(
            y, made, upstream, is_grads_batched=True, retain_graph=True
        )
        for k, above in enumerate(upstream):
            each = torch.autograd.grad(y, made, above, retain_graph=True)
            close([x[k] for x in batched], each)


def test_inputs_that_are_views(chunks):
    """Parts of one projection, in memory of any order."""
    made = case()
    x, dt, A, B, C, D, h_0 = made
    joined = torch.cat([x, dt, B, C], dim=2).mT.contiguous().mT
    parts = joined.split([5, 5, 4, 4], dim=2)
    ours = selective_scan(*parts[:2], A.t().contiguous().t(), *parts[2:], D, h_0)
    close(ours, selective_scan(*made, backend="reference"))


def test_autocast_changes_nothing(chunks):
    made = case(dtype=torch.float32)
    expected = with_gradients(made, "parallel")
    with torch.autocast("cpu", torch.bfloat16):
        ours = with_gradients(made, "parallel")
        close(ours, with_gradients(made, "reference"), 1e-5)
    for one, same in zip(ours, expected, strict=True):
        assert torch.equal(one, same)


def test_a_chunk_has_at_least_16_steps_and_no_more_memory_than_that_takes():
    for channels in (1, 100, 5000, 100_000):
        rows, steps = parallel.sizes_of(8, 4096, channels, 16)
        assert steps >= 16
        assert rows * steps * channels * 16 <= max(2**18, 16 * channels * 16)


def test_arguments_stay_as_they_are(chunks):
    made = case()
    before = [x.detach().clone() for x in made]
    y, h_n = selective_scan(*made, backend="parallel")
    torch.autograd.grad((y.sum(), h_n.sum()), made)
    h_n.detach().fill_(7.0)
    for one, other in zip(made, before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_computed_in_float32(dtype, backend):
    made = case(time=40, dtype=dtype)
    wide = [x.detach().float() for x in made]
    y, h_n = selective_scan(*made, backend=backend)
    expected, last = selective_scan(*wide, backend=backend)
    assert y.dtype == h_n.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    assert torch.equal(h_n, last.to(dtype))


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_no_steps_no_rows_no_channels_no_state(backend):
    sizes = (3, 0, 5, 4), (0, 4, 5, 4), (3, 4, 0, 4), (3, 4, 5, 0)
    for batch, time, channels, state in sizes:
        made = case(time, channels, state, batch=batch)
        if backend == "parallel":
            with pytest.raises(RuntimeError, match="the input is empty"):
                selective_scan(*made, backend=backend)
            continue
        y, h_n = selective_scan(*made, backend=backend)
        assert y.shape == made[0].shape
        assert h_n is not made[-1]
        assert torch.equal(h_n, made[-1]) if time == 0 else h_n.shape[2] == state
        grads = torch.autograd.grad((y.sum(), h_n.sum()), made)
        assert [g.shape for g in grads] == [x.shape for x in made]


def test_what_is_not_given_is_zero():
    x, dt, A, B, C, D, h_0 = case()
    zeros = torch.zeros_like(D), torch.zeros_like(h_0)
    close(selective_scan(x, dt, A, B, C), selective_scan(x, dt, A, B, C, *zeros))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_of_functions_and_forward_mode():
    x, *others = (v.detach() for v in case())

    def total(x):
        return selective_scan(x, *others)[0].sum()

    expected = torch.autograd.functional.jacobian(total, x)
    torch.testing.assert_close(grad(total)(x), expected)
    dt, A, B, C, D, h_0 = others

    def row(x, dt, B, C, h):
        return selective_scan(x[None], dt[None], A, B[None], C[None], D, h[None])[0][0]

    close([vmap(row)(x, dt, B, C, h_0)], [selective_scan(x, *others)[0]])
    tangent = torch.ones_like(x)
    torch.testing.assert_close(jvp(total, (x,), (tangent,))[1], expected.sum())
    with dual_level():
        y, _ = selective_scan(make_dual(x, tangent), *others)
        torch.testing.assert_close(unpack_dual(y).tangent.sum(), expected.sum())


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_compile_export_and_trace():
    made = tuple(v.detach() for v in case())
    expected = selective_scan(*made)
    close(torch.compile(selective_scan)(*made), expected)

    class Module(torch.nn.Module):
        def forward(self, x, dt, A, B, C, D, h_0):
            return selective_scan(x, dt, A, B, C, D, h_0)

    close(torch.export.export(Module(), made).module()(*made), expected)
    traced = torch.jit.trace(Module(), made, check_trace=False)
    close(traced(*made), expected)


@pytest.mark.errors
def test_bad_arguments():
    x, dt, A, B, C, D, h_0 = case()
    with pytest.raises(ValueError, match=r"`dt` must have shape \(batch=3, time=13, c"):
        selective_scan(x, dt[:, :, :1], A, B, C)
    with pytest.raises(ValueError, match=r"`A` must have shape \(channels=5, state\)"):
        selective_scan(x, dt, A.t(), B, C)
    with pytest.raises(ValueError, match=r"`C` must have shape \(batch=3, time=13, st"):
        selective_scan(x, dt, A, B, C[..., 1:])
    with pytest.raises(ValueError, match=r"`D` must have shape \(channels=5,\)"):
        selective_scan(x, dt, A, B, C, D[1:])
    with pytest.raises(ValueError, match=r"`h_0` must have shape \(batch=3, channels"):
        selective_scan(x, dt, A, B, C, D, h_0.mT)
    with pytest.raises(TypeError, match="`x` must have a floating dtype"):
        selective_scan(x.long(), dt, A, B, C)
    with pytest.raises(ValueError, match="`A` must have x's dtype"):
        selective_scan(x, dt, A.float(), B, C)
    with pytest.raises(ValueError, match="`lengths` must be at most time=13"):
        selective_scan(x, dt, A, B, C, lengths=LENGTHS + 1)
    with pytest.raises(ValueError, match="`backend` must be"):
        selective_scan(x, dt, A, B, C, backend="torch")
    with pytest.raises(RuntimeError, match=r"torch\.func cannot"):
        grad(lambda x: selective_scan(x, dt, A, B, C, backend="parallel")[0].sum())(x)
