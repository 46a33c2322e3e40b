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
    found = [claim for experiment in discover() for claim in experiment.claims]
    identifiers = [claim.id for claim in found]
    assert len(set(identifiers)) == len(identifiers)
    for claim in found:
        assert claim.case != claim.control, claim.id


def with_one_seed(config):
    """With the first of the seeds alone, where there are several."""
    return replace(
        config,
        **{
            field.name: getattr(config, field.name)[:1]
            for field in fields(config)
            if field.name.endswith("seeds")
        },
    )


@pytest.mark.parametrize("name", names())
def test_a_run_is_a_function_of_its_config(small_run, name):
    """Whatever the state of torch's own generator."""
    experiment = find(name)
    config = with_one_seed(experiment.small)
    if config == experiment.small:
        first = small_run(name).result
    else:
        torch.manual_seed(1)
        first = experiment.result(config)
    torch.manual_seed(2)
    assert experiment.result(config) == first
