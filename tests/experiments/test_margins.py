"""Margins: verdict and distance agree, settings are what they say, a run goes on."""

import dataclasses
import math

import pytest

from seqref import cli
from experiments.lab import margin_tables
from experiments.lab import margins
from experiments.lab.claim import (
    Claim,
    Outcome,
    above,
    all_of,
    at_least,
    at_most,
    below,
    between,
    exactly,
    judge,
    nearest,
    power,
    share,
)
from experiments.lab.experiment import discover, find

INF = math.inf


@pytest.mark.parametrize(
    ("outcome", "margin"),
    [
        (above(1.1, 1), math.log(1.1)),
        (below(1.1, 1), -math.log(1.1)),
        (above(0.9, 0.8, share), 0.1),
        (below(-12, -10, power), 2 * math.log(10)),
        (above(1, 1), 0.0),
        (below(1, 1), 0.0),
        # What is not positive is infinitely far below every positive bound.
        (below(0, 1e-9), INF),
        (above(-1, 0.1), -INF),
        (above(0, 0), 0.0),
        (between(3, 2, 4), math.log(4 / 3)),
        (between(5, 2, 4), -math.log(5 / 4)),
        (at_least(9, 9, of=10), 0.05),
        (at_least(8, 9, of=10), -0.05),
        (at_most(0, 0, of=4), 0.125),
        (at_most(2, 0, of=4), -0.375),
        (exactly(7, holds=True), INF),
        (exactly(7, holds=False), -INF),
        (all_of(5, above(3, 1), below(1.1, 1)), -math.log(1.1)),
    ],
)
def test_the_verdict_is_the_sign_of_the_margin(outcome, margin):
    assert outcome.margin == pytest.approx(margin)
    assert outcome.holds is (margin > 0)


def test_a_count_says_what_one_of_it_is():
    assert at_least(9, 9, of=10).step == at_most(1, 2, of=10).step == 0.1
    assert all_of(1.0, exactly(1.0, holds=True), at_least(3, 2, of=4)).step == 0.25
    assert above(2, 1).step == 0


@pytest.mark.parametrize(
    ("case", "control", "margin"),
    [(2, 0.5, math.log(2)), (2, 0.9, math.log(1 / 0.9)), (2, 1.5, -math.log(1.5))],
)
def test_the_nearer_of_case_and_control_counts(case, control, margin):
    claim = Claim("C1", "Above.", lambda c: above(c["value"], 1), "a", "b")
    cases = {"a": {"value": case}, "b": {"value": control}}
    assert nearest(claim, cases).margin == pytest.approx(margin)
    judged = judge(claim, cases)
    stands = judged["holds"] and not judged["control_holds"]
    found = margins.margins_of([claim], cases)["C1"]
    assert found["holds"] is stands is (margin > 0)
    exact = Claim("C2", "Same.", lambda c: exactly(1.0, holds=c["yes"]), "a", "b")
    found = margins.margins_of([exact], {"a": {"yes": True}, "b": {"yes": False}})
    assert found == {"C2": {"holds": True, "margin": None, "step": 0.0}}


def test_claims_on_time_have_no_margin_here():
    claim = Claim("C1", "Quick.", lambda c: below(1, 2), "a", "b", timed=True)
    assert margins.margins_of([claim], {}) == {}
    assert margins.settings_of(find("gru_speed")) == []
    assert margins.settings_of(find("cpu_speed"))


def test_every_seed_is_moved():
    @dataclasses.dataclass(frozen=True)
    class Config:
        size: int = 3
        seed: int = 1
        seeds: tuple[int, ...] = (0, 1)
        control_seeds: tuple[int, ...] = (5,)

    moved = margins.with_other_seeds(Config(), 100)
    assert moved == Config(seed=101, seeds=(100, 101), control_seeds=(105,))
    config = find("gru_parameters").small
    assert margins.with_other_seeds(config, 100) is None
    assert len(margins.settings_of(find("gru_parameters"))) == len(margins.SETTINGS)


def test_no_seed_of_a_shift_is_one_of_another():
    drawn = set()
    for shift in (0, *margins.SHIFTS):
        drawn |= {seed + shift for seed in range(100)}
    assert len(drawn) == 100 * (1 + len(margins.SHIFTS))
    for experiment in discover():
        for name, value in dataclasses.asdict(experiment.small).items():
            if name.endswith("seeds"):
                assert max(value) < 100, experiment.name


def test_a_process_that_ends_is_a_result_and_the_others_get_a_new_one():
    setting = margins.Setting("x", {"ATEN_CPU_CAPABILITY": "default"}, shift=100)
    found = dict(margins.run_apart(["nonsense", "parameter_counts"], setting))
    assert "ended with status 1" in found["nonsense"]["error"]
    assert "must be one of" in found["nonsense"]["error"]
    claims = found["parameter_counts"]["claims"]
    assert set(claims) == {"C38.count", "C38.step"}
    assert all(claim["holds"] for claim in claims.values())


def test_a_run_that_fails_says_why(monkeypatch):
    def broken(config):
        raise RuntimeError("no kernel\nhere")

    experiment = dataclasses.replace(find("parameter_counts"), run=broken)
    monkeypatch.setattr(margins, "find", lambda name: experiment)
    assert margins.run_here("x", 1, 0) == {"error": "RuntimeError: no kernel"}


@pytest.fixture
def runs(monkeypatch):
    """Names and settings of what was run; the first setting of all fails once."""
    made = []
    verdict = {"C38.count": {"holds": True, "margin": None, "step": 0.0}}
    verdict["C38.step"] = {"holds": True, "margin": 0.3, "step": 0.0}

    def run(names, setting):
        for name in names:
            made.append((name, setting.name))
            if len(made) == 1:
                yield name, {"error": "RuntimeError: once"}
            else:
                yield name, {"claims": verdict}

    monkeypatch.setattr(margins, "run_apart", run)
    return made


def test_what_is_stored_is_not_run_again(runs, tmp_path, capsys):
    command = ["experiments", "margins", "parameter_counts", "--quiet"]
    command += ["--out", str(tmp_path)]
    assert cli.main(command) == 0
    settings = [s.name for s in (*margins.SETTINGS, *margins.SEEDED)]
    assert runs == [("parameter_counts", name) for name in settings]
    data = margins.load(tmp_path / "margins.json")
    assert data["numbers"]["failed"] == 1
    assert data["numbers"]["runs"] == len(settings)
    assert "RuntimeError: once" in capsys.readouterr().out
    # Only what failed; then nothing; then all that is asked for again.
    for extra, count in (([], 1), ([], 0), (["--again"], len(settings))):
        del runs[:]
        runs.append("not the first")
        assert cli.main([*command, *extra]) == 0
        assert len(runs) == 1 + count
    assert margins.load(tmp_path / "margins.json")["numbers"]["failed"] == 0


def test_another_config_is_run_anew(runs, tmp_path):
    experiment = find("parameter_counts")
    stored = {}
    run = {"claims": {}}
    margins.keep(stored, experiment, margins.SETTINGS[0], run)
    everything = len(margins.settings_of(experiment))
    assert len(margins.jobs_of([experiment], stored)) == everything - 1
    small = dataclasses.replace(experiment.small, learning_rate=0.5)
    other = dataclasses.replace(experiment, small=small)
    assert len(margins.jobs_of([other], stored)) == everything
    margins.keep(stored, other, margins.SETTINGS[1], run)
    assert list(stored["parameter_counts"]["runs"]) == [margins.SETTINGS[1].name]


def stored_of(**by_setting):
    """A file of one experiment and one claim, with these margins and steps."""
    runs = {
        setting: {"claims": {"C1": {"holds": m > 0, "margin": m, "step": step}}}
        for setting, (m, step) in by_setting.items()
    }
    device = {"name": "a processor", "instructions": ["AVX2"]}
    versions = {"python": "3.11", "torch": "2.13"}
    machine = {"device": device, "versions": versions, "date": "2026-01-01"}
    return {"machine": machine, "experiments": {"toy": {"config": {}, "runs": runs}}}


def test_a_file_is_read_as_it_was_written(tmp_path):
    data = stored_of(default=(0.3, 0.0))
    margins.save(data, tmp_path / "x.json")
    assert margins.load(tmp_path / "x.json") == data
    lines = (tmp_path / "x.json").read_text(encoding="utf-8").splitlines()
    assert sum('"default"' in line for line in lines) == 1


def test_the_narrowest_of_switches_and_of_seeds_are_apart():
    found = stored_of(**{"default": (0.3, 0), "2 threads": (0.2, 0)})
    found["experiments"]["toy"]["runs"] |= {
        "seeds + 100": {"claims": {"C1": {"holds": True, "margin": 0.25, "step": 0.5}}},
        "ATen: AVX2": {"error": "RuntimeError: none"},
    }
    tables = margin_tables.tables(found)
    row = "| C1 | `toy` | 0.200 | 2 threads | 0.250, 0.5 of 2 runs | seeds + 100 |\n"
    assert tables["narrowest"].endswith(row)
    assert "| `toy` | ATen: AVX2 | RuntimeError: none |" in tables["failed"]
    assert margin_tables.numbers(found) == {
        "settings": len(margins.SETTINGS),
        "shifts": 5,
        "bound": 0.02,
        "experiments": 1,
        "runs": 4,
        "claims": 1,
        "exact": 0,
        "near": 0,
        "turned": 0,
        "failed": 1,
    }


@pytest.mark.parametrize(
    ("margin", "near", "turned"), [(0.019, 1, 0), (0.021, 0, 0), (-0.1, 0, 1)]
)
def test_near_and_turned_are_counted(margin, near, turned):
    found = margin_tables.numbers(stored_of(default=(margin, 0.0)))
    assert (found["near"], found["turned"]) == (near, turned)


def test_a_turned_verdict_gives_status_one(monkeypatch, tmp_path):
    verdict = {"C38.count": {"holds": False, "margin": -0.2, "step": 0.0}}
    monkeypatch.setattr(
        margins, "run_apart", lambda names, s: ((n, {"claims": verdict}) for n in names)
    )
    command = ["experiments", "margins", "parameter_counts", "--quiet"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 1
    assert "**−0.200**" in (tmp_path / "margins.narrowest.md").read_text("utf-8")


def test_an_outcome_cannot_be_told_what_it_is():
    with pytest.raises(TypeError):
        Outcome(number=1.0, margin=1.0, holds=False)
