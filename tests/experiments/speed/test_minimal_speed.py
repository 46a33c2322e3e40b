"""What is timed is what it is called."""

import torch

from experiments import lab
from experiments.lab import timing
from experiments.speed.minimal_speed import LABELS, contestants, layers


def test_all_read_one_input_and_are_as_wide():
    runs = contestants((2, 3, 4), 0)
    assert list(runs) == ["gru", *LABELS]
    x = runs["gru"].outside[0]
    assert x.shape == (2, 3, 4)
    assert all(contestant.outside[0] is x for contestant in runs.values())


def test_the_loop_is_torchs_layer_and_ours_is_theirs():
    with lab.seeded(0):
        made = layers(4)
    weights = {f"{n}_l0": p for n, p in made["loop"].cell.state_dict().items()}
    made["gru"].load_state_dict(weights)
    n_rows, z_rows = (
        made["library"].state_dict()["layer.to_hidden_and_gate.weight"].chunk(2)
    )
    made["positive"].cell.load_state_dict({"weight_ih": torch.cat([z_rows, n_rows])})
    x = torch.randn(2, 6, 4)
    with timing.setting(1):
        for one, other in (("gru", "loop"), ("positive", "library")):
            torch.testing.assert_close(made[one](x)[0], made[other](x)[0])
