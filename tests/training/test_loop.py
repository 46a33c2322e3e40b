"""The loop against the loop written out, and runs that are killed and go on."""

import errno
import importlib.util
import io
import math
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter, OrderedDict, defaultdict
from copy import deepcopy
from enum import IntEnum, StrEnum
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from preloaded import preloaded
from seqref import LayerNormLSTM, LSTMState
from seqref.models import LanguageModel
from seqref.tasks import Streams
from seqref.training import (
    Checkpoints,
    NonFiniteLossError,
    Step,
    _generators,
    fit,
    load_checkpoint,
    save_checkpoint,
    seed_all,
    train,
)
from seqref.training import _pack as packing
from seqref.training._file import write_file

PROGRAM = Path(__file__).with_name("run_and_die.py")
SOURCE = Path(sys.modules["seqref"].__file__).parents[1]


def program():
    spec = importlib.util.spec_from_file_location("run_and_die", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run_and_die = program()


def line_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()


def points(n=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(n, 6, 4, generator=generator, dtype=torch.float64)
    return [(x[:, :3], x[:, 3:]) for x in draw]


def squared(model, batch, state):
    x, y = batch
    return (model(x) - y).square().mean(), None


def sgd(model, lr=0.1, momentum=0.9):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def parameters_of(model):
    return [p.detach().clone() for p in model.parameters()]


def assert_equal(actual, expected, where=""):
    """Bit for bit, through dicts, lists and tuples."""
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype, where
        assert torch.equal(actual, expected), where
    elif isinstance(expected, numpy.ndarray):
        assert actual.dtype == expected.dtype, where
        assert (actual == expected).all(), where
    elif isinstance(expected, dict):
        assert type(actual) is type(expected), where
        assert actual.keys() == expected.keys(), where
        for key in expected:
            assert_equal(actual[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert type(actual) is type(expected), where
        assert len(actual) == len(expected), where
        for index, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert_equal(a, b, f"{where}/{index}")
    else:
        assert type(actual) is type(expected), where
        both_nan = actual != actual and expected != expected
        assert actual == expected or both_nan, where


# The loop.


def written_out(model, batches, steps, lr, max_norm, rate):
    """Gradient descent with nothing but torch.autograd."""
    losses = []
    for number in range(steps):
        x, y = batches[number % len(batches)]
        loss = (model(x) - y).square().mean()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        norm = math.sqrt(sum(g.square().sum().item() for g in grads))
        factor = min(1.0, max_norm / (norm + 1e-6))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p -= (lr if rate is None else rate(number)) * factor * g
        losses.append((loss.item(), norm))
    return losses


@pytest.mark.parametrize("max_norm", [0.05, 1e9, None])
@pytest.mark.parametrize("rate", [None, lambda made: 0.2 / (1 + made)])
def test_fit_equals_the_loop_written_out(max_norm, rate):
    ours, theirs, batches, reports = line_model(), line_model(), points(), []
    seed_all(4)
    last = fit(
        ours,
        batches,
        sgd(ours, momentum=0),
        12,
        squared,
        max_norm=max_norm,
        scheduler=rate,
        on_step=reports.append,
        count=lambda batch: len(batch[0]),
    )
    seed_all(4)
    limit = math.inf if max_norm is None else max_norm
    expected = written_out(theirs, batches, 12, 0.1, limit, rate)
    assert last == reports[-1]
    assert [(r.number, r.items) for r in reports] == [(i, 6 * i) for i in range(1, 13)]
    for report, (loss, norm) in zip(reports, expected, strict=True):
        assert report.loss == pytest.approx(loss, rel=1e-12)
        assert report.grad_norm == pytest.approx(norm, rel=1e-12)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_parameters_that_the_optimizer_does_not_hold_change_nothing():
    reports = {True: [], False: []}
    seed_all(1)
    whole = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    for frozen, seen in reports.items():
        model = deepcopy(whole)
        model[0].requires_grad_(not frozen)
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        fit(model, points(), optimizer, 12, squared, max_norm=0.1, on_step=seen.append)
    assert reports[True] == reports[False]


def test_each_pass_starts_without_a_state_and_the_state_is_detached():
    seen = []
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    model = nn.ParameterList([weight])

    def loss(model, batch, state):
        seen.append(None if state is None else (state.item(), state.requires_grad))
        state = batch * model[0] + (0 if state is None else state)
        return (state.sum() - 1) ** 2, state

    batches = [torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)]
    fit(model, batches, sgd(model, lr=0.0), 4, loss)
    assert seen == [None, (1.0, False), None, (1.0, False)]


def test_a_scheduler_of_torch_is_stepped_after_each_update():
    model, rates = line_model(), []
    optimizer = sgd(model, 1e-3)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    fit(model, points(), optimizer, 5, squared, scheduler=scheduler)
    assert rates == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]


def test_a_rate_that_is_a_tensor_is_written_in_place():
    model = line_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.5))
    rate = optimizer.param_groups[0]["lr"]
    fit(model, points(), optimizer, 2, squared, scheduler=lambda made: 0.1 * made)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1)


def test_on_step_ends_training_and_no_steps_change_nothing():
    model = line_model()
    before = parameters_of(model)
    assert fit(model, points(), sgd(model), 0, squared) is None
    assert_equal(parameters_of(model), before)
    last = fit(model, points(), sgd(model), 9, squared, on_step=lambda s: s.number == 2)
    assert last.number == 2


@pytest.mark.parametrize(("progress", "text"), [(True, "loss="), (str, "Step(number")])
def test_the_bar_goes_to_standard_error(capsys, progress, text):
    model = line_model()
    fit(model, points(), sgd(model), 3, squared, progress=progress)
    captured = capsys.readouterr()
    assert "3/3" in captured.err
    assert text in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_sparse_gradients_are_clipped_as_dense_ones(max_norm):
    results = {}
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Embedding(7, 3, sparse=sparse, dtype=torch.float64)
        norms = []
        fit(
            model,
            [torch.tensor([1, 1, 2]), torch.tensor([6, 1, 6])],
            sgd(model, momentum=0),
            4,
            lambda model, batch, state: (model(batch).square().sum(), None),
            max_norm=max_norm,
            on_step=lambda step, norms=norms: norms.append(step.grad_norm),
        )
        results[sparse] = [torch.tensor(norms), *parameters_of(model)]
    for ours, dense in zip(results[True], results[False], strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-14, atol=1e-14)
    model = nn.Embedding(3, 2, sparse=True)
    with pytest.raises(
        NonFiniteLossError, match=r"the gradient `weight` is not finite"
    ):
        fit(
            model,
            [torch.tensor([1])],
            sgd(model, momentum=0),
            1,
            lambda model, batch, state: ((0 * model(batch)).sqrt().sum(), None),
        )


# Seeds.


def draws():
    """One number from each generator."""
    torch_draw = torch.rand(()).item()
    return random.random(), numpy.random.random(), torch_draw  # noqa: NPY002


def test_a_seed_reaches_python_numpy_and_torch():
    seed_all(11)
    first = draws()
    again = draws()
    seed_all(11)
    assert draws() == first
    assert draws() == again != first
    seed_all(12)
    other = draws()
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_fit_seeds_before_the_first_batch():
    weights = []
    for noise in (1, 2):
        model = line_model()
        seed_all(noise)
        fit(model, points(), sgd(model), 3, squared, seed=5)
        weights.append(parameters_of(model))
    assert_equal(*weights)
    model = line_model()
    fit(model, points(), sgd(model), 3, squared, seed=6)
    assert not torch.equal(parameters_of(model)[0], weights[0][0])


# Checkpoints and resuming, in one process.

MADE = {
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, amsgrad=True),
    "sgd": sgd,
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, centered=True),
    "adafactor": lambda m: torch.optim.Adafactor(m.parameters()),
}
SCHEDULES = {
    "none": lambda o: None,
    "function": lambda o: lambda made: 0.01 / (1 + made),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda n: 1 / (1 + n)),
    "steps": lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4, 7]),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 12),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "one-cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=12),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)],
        [5],
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], o
    ),
}


def build(optimizer="adamw", schedule="none"):
    model = line_model()
    made = MADE[optimizer](model)
    return model, made, SCHEDULES[schedule](made)


def run_to(folder, steps, optimizer="adamw", schedule="none", every=4, **options):
    model, made, scheduler = build(optimizer, schedule)
    checkpoints = Checkpoints(folder, every=every, resume=True, **options)
    seed_all(random.randrange(1000))  # what went before must not matter
    last = fit(
        model,
        points(),
        made,
        steps,
        squared,
        scheduler=scheduler,
        seed=3,
        checkpoints=checkpoints,
    )
    return model, made, last


CASES = [(name, "none") for name in MADE] + [("adamw", name) for name in SCHEDULES]


@pytest.mark.parametrize(("optimizer", "schedule"), CASES)
def test_a_run_in_parts_equals_the_whole_bit_for_bit(tmp_path, optimizer, schedule):
    whole = run_to(tmp_path / "whole", 12, optimizer, schedule)
    for stop in (1, 5, 10, 12):
        parts = run_to(tmp_path / "parts", stop, optimizer, schedule)
    assert_equal(parts[0].state_dict(), whole[0].state_dict())
    assert_equal(parts[1].state_dict(), whole[1].state_dict())
    assert parts[2] == whole[2]
    # A run that is over is not gone on with.
    again = run_to(tmp_path / "parts", 12, optimizer, schedule)
    assert_equal(again[0].state_dict(), whole[0].state_dict())
    assert again[2] == whole[2]


@pytest.mark.draws
@pytest.mark.parametrize("kind", list(run_and_die.KINDS))
def test_dropout_order_noise_and_streams_go_on(tmp_path, kind):
    """Parts of one step each: every place in a pass is resumed from, the first too."""
    whole = run_and_die.run(tmp_path / "whole", kind, 20)
    for stop in range(21):
        parts = run_and_die.run(tmp_path / "parts", kind, stop)
    assert_equal(parts[0].state_dict(), whole[0].state_dict())
    assert_equal(parts[1].state_dict(), whole[1].state_dict())
    assert parts[2] == whole[2]


def test_a_carried_state_is_read_to_where_a_tensor_begins_by_itself(tmp_path):
    """At an address that is not aligned, products of matrices may round otherwise."""
    text = torch.randint(7, (201,), generator=torch.Generator().manual_seed(1))
    streams, addresses = Streams(text, 2, 10), []

    def run(folder, steps):
        torch.manual_seed(0)
        model = LanguageModel(7, LayerNormLSTM(4, 6))
        model.layer.register_forward_pre_hook(
            lambda _, inputs: addresses.extend(
                part.data_ptr() for part in inputs[1] or ()
            )
        )
        optimizer = torch.optim.Adam(model.parameters())
        checkpoints = Checkpoints(folder, every=7, resume=True)
        train(model, streams, optimizer, steps, checkpoints=checkpoints)
        return model.state_dict()

    whole = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 7)
    addresses.clear()
    assert_equal(run(tmp_path / "parts", 12), whole)
    assert addresses
    assert not any(address % 64 for address in addresses[:2])


@pytest.mark.draws
@pytest.mark.parametrize("lost", ["torch", "python", "numpy", "begun", "state"])
def test_every_part_of_the_file_is_needed(tmp_path, monkeypatch, lost):
    """The comparison can fail: without this part the runs differ."""
    kind = "texts" if lost == "state" else "points"
    whole = run_and_die.run(tmp_path / "whole", kind, 11)
    run_and_die.run(tmp_path / "parts", kind, 8)
    original = packing.unpack

    def forgetful(node, tensors):
        tree = original(node, tensors)
        if isinstance(tree, dict) and "begun" in tree:
            fresh = run_and_die.seed_all(99) or tree
            now = original(node, tensors)
            if lost == "begun":
                fresh["begun"] = now["now"]
            elif lost != "state":
                fresh["now"][lost] = fresh["begun"][lost]
        if lost == "state" and isinstance(tree, LSTMState):
            return LSTMState(torch.zeros_like(tree.h), tree.c)
        return tree

    from seqref.training import _run

    monkeypatch.setattr(_run, "unpack", forgetful)
    parts = run_and_die.run(tmp_path / "parts", kind, 11)
    same = [
        torch.equal(a, b)
        for a, b in zip(parts[0].parameters(), whole[0].parameters(), strict=True)
    ]
    assert not all(same)


def test_stateful_objects_and_own_generators_go_on(tmp_path):
    class Mean:
        def __init__(self):
            self.value = 0.0

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    def part(folder, steps):
        model, mean = line_model(), Mean()
        generator = torch.Generator().manual_seed(2)
        optimizer = sgd(model)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)

        def noisy(model, batch, state):
            noise = torch.randn(6, 3, generator=generator, dtype=torch.float64)
            return squared(model, (batch[0] + noise, batch[1]), state)

        def after(step):
            mean.value = 0.9 * mean.value + 0.1 * step.loss
            plateau.step(mean.value)

        stateful = {"mean": mean, "generator": generator, "plateau": plateau}
        checkpoints = Checkpoints(folder, every=3, resume=True, stateful=stateful)
        options = {"checkpoints": checkpoints, "on_step": after, "seed": 1}
        fit(model, points(), optimizer, steps, noisy, **options)
        return parameters_of(model), mean.value, optimizer.state_dict()

    whole = part(tmp_path / "whole", 9)
    assert whole[2]["param_groups"][0]["lr"] < 0.1
    for stop in (2, 7, 9):
        parts = part(tmp_path / "parts", stop)
    assert_equal(parts, whole)


@pytest.mark.parametrize("noise", [False, True])
def test_an_order_drawn_from_an_own_generator_goes_on(tmp_path, noise):
    def part(folder, steps):
        model, generator = line_model(), torch.Generator().manual_seed(2)

        class Shuffled:
            def __iter__(self):
                for i in torch.randperm(5, generator=generator).tolist():
                    x, y = points()[i]
                    # Drawn batch by batch, so that replaying moves the generator.
                    scale = torch.rand((), generator=generator) if noise else 1
                    yield scale * x, y

        stateful = {"generator": generator}
        checkpoints = Checkpoints(folder, every=3, resume=True, stateful=stateful)
        fit(model, Shuffled(), sgd(model), steps, squared, checkpoints=checkpoints)
        return parameters_of(model), generator.get_state()

    whole = part(tmp_path / "whole", 13)
    for stop in (2, 5, 8, 12, 13):
        parts = part(tmp_path / "parts", stop)
    assert_equal(parts, whole)


def test_dropout_on_a_device_goes_on(tmp_path, device):
    def part(folder, steps, noise):
        seed_all(3)
        model = line_model().to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        batches = [(x.to(device), y.to(device)) for x, y in points()]
        torch.rand(noise, device=device)
        checkpoints = Checkpoints(folder, every=4, resume=True)
        options = {"seed": 7, "checkpoints": checkpoints}
        fit(model, batches, optimizer, steps, squared, **options)
        return model.state_dict(), optimizer.state_dict()

    whole = part(tmp_path / "whole", 12, 1)
    for stop in (3, 7, 12):
        parts = part(tmp_path / "parts", stop, stop)
    assert_equal(parts, whole)


def test_the_newest_files_are_kept_and_leftovers_go(tmp_path):
    leftover = tmp_path / ".step-000000009.safetensors.0123456789abcdef"
    strangers = [tmp_path / ".step-000000009.safetensors.txt", tmp_path / "notes.md"]
    for path in (leftover, *strangers):
        path.write_text("x")
    run_to(tmp_path, 11, every=2, keep=3)
    names = sorted(p.name for p in tmp_path.glob("step-*"))
    assert names == [f"step-{n:09d}.safetensors" for n in (8, 10, 11)]
    assert not leftover.exists()
    assert all(path.exists() for path in strangers)


def test_a_stop_is_kept_at_once(tmp_path):
    model = line_model()
    checkpoints = Checkpoints(tmp_path, every=100)
    options = {"checkpoints": checkpoints, "on_step": lambda s: s.number == 7}
    fit(model, points(), sgd(model), 50, squared, **options)
    assert [p.name for p in checkpoints.files()][-1] == "step-000000007.safetensors"


def test_a_folder_with_a_run_is_not_written_to(tmp_path):
    run_to(tmp_path, 3)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model = line_model()
    with pytest.raises(ValueError, match=r"already holds a run \(step-000000003"):
        fit(model, points(), sgd(model), 9, squared, checkpoints=Checkpoints(tmp_path))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_use_is_refused_and_nothing_in_it_deleted(tmp_path, resume):
    leftover = tmp_path / ".step-000000009.safetensors.0123456789abcdef"
    messages = []

    def again(step):
        if step.number == 2:
            leftover.write_text("half")
            model = line_model()
            checkpoints = Checkpoints(tmp_path, resume=resume)
            before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
            with pytest.raises(RuntimeError, match="is in use by another run") as busy:
                fit(model, points(), sgd(model), 9, squared, checkpoints=checkpoints)
            messages.append(str(busy.value))
            assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

    model = line_model()
    checkpoints = Checkpoints(tmp_path)
    options = {"checkpoints": checkpoints, "on_step": again}
    fit(model, points(), sgd(model), 3, squared, **options)
    assert messages == [
        f"fit: `checkpoints.folder` {str(tmp_path)!r} is in use by another run "
        f"(process {os.getpid()}); wait for its end, or choose another folder"
    ]
    # The lock is given back, by an error too.
    model = line_model()
    checkpoints = Checkpoints(tmp_path, resume=True)
    options = {"checkpoints": checkpoints, "on_step": lambda s: 1 / 0}
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fit(model, points(), sgd(model), 9, squared, **options)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EFBIG])
def test_a_file_that_cannot_be_written_names_what_is_kept(tmp_path, monkeypatch, code):
    flush, files = os.fsync, [0]

    def fail(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode):
            files[0] += 1
            if files[0] == 3:
                raise OSError(code, os.strerror(code))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="could not be written") as caught:
            run_to(tmp_path, 9)
    assert caught.value.errno == code
    new, old = (tmp_path / f"step-00000000{n}.safetensors" for n in (8, 4))
    assert str(caught.value) == (
        f"fit: {str(new)!r} could not be written: {os.strerror(code)}; the run up to "
        f"{str(old)!r} is kept: go on from there with resume=True"
    )
    assert not list(tmp_path.glob(".*"))
    whole, parts = run_to(tmp_path / "whole", 9), run_to(tmp_path, 9)
    assert_equal(parts[0].state_dict(), whole[0].state_dict())


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, monkeypatch, code):
    run_to(tmp_path, 4)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def blind(path="."):
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", blind)
        patch.setattr(os, "scandir", blind)
        match = f"the folder {str(tmp_path)!r} cannot be listed: {os.strerror(code)}"
        with pytest.raises(OSError, match=re.escape(match)) as caught:
            run_to(tmp_path, 9)
        assert caught.value.errno == code
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_bar_that_is_lost_ends_nothing(monkeypatch):
    class Lost(io.StringIO):
        """The first so many writes succeed; a bar writes when it begins and ends."""

        def __init__(self, writes, error):
            super().__init__()
            self.writes, self.error = writes, error

        def write(self, text):
            self.writes -= 1
            if self.writes < 0:
                raise self.error
            return super().write(text)

    pipe = BrokenPipeError(errno.EPIPE, "Broken pipe")
    full = OSError(errno.ENOSPC, "No space left on device")
    closed = ValueError("I/O operation on closed file")
    for stream in (None, Lost(0, pipe), Lost(1, pipe), Lost(2, full), Lost(1, closed)):
        monkeypatch.setattr(sys, "stderr", stream)
        model = line_model()
        last = fit(model, points(), sgd(model), 9, squared, progress=True)
        assert last.number == 9
        assert stream is None or stream.writes < 0
    # The caller's own error is the caller's.
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(ValueError, match="mine"):
        fit(model, points(), sgd(model), 9, squared, progress=lambda s: int("mine"))


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (True, 1),
        (numpy.bool_(True), 1),
        (torch.tensor(True), 1),
        (torch.tensor([True]), 1),
        (None, 4),
        (False, 4),
        (numpy.bool_(False), 4),
        (torch.tensor(False), 4),
        (12, 4),
        (1, 4),
        ("text", 4),
        ([0], 4),
        (torch.ones(2, dtype=torch.bool), 4),
    ],
)
def test_only_true_ends_training(value, made):
    model = line_model()
    last = fit(model, points(), sgd(model), 4, squared, on_step=lambda step: value)
    assert last.number == made


def test_a_folder_that_cannot_be_written_is_noticed_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    model, made = line_model(), []
    checkpoints = Checkpoints(tmp_path / "file" / "inside", every=100)
    options = {"checkpoints": checkpoints, "on_step": made.append}
    with pytest.raises(OSError, match=r"inside|file"):
        fit(model, points(), sgd(model), 9, squared, **options)
    assert made == []


# What is refused.


def untouched(model, optimizer, before):
    assert_equal(parameters_of(model), before[0])
    assert_equal(optimizer.state_dict(), before[1])
    assert_equal(_generators.read(), before[2])


def refused(folder, match, model=None, optimizer=None, steps=9, **changes):
    model = model or line_model()
    optimizer = optimizer or MADE["adamw"](model)
    before = parameters_of(model), optimizer.state_dict(), _generators.read()
    options = {"seed": 3, "batches": points(), **changes}
    batches, settings = options.pop("batches"), options.pop("config", {})
    stateful = options.pop("stateful", {})
    checkpoints = Checkpoints(folder, resume=True, config=settings, stateful=stateful)
    with pytest.raises(ValueError, match=match) as caught:
        fit(
            model,
            batches,
            optimizer,
            steps,
            squared,
            checkpoints=checkpoints,
            **options,
        )
    untouched(model, optimizer, before)
    return str(caught.value)


@pytest.mark.draws
def test_a_run_with_other_settings_is_refused_by_name(tmp_path):
    run_to(tmp_path, 4)
    model = line_model()
    wide = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 1)).double()
    message = refused(tmp_path, "of another run", wide)
    path = str(tmp_path / "step-000000004.safetensors")
    assert repr(path) in message
    line = "model.0.weight is '(4, 3) float64' in the file, '(5, 3) float64' here"
    assert line in message
    match = r"model.0.weight is '\(4, 3\) float64' in the file, .* float32' here"
    refused(tmp_path, match, line_model().float())
    fewer = nn.Sequential(nn.Linear(3, 1)).double()
    refused(tmp_path, "model.2.weight is .* in the file, absent here", fewer)
    refused(
        tmp_path, "optimizer.kind is 'AdamW' in the file, 'SGD' here", model, sgd(model)
    )
    slow = torch.optim.AdamW(model.parameters(), lr=0.02, amsgrad=True)
    refused(
        tmp_path, r"optimizer.groups\[0\].lr is 0.01 in the file, 0.02", model, slow
    )
    turned = torch.optim.AdamW(list(model.parameters())[::-1], lr=0.01, amsgrad=True)
    refused(tmp_path, r"groups\[0\].params\[0\] is '0.weight'", model, turned)
    refused(tmp_path, "max_norm is 1.0 in the file, 2.0 here", max_norm=2.0)
    refused(tmp_path, "seed is 3 in the file, 4 here", seed=4)
    refused(tmp_path, "batches is 5 in the file, 6 here", batches=points(6))
    refused(tmp_path, "config.data is absent in the file, 'b'", config={"data": "b"})
    refused(tmp_path, "scheduler is None in the file", scheduler=lambda made: 0.1)
    refused(tmp_path, "at least the 4 that were made by .*, got 2", steps=2)
    generator = {"noise": torch.Generator()}
    refused(tmp_path, r"stateful is \[\] in the file, \['noise'\]", stateful=generator)


class Named(StrEnum):
    A = "a"


CONFIGS = [
    ("a", "b"),
    ([1, 2], [1, 3]),
    ({"x": {"y": (1, 2)}}, {"x": {"y": (1, 3)}}),
    (math.nan, math.inf),
    (numpy.float32(0.1), numpy.float32(0.2)),
    (numpy.arange(3.0), numpy.ones(3)),
    (torch.arange(3), torch.ones(3)),
    ({1: "a"}, {1: "b"}),
    (None, False),
]


@pytest.mark.draws
@pytest.mark.parametrize(("before", "now"), CONFIGS)
def test_your_config_is_compared_by_value(tmp_path, before, now):
    run_to(tmp_path, 4, config={"it": before})
    assert run_to(tmp_path, 5, config={"it": before})[2].number == 5
    refused(tmp_path, "config.it.* in the file, .* here", config={"it": now})


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Path("train.txt"), r"Path \(pass str\(path\)\)"),
        ({1, 2}, r"set \(pass sorted"),
        (torch.float32, "dtype"),
        (max, "builtin_function_or_method"),
        (Named.A, r"Named \(pass its value\)"),
        (b"bytes", "bytes"),
        (1j, "complex"),
        (torch.tensor(1j), "complex"),
        (numpy.array(["a"]), "ndarray"),
    ],
)
def test_a_config_without_values_is_refused(tmp_path, value, match):
    place = r"Checkpoints: `config\['a'\]\[0\]` must be plain data"
    with pytest.raises(TypeError, match=f"{place}.*, got .*{match}"):
        Checkpoints(tmp_path, config={"a": [value]})


@pytest.mark.errors
def test_a_config_with_other_keys_is_refused(tmp_path):
    with pytest.raises(TypeError, match="strings or ints as keys"):
        Checkpoints(tmp_path, config={(1, 2): 3})
    with pytest.raises(TypeError, match="keys that differ as text"):
        Checkpoints(tmp_path, config={1: 3, "1": 4})
    with pytest.raises(ValueError, match="`folder` must be the name of one, got ''"):
        Checkpoints("")


class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.rand(3, dtype=torch.float64), torch.ones(1, dtype=torch.float64)


def test_workers_that_keep_a_random_state_are_refused(tmp_path):
    """Their second pass draws on; after resuming they would begin anew."""
    loader = torch.utils.data.DataLoader(
        Noisy(), batch_size=2, num_workers=1, persistent_workers=True
    )
    model = line_model()
    before = parameters_of(model)
    for resume in (False, True):
        checkpoints = Checkpoints(tmp_path, resume=resume)
        with pytest.raises(ValueError, match="persistent_workers=False, got True"):
            fit(model, loader, sgd(model), 5, squared, checkpoints=checkpoints)
    assert_equal(parameters_of(model), before)
    assert list(tmp_path.iterdir()) == []


# What Python 3.12 says of the workers.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.slow
def test_workers_that_end_with_their_pass_go_on_bit_for_bit(tmp_path):
    def part(folder, steps):
        loader = torch.utils.data.DataLoader(
            Noisy(), batch_size=2, shuffle=True, num_workers=1
        )
        model = line_model()
        checkpoints = Checkpoints(folder, resume=True)
        options = {"checkpoints": checkpoints, "seed": 2}
        fit(model, loader, sgd(model), steps, squared, **options)
        return parameters_of(model)

    whole = part(tmp_path / "whole", 8)
    part(tmp_path / "parts", 5)
    assert_equal(part(tmp_path / "parts", 8), whole)


@pytest.mark.draws
def test_other_schedules_are_refused(tmp_path):
    run_to(tmp_path, 4, schedule="cosine")
    for other, match in (
        (
            lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
            "T_max is 12 in the file, 20",
        ),
        (
            lambda o: lr_scheduler.StepLR(o, 3),
            "kind is 'CosineAnnealingLR' in the file",
        ),
    ):
        model, optimizer, _ = build()
        refused(tmp_path, match, model, optimizer, scheduler=other(optimizer))


def test_fewer_batches_than_were_taken_are_refused(tmp_path):
    model = line_model()
    checkpoints = Checkpoints(tmp_path, every=4)
    fit(model, iter(points()), sgd(model), 4, squared, checkpoints=checkpoints)
    model = line_model()
    checkpoints = Checkpoints(tmp_path, resume=True)
    with pytest.raises(ValueError, match="took 4 in this pass; got only 3"):
        fit(model, iter(points(3)), sgd(model), 9, squared, checkpoints=checkpoints)


def test_torn_files_are_refused_at_every_length(tmp_path):
    model = nn.Linear(1, 1)
    data = [(torch.ones(1, 1), torch.ones(1, 1))]
    checkpoints = Checkpoints(tmp_path, resume=True)
    options = {"checkpoints": checkpoints}
    fit(model, data, sgd(model, 0.1, 0), 1, squared, **options)
    newest = checkpoints.files()[-1]
    whole = newest.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    lengths = {0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) - 1}
    lengths |= set(range(0, len(whole), 211))
    for length in sorted(lengths):
        newest.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="torn or not a safetensors") as caught:
            fit(model, data, sgd(model, 0.1, 0), 2, squared, **options)
        assert repr(str(newest)) in str(caught.value)
        assert "The file before it is step-000000000.safetensors" in str(caught.value)
    newest.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="torn or not a safetensors"):
        fit(model, data, sgd(model, 0.1, 0), 2, squared, **options)
    # Whole in length, with a block that never reached the disk.
    newest.write_bytes(whole[:header] + bytes(len(whole) - header))
    with pytest.raises(ValueError, match="has changed since it was written"):
        fit(model, data, sgd(model, 0.1, 0), 2, squared, **options)
    newest.unlink()
    assert fit(model, data, sgd(model, 0.1, 0), 2, squared, **options).number == 2


@pytest.mark.draws
def test_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "step-000000004.safetensors"
    path.write_text("hello, this is no checkpoint at all\n")
    refused(tmp_path, "torn or not a safetensors file")
    save_file({"weight": torch.zeros(2)}, path)
    refused(tmp_path, "was not written by seqref")
    save_checkpoint(path, nn.Linear(2, 2), {"format": "language-model/1"})
    refused(tmp_path, "must have format 'run/1', got 'language-model/1'")
    save_checkpoint(path, nn.Linear(2, 2), {"format": "run/1"})
    refused(tmp_path, "is of another run: model is None in the file")


@pytest.mark.draws
def test_a_file_that_names_what_is_not_there_is_refused(tmp_path):
    run_to(tmp_path, 4)
    path = tmp_path / "step-000000004.safetensors"
    tensors, config = load_checkpoint(path)
    for state in (
        {"named": ["os:system", ["h"], [1]]},
        {"named": ["seqref:LSTMState", ["x"], [1]]},
        {"tensor": "none"},
        {"other": 1},
    ):
        config["tree"]["state"] = state
        write_file(path, tensors, config)
        refused(tmp_path, "does not hold the run that its header describes")


class Pair(NamedTuple):
    a: object
    b: object


def test_trees_come_back_as_they_were():
    tree = {
        "numbers": [
            1,
            -(2**70),
            0.1,
            math.inf,
            -math.inf,
            math.nan,
            True,
            None,
            "text",
        ],
        3: (torch.tensor(2.0), torch.zeros(0, 3), (), []),
        "3": Pair(torch.ones(2, dtype=torch.bfloat16), {"x": Counter([1, 1, 2])}),
        "array": numpy.arange(3, dtype=numpy.uint32),
        "keys": {1: torch.tensor(1), "1": torch.tensor(2)},
        "scalars": [
            numpy.float64(0.1),
            numpy.float64(math.nan),
            numpy.float32(0.1),
            numpy.int16(-3),
            numpy.uint64(2**64 - 1),
            numpy.bool_(True),
        ],
        "ordered": OrderedDict(b=1, a=torch.ones(1)),
        "size": torch.Size([2, 3]),
        "parameters": [
            nn.Parameter(torch.ones(2)),
            nn.Parameter(torch.tensor(1), requires_grad=False),
        ],
    }
    tensors = {}
    packed = packing.pack(tree, "x", tensors)
    import json

    unpacked = packing.unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors)
    assert_equal(unpacked, tree)
    for ours, theirs in zip(unpacked["parameters"], tree["parameters"], strict=True):
        assert type(ours) is nn.Parameter
        assert ours.requires_grad == theirs.requires_grad


class Number(IntEnum):
    A = 1


class DerivedList(list):
    pass


class DerivedText(str):
    __slots__ = ()


class DerivedTensor(torch.Tensor):
    def __new__(cls, data):
        return data.as_subclass(cls)


def test_a_tensor_that_is_not_dense_is_refused_in_words(tmp_path):
    sparse = torch.eye(2).to_sparse()
    for value, match in (
        (
            sparse,
            r"x: it must be a dense .* is torch\.sparse_coo \(pass to_dense\(\)\)",
        ),
        (torch.ones(2, device="meta"), "got one that is on the device meta"),
    ):
        with pytest.raises(TypeError, match=match):
            write_file(tmp_path / "file", {"x": value}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_name_in_a_file_imports_nothing(monkeypatch):
    class Lazy(ModuleType):
        def __getattr__(self, name):
            raise AssertionError("a test should not import")

    lazy = Lazy("lazy")
    lazy.Pair = Pair
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    # The standard library's own lazy modules import when they are asked for anything.
    spec = importlib.util.find_spec("this")
    loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("this", loader, origin=spec.origin)
    )
    loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "this", module)
    for path in (
        "lazy:Model",
        "lazy:Model.Inner",
        "this:s",
        "this:Zen",
        "lazy:Pair.a.b",
    ):
        with pytest.raises(ValueError, match="this program has no NamedTuple"):
            packing.unpack({"named": [path, [], []]}, {})
    assert "s" not in object.__getattribute__(module, "__dict__")
    assert packing.unpack({"named": ["lazy:Pair", ["a", "b"], [1, 2]]}, {}) == (1, 2)


@pytest.mark.errors
def test_what_has_no_form_in_a_file_is_refused_at_once(tmp_path):
    class Inside(NamedTuple):
        a: int

    for value, match in (
        ({1, 2}, "cannot hold x/0: set is none of"),
        (Named.A, r"cannot hold x/0: Named is .* \(pass its value\)"),
        (Number.A, "cannot hold x/0: Number is none of"),
        (defaultdict(list), r"x/0: defaultdict is none of .* \(pass dict"),
        (DerivedList([1]), "x/0: DerivedList is none of"),
        (DerivedText("a"), "x/0: DerivedText is none of"),
        (Path("a"), r"Path is none of .* \(pass str\(path\)\)"),
        (numpy.float64([0.5]), "x/0: ndarray is none of"),
        (numpy.str_("a"), "x/0: str_ is none of"),
        (numpy.longdouble(1), "x/0: longdouble is none of"),
        (torch.ones(2).max(0), "x/0: max is none of"),
        (DerivedTensor(torch.ones(2)), "x/0: DerivedTensor would come back as another"),
        (len, "cannot hold x/0: builtin_function"),
        ({(1, 2): 3}, r"its key \(1, 2\) is neither"),
        (Inside(1), "cannot hold a .*Inside: it must be defined at the top"),
    ):
        with pytest.raises(TypeError, match=match):
            packing.pack([value], "x", {})


# What stops training.


def stopped(poison, steps=5, batches=None, **options):
    """The error of training that is poisoned after step 2; all else is unharmed."""
    model = line_model()
    optimizer = sgd(model, 0.25)
    kept = []

    def after(step):
        if step.number == 2:
            poison(model)
            kept.extend([parameters_of(model), optimizer.state_dict()])

    with pytest.raises(NonFiniteLossError) as caught:
        fit(
            model,
            batches or points(),
            optimizer,
            steps,
            squared,
            on_step=after,
            **options,
        )
    for p, q in zip(model.parameters(), kept[0], strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=0, atol=0, equal_nan=True)
    return caught.value


def spoil(name, value):
    def poison(model):
        with torch.no_grad():
            model.get_parameter(name).view(-1)[0] = value

    return poison


def test_a_parameter_that_is_not_finite_is_named():
    error = stopped(spoil("2.weight", math.nan))
    assert str(error) == (
        "the loss is nan at step 3, before its update: the parameter `2.weight` is not "
        "finite: an update before this step, or code outside the loop, made it so; "
        "learning rate 0.25, `max_norm` 1"
    )
    assert error.step == 3
    assert math.isnan(error.loss)
    assert error.grad_norm is None
    text = str(
        stopped(lambda m: [spoil(n, math.inf)(m) for n, _ in m[0:3].named_parameters()])
    )
    assert "4 of 4 parameters (`0.weight`, `0.bias`, `2.weight`, ...) are not" in text


def test_data_that_is_not_finite_is_named():
    batches = points()
    batches[2][1][0] = math.nan
    text = str(stopped(lambda model: None, batches=batches))
    assert "1 of 6 values of batch[1] are not finite: look at the data" in text


def test_an_overflow_in_the_forward_pass_is_told_apart():
    text = str(stopped(spoil("2.bias", 1e200)))
    assert "the loss is inf at step 3" in text
    assert "it arose in the forward pass or the loss" in text
    assert "the largest parameter is 1e+200, in 2.bias" in text


def test_gradients_that_are_not_finite_are_named():
    def poison(model):
        model[0].bias.register_hook(lambda g: g * math.nan)

    error = stopped(poison, max_norm=None)
    assert "the gradient norm is nan at step 3" in str(error)
    assert "the gradient `0.bias` is not finite, from a finite loss" in str(error)
    assert str(error).endswith("`max_norm` off")
    assert math.isfinite(error.loss)
    assert math.isnan(error.grad_norm)

    def huge(model):
        for p in model.parameters():
            p.register_hook(lambda g: torch.full_like(g, 1e200))

    text = str(stopped(huge))
    assert "each gradient is finite, and the sum of their squares overflows" in text


def scheduler_of_another(model):
    return lr_scheduler.StepLR(sgd(model), 1)


def lbfgs(model):
    return torch.optim.LBFGS(model.parameters())


def optimizer_of_another(model):
    return sgd(nn.Linear(2, 2))


def with_state(state):
    return lambda *arguments: (squared(*arguments)[0], state)


def test_parameters_that_are_not_finite_are_not_kept(tmp_path):
    model = line_model()
    checkpoints = Checkpoints(tmp_path, every=2, keep=9)

    def after(step):
        if step.number == 4:
            spoil("0.bias", math.inf)(model)

    options = {"checkpoints": checkpoints, "on_step": after}
    with pytest.raises(
        NonFiniteLossError, match=r"`0\.bias` is not finite after step 4"
    ):
        fit(model, points(), sgd(model), 9, squared, **options)
    assert [p.name[11:14] for p in checkpoints.files()] == ["000", "002"]


@pytest.mark.errors
@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"steps": -1}, ValueError, "`steps` must be at least 0"),
        ({"max_norm": 0.0}, ValueError, "`max_norm` must be above 0, got 0.0 "),
        ({"max_norm": math.nan}, ValueError, r"above 0, got nan \(None clips"),
        ({"batches": []}, ValueError, r"at least one batch in each pass, .* pass 1$"),
        ({"batches": iter(points())}, ValueError, "pass 2: an iterator gives"),
        ({"loss": lambda *_: torch.ones(())}, TypeError, "return value, None"),
        ({"loss": lambda *_: (torch.ones(2), None)}, TypeError, "a scalar tensor"),
        ({"scheduler": 0.1}, TypeError, "`scheduler` must be .*, got float"),
        ({"scheduler": lambda n: -1.0}, ValueError, "got -1.0 after 0 updates"),
        ({"scheduler": lambda n: None}, TypeError, "a number, got NoneType after 0"),
        ({"scheduler": lambda n: "0.1"}, TypeError, "a number, got str after 0"),
        (
            {"scheduler": scheduler_of_another},
            ValueError,
            "one of `optimizer`, got a St",
        ),
        ({"optimizer": lbfgs}, TypeError, "needs no closure, got LBFGS"),
        (
            {"optimizer": optimizer_of_another},
            ValueError,
            "parameters of `model`, got 2",
        ),
        (
            {"loss": with_state([1])},
            TypeError,
            r"state that `loss` returns .* got list",
        ),
        ({"loss": with_state({})}, TypeError, r"state that `loss` returns .* got dict"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"seed": 2**32}, ValueError, r"`seed` must be below 2\^32"),
    ],
)
def test_refuses(changes, kind, match):
    model = line_model()
    before = parameters_of(model)
    arguments = {"batches": points(), "steps": 9, "loss": squared, **changes}
    for name in ("optimizer", "scheduler"):
        if getattr(arguments.get(name), "__name__", "<lambda>") != "<lambda>":
            arguments[name] = arguments[name](model)
    arguments.setdefault("optimizer", sgd(model))
    with pytest.raises(kind, match=match):
        fit(model, **arguments)
    if "batches" not in changes:
        assert_equal(parameters_of(model), before)


@pytest.mark.errors
def test_refuses_what_cannot_be_kept(tmp_path):
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        Checkpoints(tmp_path, every=0)
    with pytest.raises(ValueError, match="`keep` must be at least 1"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(TypeError, match=r"`stateful\['mean'\]` must have .* got float"):
        Checkpoints(tmp_path, stateful={"mean": 0.5})
    model = line_model()
    optimizer = sgd(model)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(TypeError, match=r"ReduceLROnPlateau: step it in `on_step`"):
        fit(model, points(), optimizer, 1, squared, scheduler=plateau)
    other = nn.Linear(2, 2)
    both = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1)
    with pytest.raises(ValueError, match=r"stranger of shape \(2, 2\) in group 0"):
        fit(model, points(), both, 1, squared, checkpoints=Checkpoints(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_last_step_has_two_names_for_its_items():
    assert Step(1, 0.5, 0.1, 30).characters == 30


# Killed for good, and resumed in a new process.


def start(folder, kind, steps, *death):
    """The program in a process of its own, which finds torch imported already."""
    words = [PROGRAM, folder, kind, steps, *death]
    # The first step of an optimizer imports torch._dynamo.
    server = preloaded("torch", "torch._dynamo")
    return server.start(list(map(str, words)), path=[str(SOURCE)], quick=True)


def finish(folder, kind, steps):
    assert start(folder, kind, steps).wait(900) == 0


def finish_in_a_fresh_interpreter(folder, kind, steps):
    """With nothing imported, and another seed for the hashes of strings."""
    subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), kind, str(steps)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=900,
    )


def newest(folder):
    files = Checkpoints(folder).files()
    return load_checkpoint(files[-1]) if files else (None, {"step": None})


def assert_same_run(folder, other):
    """The last files of two runs hold the same bits; the versions are in both."""
    (tensors, config), (expected, wanted) = newest(folder), newest(other)
    assert_equal(tensors, expected)
    assert config == wanted


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder for each kind of run, made in one piece by a process of its own."""
    made = {}

    def run(kind, steps):
        if (kind, steps) not in made:
            made[kind, steps] = tmp_path_factory.mktemp(f"{kind}-{steps}")
            finish(made[kind, steps], kind, steps)
        return made[kind, steps]

    return run


POSIX = pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed", "resume"),
    [("points", 0, finish_in_a_fresh_interpreter), ("texts", 1, finish)],
)
def test_killed_at_random_moments_and_resumed(
    tmp_path, uninterrupted, kind, seed, resume
):
    steps = 450
    chance = random.Random(seed)
    kills = 0
    for _ in range(3):
        child = start(tmp_path, kind, steps)
        # A moment after the first file that this process itself writes.
        before = {p.name for p in tmp_path.glob("step-*")}
        end = time.monotonic() + 900
        while time.monotonic() < end and child.poll() is None:
            if {p.name for p in tmp_path.glob("step-*")} - before:
                break
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        kills += child.wait() == -signal.SIGKILL
    assert kills >= 1
    resume(tmp_path, kind, steps)
    assert_same_run(tmp_path, uninterrupted(kind, steps))
    assert not list(tmp_path.glob(".step*"))


MOMENTS = ["before-flush", "half-written", "before-move", "after-move", "before-delete"]


@POSIX
@pytest.mark.slow
def test_killed_while_a_file_is_written(tmp_path, uninterrupted):
    """At each moment of a write in turn; what is there then is the old file or the new.

    Step 10 is the fourth file of a new run; each next process writes its own fourth.
    """
    steps = 60
    reached = []
    for moment in MOMENTS:
        status = start(tmp_path, "points", steps, moment, 4).wait(900)
        assert status == -signal.SIGKILL, moment
        reached.append(newest(tmp_path)[1]["step"]["number"])
        half = list(tmp_path.glob(".step*"))
        assert len(half) == (moment in MOMENTS[:3]), moment
    # Files at 0, 3, 6, and 9 is never moved; then three files at a time.
    assert reached == [6, 15, 24, 36, 48]
    finish(tmp_path, "points", steps)
    assert_same_run(tmp_path, uninterrupted("points", steps))
