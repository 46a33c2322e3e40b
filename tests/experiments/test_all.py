"""Every experiment's small run: claims hold, controls fail, and it says so again."""

from dataclasses import fields, replace

import pytest
import torch

from experiments.lab.experiment import discover, find, names
from experiments.lab.record import judgements


@pytest.mark.parametrize("name", names())
def test_claims_hold_and_controls_fail(small_run, name):
    """Those on time are judged from the stored record, in tests/test_numbers.py."""
    experiment, record = find(name), small_run(name).record
    assert experiment.claims
    timed = {claim.id for claim in experiment.claims if claim.timed}
    for identifier in record["claims"].keys() - timed:
        assert record["claims"][identifier]["holds"], identifier
        assert not record["claims"][identifier]["control_holds"], identifier
    # What is stored is enough to judge it again.
    assert judgements(experiment, record["cases"]) == record["claims"]
    # Every table can be written of a small record too.
    assert all(experiment.rendered(record).values())


def test_ids_are_used_once_and_a_control_is_another_case():
    claims = [claim for experiment in discover() for claim in experiment.claims]
    identifiers = [claim.id for claim in claims]
    assert len(set(identifiers)) == len(identifiers)
    for claim in claims:
        assert claim.case != claim.control, claim.id


# Experiments whose updates are called otherwise.
UPDATES = {
    "gru_counting": "steps",
    "stacked_training": "longest",
    "trained_lstm": "steps",
}


# Where the training is the lesser part: the small run itself, once more.
WHOLE = {"bidirectional", "bug_museum", "first_model", "pronouncer"}
# Where a trial of what was trained, or a grid, is the greater part.
LESS = {
    "delayed_recall_conditions": {
        "updates": 30,
        "early": 40,
        "long": (("rnn", 0.01, 40), ("lstm", 0.01, 40)),
    },
    "delayed_recall_width": {"learning_rates": (0.005,)},
    "words_seq2seq": {"heldout_words": 1000},
}


def shortest(name, config):
    """One seed, and a tenth of the training."""
    least = max(getattr(config, "check_every", 1), getattr(config, "every", 1))
    least *= getattr(config, "early", 1)
    changed = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name.endswith("seeds"):
            changed[field.name] = value[:1]
        elif field.name.endswith("updates") or field.name == UPDATES.get(name):
            changed[field.name] = max(least, value // 10)
        elif field.name.endswith("epochs"):
            changed[field.name] = 1
    return replace(config, **{**changed, **LESS.get(name, {})})


@pytest.mark.parametrize("name", names())
def test_a_run_is_a_function_of_its_config(small_run, name):
    """Whatever the state of torch's own generator, and whatever ran before."""
    experiment = find(name)
    config = experiment.small if name in WHOLE else shortest(name, experiment.small)
    if config == experiment.small:
        first = small_run(name).result
    else:
        torch.manual_seed(1)
        first = experiment.result(config)
    torch.manual_seed(2)
    assert experiment.result(config) == first
