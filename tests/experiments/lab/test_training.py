"""An update by hand, with and without clipping."""

import pytest
import torch

from experiments import lab


@pytest.mark.parametrize(
    ("max_norm", "moved"), [(None, [0.6, 0.8]), (2.0, [0.12, 0.16]), (20.0, [0.6, 0.8])]
)
def test_an_update_is_a_step_against_the_clipped_gradient(max_norm, moved):
    values = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [value]} for value in values]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for steps in (1, 2):
        # The gradient is (6, 8), of norm 10; what was there before does not add up.
        lab.descend(optimizer, -(6 * values[0] + 8 * values[1]).sum(), max_norm)
        expected = torch.tensor(moved) * steps
        torch.testing.assert_close(torch.cat(list(values)).detach(), expected)
