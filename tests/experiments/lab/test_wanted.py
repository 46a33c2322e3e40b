"""Cases that no claim names are left out where that is asked for; others stay."""

from dataclasses import replace

import pytest

from experiments import lab
from experiments.lab.experiment import find


def test_all_are_wanted_but_inside():
    assert lab.wanted("a")
    with lab.only({"a"}):
        assert lab.wanted("a")
        assert not lab.wanted("b")
        with lab.only({"b"}):
            assert lab.wanted("b")
        assert not lab.wanted("b")
    assert lab.wanted("b")


SHORT = {
    "delayed_recall": {"updates": 2, "lags": (20,), "seeds": (0,)},
    "gru_counting": {"steps": 3, "seeds": (0,)},
    "lstm_variants_training": {
        "updates": 20,
        "seeds": (0, 1),
        "control_seeds": (20, 21),
    },
}
WANTED = {
    "delayed_recall": ("lstm_20", "rnn_20"),
    "gru_counting": ("gru_4",),
    "lstm_variants_training": ("plain", "zoneout"),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_case_does_not_depend_on_the_others(name):
    experiment = find(name)
    config = replace(experiment.small, **SHORT[name])
    whole = experiment.result(config)["cases"]
    with lab.only(WANTED[name]):
        some = experiment.result(config)["cases"]
    assert set(WANTED[name]) <= some.keys() < whole.keys()
    for case, values in some.items():
        assert values == whole[case], case
