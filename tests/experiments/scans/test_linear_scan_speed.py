"""What is timed gives the same states and gradients."""

import pytest
import torch

from experiments.scans import _peers as peers
from experiments.scans.scan_precision import CASES


def test_all_contestants_give_the_same():
    calls = peers.results((2, 40, 3), 0.5, seed=0)
    expected = calls["reference"]()
    for call in calls.values():
        for one, other in zip(call(), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_what_is_compiled_leaves_small_numbers_as_they_are():
    """A library linked for fast mathematics changes it for the whole process."""
    peers.compiled()
    assert torch.tensor(1e-40) * 1 > 0


@pytest.mark.parametrize("compiler", [None, "false"])
def test_without_a_compiler_that_can_there_is_no_loop_in_c(monkeypatch, compiler):
    monkeypatch.setattr(peers.shutil, "which", lambda _: compiler)
    peers.compiled.cache_clear()
    try:
        assert "c" not in peers.results((1, 4, 2), 0.0, seed=0)
    finally:
        peers.compiled.cache_clear()


@pytest.mark.parametrize("name", CASES)
def test_all_forms_agree_in_double_precision(name):
    """Where the product of all decays stays large."""
    generator = torch.Generator().manual_seed(0)
    a = 0.9 + 0.1 * torch.rand(2, 60, 3, generator=generator, dtype=torch.float64)
    b = torch.randn(2, 60, 3, generator=generator, dtype=torch.float64)
    # That in logarithms is one of float32.
    tolerance = 1e-4 if name == "logarithms" else 1e-9
    ours, expected = CASES[name](a, b).double(), CASES["loop"](a, b)
    torch.testing.assert_close(ours, expected, atol=tolerance, rtol=tolerance)
