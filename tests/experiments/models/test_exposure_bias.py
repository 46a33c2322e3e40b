"""The task is reversal, schedules fit the run, edits are counted right."""

import torch

from experiments import lab
from experiments.models.exposure_bias import (
    BEGIN,
    END,
    FIRST,
    LABELS,
    Config,
    build,
    decoded,
    distance,
    draw,
    probabilities,
    step_loss,
)
from seqref.training import scheduled_sampling, target_loss


def test_the_target_is_the_source_from_right_to_left():
    config = Config()
    pairs = draw(config, 50, lab.generator(0))
    assert pairs.lengths.min() == config.shortest
    assert pairs.lengths.max() == config.longest
    for row, n in enumerate(pairs.lengths.tolist()):
        source = pairs.source[row, :n].tolist()
        assert all(FIRST <= token < FIRST + config.symbols for token in source)
        assert pairs.target.inputs[row, : n + 1].tolist() == [BEGIN, *source[::-1]]
        assert pairs.target.targets[row, : n + 1].tolist() == [*source[::-1], END]


def test_schedules_fit_the_run():
    config = Config()
    by_regime = probabilities(config)
    assert list(by_regime) == list(LABELS)
    middle, last = config.updates // 2, config.updates
    ends = {name: (at(0), at(middle), at(last)) for name, at in by_regime.items()}
    assert ends["teacher"] == ends["teacher_again"] == (1, 1, 1)
    assert ends["free"] == (0, 0, 0)
    torch.testing.assert_close(ends["linear"], (1.0, 0.5, 0.0))
    torch.testing.assert_close(ends["exponential"], (1.0, 0.1, 0.01))
    begin, half, end = ends["inverse_sigmoid"]
    assert begin > 0.98
    assert abs(half - 0.5) < 0.02
    assert end < 0.02


def test_tokens_chosen_first_and_read_in_one_call_are_scheduled_sampling():
    config = Config()
    with lab.seeded(0):
        model = build(config, 16).double()
    pairs = draw(config, 8, lab.generator(1))
    loss = step_loss(model, pairs, 0.5, lab.generator(2))
    bound = model.attend(pairs.source, pairs.lengths)
    run = scheduled_sampling(
        bound, pairs.target.inputs, probability=0.5, generator=lab.generator(2)
    )
    other = target_loss(run.logits, pairs.target.targets)
    torch.testing.assert_close(loss, other)
    parameters = list(model.parameters())
    mine, theirs = (torch.autograd.grad(one, parameters) for one in (loss, other))
    for one, two in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-10)


def test_edits_by_hand():
    assert distance([], []) == 0
    assert distance([1, 2, 3], []) == 3
    assert distance([1, 2, 3], [1, 2, 3]) == 0
    assert distance([1, 2, 3], [1, 3]) == 1
    assert distance([1, 2, 3], [4, 1, 2, 5]) == 2
    assert distance([3, 2, 1], [1, 2, 3]) == 2


def test_a_model_that_never_ends_has_nothing_right():
    config = Config()
    with lab.seeded(0):
        model = build(config, 16)
    with torch.no_grad():
        model.head.bias[END] = -1e9
    scores = decoded(config, model, draw(config, 20, lab.generator(1)))
    assert scores["exact"] == 0
    # Twice the longest is written, so that more must go than there is.
    assert scores["edits"] > 1
