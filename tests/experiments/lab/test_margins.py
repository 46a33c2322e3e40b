"""Margins: verdict and distance agree, settings are what they say, a run goes on."""

import dataclasses
import math

import pytest

from experiments.lab import commands, margin_tables, margins
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


def of(**case):
    return case


@pytest.mark.parametrize(
    ("check", "case", "margin"),
    [
        (above("x", 1), of(x=1.1), math.log(1.1)),
        (below("x", 1), of(x=1.1), -math.log(1.1)),
        (above("x", 0.8, share), of(x=0.9), 0.1),
        (below("x", -10, power), of(x=-12), 2 * math.log(10)),
        (above("x", 1), of(x=1), 0.0),
        (below("x", 1), of(x=1), 0.0),
        # What is not positive is infinitely far below every positive bound.
        (below("x", 1e-9), of(x=0), INF),
        (above("x", 0.1), of(x=-1), -INF),
        (above("x", 0), of(x=0), 0.0),
        (between("x", 2, 4), of(x=3), math.log(4 / 3)),
        (between("x", 2, 4), of(x=5), -math.log(5 / 4)),
        (at_least("x", 9, of="n"), of(x=9, n=10), 0.05),
        (at_least("x", 9, of="n"), of(x=8, n=10), -0.05),
        (at_most("x", 0, of="n"), of(x=0, n=4), 0.125),
        (at_most("x", 0, of="n"), of(x=2, n=4), -0.375),
        (exactly("x", lambda case: case["x"] == 7), of(x=7), INF),
        (exactly("x", lambda case: case["x"] == 7), of(x=6), -INF),
        (all_of(above("x", 1), below("y", 1)), of(x=3, y=1.1), -math.log(1.1)),
        (above(lambda case: case["x"] - 1, 1), of(x=3), math.log(2)),
        (above("x.1.y", 1), of(x=[{}, {"y": 2}]), math.log(2)),
    ],
)
def test_the_verdict_is_the_sign_of_the_margin(check, case, margin):
    outcome = check(case)
    assert outcome.margin == pytest.approx(margin)
    assert outcome.holds is (margin > 0)


def test_the_number_is_the_quantity_or_that_of_the_first_check():
    case = {"x": 3, "y": {"z": 5}}
    assert above("y.z", 1)(case).number == 5
    assert exactly("x", lambda case: True)(case).number == 3.0
    both = above("x", 1), below("y.z", 9)
    assert all_of(*both)(case).number == 3
    assert all_of(*both, number="y.z")(case).number == 5


def test_a_quantity_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"no `z` of `y.z` in \['a', 'b'\]"):
        above("y.z", 1)({"y": {"a": 1, "b": 2}})


def test_a_count_says_what_one_of_it_is():
    case = of(nine=9, one=1, three=3, ten=10, four=4)
    assert at_least("nine", 9, of="ten")(case).step == 0.1
    assert at_most("one", 2, of="ten")(case).step == 0.1
    both = all_of(exactly("one", lambda case: True), at_least("three", 2, of="four"))
    assert both(case).step == 0.25
    assert above("nine", 1)(case).step == 0


@pytest.mark.parametrize(
    ("case", "control", "margin"),
    [(2, 0.5, math.log(2)), (2, 0.9, math.log(1 / 0.9)), (2, 1.5, -math.log(1.5))],
)
def test_the_nearer_of_case_and_control_counts(case, control, margin):
    claim = Claim("C1", "Above.", above("value", 1), "a", "b")
    cases = {"a": {"value": case}, "b": {"value": control}}
    assert nearest(claim, cases).margin == pytest.approx(margin)
    judged = judge(claim, cases)
    stands = judged["holds"] and not judged["control_holds"]
    verdict = margins.margins_of([claim], cases)["C1"]
    assert verdict["holds"] is stands is (margin > 0)
    exact = Claim("C2", "Same.", exactly("yes", lambda case: case["yes"]), "a", "b")
    verdict = margins.margins_of([exact], {"a": {"yes": True}, "b": {"yes": False}})
    assert verdict == {"C2": {"holds": True, "margin": None, "step": 0.0}}


def test_claims_on_time_have_no_margin_here():
    claim = Claim("C1", "Quick.", below("x", 2), "a", "b", timed=True)
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
    runs = dict(margins.run_apart(["nonsense", "parameter_counts"], setting))
    assert "ended with status 1" in runs["nonsense"]["error"]
    assert "must be one of" in runs["nonsense"]["error"]
    claims = runs["parameter_counts"]["claims"]
    assert set(claims) == {"C38.count", "C38.step"}
    assert all(claim["holds"] for claim in claims.values())


def test_a_run_that_fails_says_why(monkeypatch):
    def broken(config, track):
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
    command = ["margins", "parameter_counts", "--quiet"]
    command += ["--out", str(tmp_path)]
    assert commands.main(command) == 0
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
        assert commands.main([*command, *extra]) == 0
        assert len(runs) == 1 + count
    assert margins.load(tmp_path / "margins.json")["numbers"]["failed"] == 0


def test_counts_are_made_again_where_a_merge_kept_those_of_one_side(runs, tmp_path):
    path = tmp_path / "margins.json"
    command = ["margins", "parameter_counts", "--quiet", "--out", str(tmp_path)]
    assert commands.main(command) == 0
    whole = path.read_text("utf-8")
    data = margins.load(path)
    data["numbers"]["runs"] += 1
    margins.save(data, path)
    assert commands.main([*command, "--no-run"]) == 0
    assert path.read_text("utf-8") == whole


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
        setting: {
            "claims": {"C1": {"holds": m > 0, "margin": m, "step": step}},
            "on": 0,
        }
        for setting, (m, step) in by_setting.items()
    }
    device = {"name": "a processor", "instructions": ["AVX2"]}
    versions = {"python": "3.11", "torch": "2.13"}
    machines = [{"device": device, "versions": versions, "date": "2026-01-01"}]
    return {"machines": machines, "experiments": {"toy": {"config": {}, "runs": runs}}}


def test_each_machine_is_named_with_its_runs():
    data = stored_of(**{"default": (0.3, 0), "2 threads": (0.2, 0)})
    device = {"name": "another processor", "instructions": ["AVX512"]}
    other = {**data["machines"][0], "device": device, "commit": "x"}
    assert margins.place(data["machines"], other) == 1
    assert margins.place(data["machines"], {**other, "date": "2026-02-02"}) == 1
    data["experiments"]["toy"]["runs"]["2 threads"]["on"] = 1
    assert margin_tables.tables(data)["run"] == (
        "Measured by `python -m experiments margins`: 1 run on a processor, AVX2, with "
        "Python 3.11 and torch 2.13, the last on 2026-01-01; 1 run on another "
        "processor, AVX512, with Python 3.11 and torch 2.13, the last on 2026-02-02.\n"
    )


def test_a_file_is_read_as_it_was_written(tmp_path):
    data = stored_of(default=(0.3, 0.0))
    margins.save(data, tmp_path / "x.json")
    assert margins.load(tmp_path / "x.json") == data
    lines = (tmp_path / "x.json").read_text(encoding="utf-8").splitlines()
    assert sum('"default"' in line for line in lines) == 1


def test_the_narrowest_of_switches_and_of_seeds_are_apart():
    stored = stored_of(**{"default": (0.3, 0), "2 threads": (0.2, 0)})
    stored["experiments"]["toy"]["runs"] |= {
        "seeds + 100": {
            "claims": {"C1": {"holds": True, "margin": 0.25, "step": 0.5}},
            "on": 0,
        },
        "ATen: AVX2": {"error": "RuntimeError: none", "on": 0},
    }
    tables = margin_tables.tables(stored)
    row = "| C1 | `toy` | 0.200 | 2 threads | 0.250, 0.5 of 2 runs | seeds + 100 |\n"
    assert tables["narrowest"].endswith(row)
    assert "| `toy` | ATen: AVX2 | RuntimeError: none |" in tables["failed"]
    assert margin_tables.numbers(stored) == {
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
    numbers = margin_tables.numbers(stored_of(default=(margin, 0.0)))
    assert (numbers["near"], numbers["turned"]) == (near, turned)


def test_a_turned_verdict_gives_status_one(monkeypatch, tmp_path):
    verdict = {"C38.count": {"holds": False, "margin": -0.2, "step": 0.0}}
    monkeypatch.setattr(
        margins, "run_apart", lambda names, s: ((n, {"claims": verdict}) for n in names)
    )
    command = ["margins", "parameter_counts", "--quiet"]
    assert commands.main([*command, "--out", str(tmp_path)]) == 1
    assert "**−0.200**" in (tmp_path / "margins.narrowest.md").read_text("utf-8")


def test_an_outcome_cannot_be_told_what_it_is():
    with pytest.raises(TypeError):
        Outcome(number=1.0, margin=1.0, holds=False)


def test_a_margin_has_moved_where_the_default_has_another():
    """What was not run at the default has nothing to differ from."""
    stored = stored_of(**{"default": (0.3, 0), "2 threads": (0.2, 0)})
    other = {"C9": {"holds": True, "margin": 0.5, "step": 0.0}}
    stored["experiments"]["alone"] = {
        "config": {},
        "runs": {"2 threads": {"claims": other}, "4 threads": {"claims": other}},
    }
    same = stored["experiments"]["toy"]["runs"]["default"]
    stored["experiments"]["toy"]["runs"]["4 threads"] = same
    by_name = {row[0]: row[1:3] for row in margin_tables.by_setting(stored)}
    assert by_name["default"] == ["1", "0"]
    assert by_name["2 threads"] == ["2", "1"]
    assert by_name["4 threads"] == ["2", "0"]
