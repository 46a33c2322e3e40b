"""The comparison of classifiers: what each is given, and that its claims hold."""

import dataclasses

import pytest
import torch

datasets = pytest.importorskip("sklearn.datasets")

from experiments.lab.experiment import find  # noqa: E402
from experiments.models import digits_classifier as experiment  # noqa: E402
from seqref.models import SequenceClassifier  # noqa: E402
from seqref.tasks import inked_digits  # noqa: E402

EXPERIMENT = find("digits_classifier")
TINY = dataclasses.replace(EXPERIMENT.small, train_rows=60, test_rows=40, epochs=1)


def test_the_linear_models_see_the_list_and_the_image():
    _, part = inked_digits(200, seed=0)
    source = datasets.load_digits()
    known = {tuple(image.flatten().tolist()) for image in source.images}
    images = experiment.as_images(part)
    assert {tuple((16 * each).round().tolist()) for each in images} <= known
    assert images.shape == (200, 64)


def test_more_padding_is_columns_of_zeros_at_the_end():
    x = torch.rand(2, 3, 3)
    longer = experiment.lengthen(x, 4)
    assert longer.shape == (2, 7, 3)
    assert torch.equal(longer[:, :3], x)
    assert not longer[:, 3:].any()


@pytest.mark.parametrize("name", experiment.MAKERS)
def test_every_network_takes_lengths_and_has_one_width(name):
    torch.manual_seed(0)
    network = SequenceClassifier(experiment.MAKERS[name](8), 10)
    assert network.head.in_features == 8
    x, lengths = torch.rand(3, 5, 3), torch.tensor([5, 2, 4])
    scores = [network(experiment.lengthen(x, steps), lengths) for steps in (0, 9)]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-6)


def test_modes_tell_the_network_what_they_say():
    torch.manual_seed(0)
    network = SequenceClassifier(experiment.MAKERS["gru"](8), 10)
    _, rows = inked_digits(20, seed=0)
    changed = rows._replace(x=rows.x.clone())
    changed.x[:, 1:16] = 1 - changed.x[:, 1:16]  # every row has 16 steps or more
    same = [
        torch.equal(
            experiment.logits(network, rows, mode),
            experiment.logits(network, changed, mode),
        )
        for mode in ("lengths", "first_step", "last_column")
    ]
    assert same == [False, True, False]
    longer = rows._replace(x=experiment.lengthen(rows.x, 30))
    gaps = [
        (
            experiment.logits(network, rows, mode)
            - experiment.logits(network, longer, mode)
        )
        .abs()
        .max()
        .item()
        for mode in ("lengths", "first_step", "last_column")
    ]
    assert gaps[0] < 1e-6 > gaps[1]
    assert gaps[2] > 1e-3


def test_a_run_has_every_case_and_test_rows_are_not_trained_on(monkeypatch):
    trained_on, train = [], experiment.train

    def spy(config, network, rows, seed, mode):
        trained_on.append(rows)
        train(config, network, rows, seed, mode)

    monkeypatch.setattr(experiment, "train", spy)
    result = EXPERIMENT.result(TINY)
    assert set(result["cases"]) == {
        *("gru", "first_step", "last_column", "linear", "linear_image")
    }
    fitting, held_out = inked_digits(TINY.test_rows, seed=0)
    assert len(fitting.labels) + len(held_out.labels) == 1797
    assert len(trained_on) == 3
    for rows in trained_on:
        assert torch.equal(rows.x, fitting.x[: TINY.train_rows])
        assert torch.equal(rows.labels, fitting.labels[: TINY.train_rows])
    case = result["cases"]["gru"]["accuracy"]
    assert case["0"] == case["40"]
    assert 0 <= case["0"]["low"] <= case["0"]["median"] <= case["0"]["high"] <= 1


def test_a_case_is_compared_with_the_linear_model_and_with_lengths(monkeypatch):
    known = {"lengths": (0.75, 0.75), "first_step": (0.25, 0.25)}
    known["last_column"] = 0.5, 0.125
    linear = {True: 0.625, False: 0.375}

    def trained(config, kind, mode, parts, seed):
        return dict(zip(("0", "40"), known[mode], strict=True))

    def fitted(inputs, parts):
        return linear[inputs is experiment.as_images]

    monkeypatch.setattr(experiment, "accuracies", trained)
    monkeypatch.setattr(experiment, "linear_accuracy", fitted)
    result = EXPERIMENT.result(TINY)
    cases, numbers = result["cases"], result["numbers"]
    networks = [name for name in cases if "linear" not in name]
    above = {name: cases[name]["above_linear"] for name in networks}
    below = {name: cases[name]["below_lengths"] for name in networks}
    assert above == {"gru": 0.375, "first_step": -0.125, "last_column": 0.125}
    assert below == {"gru": 0, "first_step": 0.5, "last_column": 0.625}
    assert numbers == {
        "gru": 75,
        "gru_40": 75,
        "first_step": 25,
        "first_step_40": 25,
        "last_column": 50,
        "last_column_40": 12.5,
        "linear": 37.5,
        "linear_image": 62.5,
    }
