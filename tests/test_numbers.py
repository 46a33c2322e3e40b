"""What stands in docs/_data is what its records give, byte for byte."""

import math
import re
from pathlib import Path

import pytest

from experiments.lab import margin_tables, margins
from experiments.lab.drawing import MATPLOTLIB_VERSION
from experiments.lab.experiment import discover, find, names
from experiments.lab.numbers import numbers_of
from experiments.lab.record import judgements, load, rounded
from experiments.lab.rendering import (
    rendered_figures,
    rendered_files,
    rendered_tables,
)

DATA = Path(__file__).resolve().parents[1] / "docs" / "_data"
MARGINS = margins.load(DATA / "margins.json")
REMEDY = "run: python -m experiments render"


def stale(expected, folder):
    """Names of the files that are missing or differ."""
    return [
        name
        for name, text in expected.items()
        if not (folder / name).is_file()
        or (folder / name).read_bytes() != text.encode("utf-8")
    ]


@pytest.mark.parametrize("name", names())
def test_tables_are_what_the_record_gives(name):
    record = load(name, DATA)
    files = stale(rendered_tables(find(name), record), DATA)
    assert not files, f"stale in docs/_data: {', '.join(files)}; {REMEDY} {name}"


@pytest.mark.parametrize("name", names())
def test_figures_are_what_the_record_gives(name):
    matplotlib = pytest.importorskip("matplotlib")
    if matplotlib.__version__ != MATPLOTLIB_VERSION:
        pytest.skip(
            f"the committed figures were drawn by matplotlib {MATPLOTLIB_VERSION}, "
            f"this is {matplotlib.__version__}: its bytes may differ"
        )
    files = stale(rendered_figures(find(name), load(name, DATA)), DATA)
    assert not files, f"stale in docs/_data: {', '.join(files)}; {REMEDY} {name}"


def test_no_rendered_file_lacks_its_record():
    expected = set()
    for experiment in discover():
        record = load(experiment.name, DATA)
        expected |= set(rendered_tables(experiment, record))
        for figure in experiment.figures:
            expected |= {f"{experiment.name}.{figure}.{t}.svg" for t in THEMES}
    expected |= {f"margins.{table}.md" for table in margin_tables.tables(MARGINS)}
    present = {path.name for path in (*DATA.glob("*.md"), *DATA.glob("*.svg"))}
    assert present - expected == set(), "no experiment renders these files"


THEMES = ("light", "dark")


@pytest.mark.parametrize("name", names())
def test_records_are_full_and_of_the_config_in_the_code(name):
    record, experiment = load(name, DATA), find(name)
    assert record["run"]["size"] == "full"
    config = {
        key: getattr(experiment.full, key)
        for key in experiment.full.__dataclass_fields__
    }
    assert record["run"]["config"] == rounded(config, "config"), (
        f"docs/_data/{name}.json was measured with another configuration; "
        f"run: python -m experiments run {name} --full"
    )
    assert record["title"] == experiment.title


# Measured before a run wrote the hash of its sources; whoever measures one again takes
# it out here, and none is added.
WITHOUT_HASH = [
    "adding_problem",
    "bidirectional",
    "bptt_bias",
    "bptt_credit",
    "bptt_horizon",
    "bptt_memory",
    "bptt_sums",
    "chrono_biases",
    "continual_state",
    "copying_memory",
    "counting_lengths",
    "delayed_recall",
    "delayed_recall_conditions",
    "delayed_recall_width",
    "digits_classifier",
    "first_model",
    "forget_gate",
    "gradient_by_lag",
    "gradient_overflow",
    "gradient_products",
    "gru_conventions",
    "gru_counting",
    "gru_parameters",
    "jacobian_layout",
    "low_precision_state",
    "lstm_anatomy",
    "lstm_jacobian",
    "lstm_variants",
    "lstm_variants_training",
    "memory_by_initialisation",
    "parameter_counts",
    "spectral_radius",
    "stacked",
    "stacked_training",
    "streaming_bits",
    "trained_lstm",
]


@pytest.mark.parametrize("name", names())
def test_a_record_names_the_code_that_measured_it(name):
    run = load(name, DATA)["run"]
    assert re.fullmatch("[0-9a-f]{40}", run["commit"]["hash"])
    assert run["commit"]["clean"] is True, "measured with changes not committed"
    if name in WITHOUT_HASH:
        assert "sources" not in run, "measured again: take it out of WITHOUT_HASH"
    else:
        assert re.fullmatch("[0-9a-f]{64}", run["sources"])


@pytest.mark.parametrize("name", names())
def test_claims_of_the_record_hold_and_their_controls_fail(name):
    record, experiment = load(name, DATA), find(name)
    assert judgements(experiment, record["cases"]) == record["claims"]
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


# A case that is stored in six digits may stand on the edge of a rounding to two.
ON_THE_EDGE = {("memory_by_initialisation", "gate_0_995_state_1")}


def near(one, other):
    """Equal, but for what six digits of the numbers behind it leave open."""
    both = isinstance(one, float) and isinstance(other, float)
    return math.isclose(one, other, rel_tol=1e-5) if both else one == other


@pytest.mark.parametrize("name", names())
def test_numbers_of_the_record_are_those_of_its_cases(name):
    """What sentences quote; a number that a run returns itself is taken as it is."""
    record, experiment = load(name, DATA), find(name)
    numbers = numbers_of(experiment.numbers, record["cases"], record["series"])
    given = {key: record["numbers"].get(key) for key in numbers}
    differ = {key for key in numbers if not near(numbers[key], given[key])}
    assert {(name, key) for key in differ} <= ON_THE_EDGE, {
        key: (numbers[key], given[key]) for key in differ
    }


def test_a_number_may_differ_in_its_sixth_digit_alone():
    assert near(2.60681, 2.60682)
    assert not near(2.6068, 2.6069)
    assert not near("0.99", "1.0")
    assert not near(1, None)


def test_margins_are_what_their_file_gives():
    tables = margin_tables.tables(MARGINS)
    assert stale({f"margins.{k}.md": text for k, text in tables.items()}, DATA) == []
    assert MARGINS["numbers"] == margin_tables.numbers(MARGINS)


@pytest.mark.parametrize("name", names())
def test_margins_are_of_the_small_config_in_every_setting(name):
    experiment = find(name)
    entry = MARGINS["experiments"].get(name, {"config": None, "runs": {}})
    settings = {setting.name for setting in margins.settings_of(experiment)}
    again = f"run: python -m experiments margins {name}"
    assert set(entry["runs"]) == settings, again
    if settings:
        assert entry["config"] == margins.config_of(experiment), again
    claims = {claim.id for claim in experiment.claims if not claim.timed}
    for run in entry["runs"].values():
        assert set(run.get("claims", ())) == claims, again


def test_no_claim_of_a_small_run_turns_in_any_setting():
    rows = margin_tables.rows_of(MARGINS)
    assert [row for row in rows if row["margin"] <= margin_tables.NEAR] == []


def test_a_stale_file_is_noticed(tmp_path):
    name = "parameter_counts"
    tables = rendered_tables(find(name), load(name, DATA))
    for file, text in tables.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    assert stale(tables, tmp_path) == []
    victim = rendered_files(name, tmp_path)[0]
    victim.write_text(victim.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert stale(tables, tmp_path) == [victim.name]
    victim.unlink()
    assert stale(tables, tmp_path) == [victim.name]
