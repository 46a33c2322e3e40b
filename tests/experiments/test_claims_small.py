"""Every experiment's small run: each claim holds, each negative control fails."""

import pytest

from experiments.lab.experiment import discover, find
from experiments.lab.record import judgements, measure

OWN = (
    "forget_gate",
    "gradient_by_lag",
    "jacobian_layout",
    "lstm_jacobian",
    "parameter_counts",
)


@pytest.fixture(scope="module", params=OWN)
def small(request):
    experiment = find(request.param)
    return experiment, measure(experiment)


def test_claims_hold_and_controls_fail(small):
    experiment, record = small
    assert experiment.claims
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_a_run_is_a_function_of_its_config(small):
    experiment, record = small
    again = measure(experiment)
    for part in ("numbers", "series", "cases"):
        assert again[part] == record[part], part


def test_claims_can_be_judged_again_from_the_record(small):
    experiment, record = small
    assert judgements(experiment, record["cases"]) == record["claims"]


def test_ids_are_used_once_and_a_control_is_another_case():
    found = [claim for experiment in discover() for claim in experiment.claims]
    identifiers = [claim.id for claim in found]
    assert len(set(identifiers)) == len(identifiers)
    for claim in found:
        assert claim.case != claim.control, claim.id
