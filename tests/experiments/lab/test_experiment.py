"""What every experiment rests on: claims, records, discovery, files."""

import json
import math
import os
import subprocess
import types
from dataclasses import dataclass

import pytest
import torch

from experiments.lab import experiment as experiments
from experiments.lab import provenance, seeding
from experiments.lab.claim import Claim, above, judge
from experiments.lab.experiment import Experiment, from_module
from experiments.lab.files import write_whole
from experiments.lab.numbers import all_but, each, everything
from experiments.lab.record import load, measure, rounded, save
from experiments.lab.statistics import (
    by_place,
    log10_summaries,
    log10_summary,
    median,
    spread,
)


@dataclass(frozen=True)
class Config:
    size: int
    seeds: tuple[int, ...] = (0,)


CLAIM = Claim(
    "C99.large", "The value is above 1.", above("value", 1), "cause", "no_cause"
)


def toy(value=math.pi, **changes):
    def run(config, track=experiments.untracked):
        total = sum(track(range(config.size), "toy"))
        return {
            "numbers": {"total": total, "value": value},
            "series": {"values": [value]},
            "cases": {"cause": {"value": value}, "no_cause": {"value": 0.0}},
        }

    parts = {
        "name": "toy",
        "title": "A toy",
        "small": Config(2),
        "full": Config(4),
        "run": run,
        "claims": (CLAIM,),
        "tables": lambda record: {},
        "figures": {},
    }
    return Experiment(**{**parts, **changes})


def test_judge_applies_one_check_to_case_and_control():
    judged = judge(CLAIM, {"cause": {"value": 2.0}, "no_cause": {"value": 0.5}})
    assert judged["holds"] is True
    assert judged["number"] == 2.0
    assert judged["control_holds"] is False
    assert judged["control_number"] == 0.5
    assert CLAIM.row == "C99"


def test_judge_names_a_case_that_was_not_measured():
    with pytest.raises(ValueError, match=r"C99.large: `control` must be one of"):
        judge(CLAIM, {"cause": {"value": 2.0}})


def test_record_holds_what_is_needed_to_repeat_the_run():
    record = measure(toy())
    assert record["run"]["size"] == "small"
    assert record["run"]["config"] == {"size": 2, "seeds": [0]}
    assert record["run"]["versions"]["torch"] == torch.__version__
    assert set(record["run"]["versions"]) == {"python", "torch", "numpy", "seqref"}
    assert record["run"]["device"]["kind"] == "cpu"
    assert set(record["run"]) >= {"commit", "date", "significant_digits"}
    assert record["numbers"] == {"total": 1, "value": 3.14159}
    assert measure(toy(), full=True)["numbers"]["total"] == 6
    assert record["claims"]["C99.large"]["holds"] is True


def test_claims_are_judged_on_the_rounded_numbers():
    # 1 + 1e-9 is above 1 before rounding and 1 after it.
    record = measure(toy(value=1 + 1e-9))
    assert record["cases"]["cause"]["value"] == 1.0
    assert record["claims"]["C99.large"]["holds"] is False


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_record_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match=r"`toy.numbers.value` must be finite"):
        measure(toy(value=value))


def test_record_refuses_tensors():
    with pytest.raises(TypeError, match=r"`toy.numbers.value` must be a number"):
        measure(toy(value=torch.tensor(1.0)))


def test_record_needs_three_parts():
    with pytest.raises(TypeError, match=r"`run` must return `series` and `cases`"):
        measure(toy(run=lambda config, track: {"numbers": {}}))


def test_rounding_keeps_kinds():
    assert rounded({"a": (1, True, None, "x", 123456.789)}, "r") == {
        "a": [1, True, None, "x", 123457.0]
    }
    assert rounded(1.23456789e-30, "r") == 1.23457e-30


def test_record_survives_a_file(tmp_path):
    record = measure(toy())
    path = save(record, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == record
    assert load("toy", tmp_path) == record
    with pytest.raises(ValueError, match=r"must hold other.json"):
        load("other", tmp_path)
    path.rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match="must be the record of 'other'"):
        load("other", tmp_path)


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file.txt"
    write_whole(path, "before\n")

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "after\n")
    assert path.read_text(encoding="utf-8") == "before\n"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_discovery_finds_every_module_and_no_package():
    names = experiments.names()
    assert "forget_gate" in names
    assert {"lab", "margins", "_sweep", "sweep"} & set(names) == set()
    assert [e.name for e in experiments.discover()] == names
    with pytest.raises(ValueError, match="`name` must be one of"):
        experiments.find("margins")


def test_a_module_without_its_parts_is_refused_by_name():
    module = types.ModuleType("experiments.models.bare")
    module.__doc__ = "Bare."
    with pytest.raises(TypeError, match=r"experiment bare: .* got None"):
        from_module(module)
    module.experiment = toy()
    assert (from_module(module).name, from_module(module).title) == ("bare", "Bare")
    module.__doc__ = None
    with pytest.raises(TypeError, match="must have a docstring"):
        from_module(module)


def test_full_is_what_the_class_of_small_has_by_default():
    @dataclass(frozen=True)
    class Sizes:
        size: int = 9

    experiment = Experiment(small=Sizes(2), run=lambda config, track: {})
    assert experiment.full == Sizes(9)
    assert Experiment(small=Sizes(2), full=Sizes(3), run=print).full == Sizes(3)
    with pytest.raises(TypeError, match="`full` must be of the class of `small`"):
        Experiment(small=Sizes(2), full=Config(3), run=print)
    with pytest.raises(TypeError, match=r"`small` must be a value of a dataclass"):
        Experiment(small=2, run=print)
    with pytest.raises(TypeError, match="either `measure` with `cases`, or `run`"):
        Experiment(small=Sizes(2))


def test_a_number_that_is_declared_twice_is_refused():
    twice = toy(numbers=[{"total": "cause.value"}])
    with pytest.raises(ValueError, match="declared twice: total"):
        twice.result(Config(2))


def test_all_but_what_is_said_otherwise():
    cases = {"a": {"x": 1, "y": 2, "z": [3]}, "b": {"x": 4}}
    assert everything(cases) == {"a_x": 1, "a_y": 2, "b_x": 4}
    assert all_but("x")(cases) == {"a_y": 2}
    assert all_but("a_x")(cases) == {"a_y": 2, "b_x": 4}


def test_cases_are_measured_one_by_one_and_series_kept_apart():
    experiment = Experiment(
        small=Config(2),
        full=Config(4),
        cases={"one": 1, "two": 2},
        measure=lambda case, config: {"value": case * config.size, "line": [case]},
        series=["line"],
        axes=lambda config: {"x": list(range(config.size))},
        numbers=[
            each("value"),
            each("value", ""),
            {"of_two": "two.value", "drawn": "series.line.two.0"},
        ],
    )
    assert experiment.result(Config(3)) == {
        "numbers": {
            "one_value": 3,
            "two_value": 6,
            "one": 3,
            "two": 6,
            "of_two": 6,
            "drawn": 2,
        },
        "series": {"x": [0, 1, 2], "line": {"one": [1], "two": [2]}},
        "cases": {"one": {"value": 3}, "two": {"value": 6}},
    }


def test_seeding_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeding.seeded(1):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeding.seeded(1):
        assert torch.equal(torch.rand(3), inside)
    first = torch.rand(3, generator=seeding.generator(2))
    assert torch.equal(torch.rand(3, generator=seeding.generator(2)), first)
    draws = seeding.generator(3)
    for size in ((2, 3), (4,)):
        numbers = seeding.normal(draws, *size)
        assert numbers.dtype == torch.float64
        assert numbers.shape == size
    assert not torch.equal(seeding.normal(3, 4), numbers)
    assert torch.equal(seeding.normal(3, 2, 3), seeding.normal(3, 6).reshape(2, 3))


def test_commit_says_whether_the_code_was_changed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    assert provenance.commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "code.py").write_text("x = 1\n", encoding="utf-8")
    git("add", "src")
    git("commit", "-q", "-m", "first")
    commit = provenance.commit(tmp_path)
    assert commit is not None
    assert len(commit["hash"]) == 40
    assert commit["clean"] is True
    (tmp_path / "page.md").write_text("no code\n", encoding="utf-8")
    assert provenance.commit(tmp_path) == commit
    (tmp_path / "src" / "code.py").write_text("x = 2\n", encoding="utf-8")
    assert provenance.commit(tmp_path) == {**commit, "clean": False}
    git("commit", "-q", "-a", "-m", "second")
    assert provenance.commit(tmp_path)["clean"] is True
    (tmp_path / "docs" / "pages").mkdir(parents=True)
    (tmp_path / "docs" / "pages" / "page.py").write_text("x = 1\n", encoding="utf-8")
    assert provenance.commit(tmp_path)["clean"] is False


def test_statistics():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert log10_summary([0.1, 10.0, 1.0]) == {"median": 0, "low": -1, "high": 1}
    columns = log10_summaries([[0.1, 1.0], [10.0, 1.0], [1.0, 1.0]])
    assert columns == [log10_summary([0.1, 10.0, 1.0]), log10_summary([1.0])]
    assert math.copysign(1, log10_summary([1 - 1e-15])["median"]) == 1
    with pytest.raises(ValueError, match="`values` must be positive, got 0"):
        log10_summary([1.0, 0.0])


def test_a_summary_of_lists_is_taken_place_by_place():
    rows = [{"a": [1, 5], "b": [2]}, {"a": [3, 4], "b": [0]}]
    assert by_place(rows, max) == {"a": [3, 5], "b": [2]}
    with pytest.raises(ValueError, match="shorter"):
        by_place([{"a": [1, 5]}, {"a": [3]}], max)
