"""What is timed gives the same outputs and gradients."""

import torch

from experiments.scans import _selective as forms


def test_all_forms_agree():
    inputs = forms.drawn((2, 20, 3, 4), seed=0)
    results = {}
    for name, form in forms.FORMS.items():
        y = form(*inputs)
        results[name] = y, *torch.autograd.grad(y.square().sum(), inputs)
    for result in results.values():
        for one, other in zip(result, results["reference"], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
