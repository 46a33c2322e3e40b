"""The few cases of a test that runtime type checks are run on."""

import itertools

import pytest

from tests import conftest
from tests.conftest import each_value


def grid(**sizes):
    names = list(sizes)
    ranges = (range(size) for size in sizes.values())
    return [dict(zip(names, case, strict=True)) for case in itertools.product(*ranges)]


@pytest.mark.parametrize(
    "cases",
    [grid(a=5, b=5), grid(a=2, b=6, c=3), grid(a=4), [{"a": 0}, {"b": 1, "a": 0}]],
)
def test_every_value_of_every_parameter_is_there(cases):
    chosen = [cases[place] for place in each_value(cases)]
    assert {p for case in chosen for p in case.items()} == {
        p for case in cases for p in case.items()
    }


def test_they_are_as_few_as_the_longest_parameter_has_values():
    for sizes in ({"a": 5, "b": 5}, {"a": 2, "b": 6, "c": 3}, {"a": 4}, {"a": 1}):
        assert len(each_value(grid(**sizes))) == max(sizes.values())
    assert each_value([{}]) == [0]


SOURCE = """
import pytest

@pytest.mark.parametrize("a", [1, 2, 3])
@pytest.mark.parametrize("b", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_of_two(a, b):
    pass

@pytest.mark.parametrize("a", [1, 2])
def test_of_one(a):
    pass

def test_alone():
    pass
"""


class Kept:
    """What is left of a collection."""

    def pytest_collection_finish(self, session):
        self.names = [item.name for item in session.items]


def test_the_option_leaves_out_the_others(tmp_path):
    """Behind the marks: a case that they leave out stands for no value."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow", "utf-8")
    (tmp_path / "test_grid.py").write_text(SOURCE, "utf-8")
    kept = Kept()
    options = ["--collect-only", "-q", "-p", "no:faulthandler", "-m", "not slow"]
    options += ["--each-value", f"--rootdir={tmp_path}", str(tmp_path / "test_grid.py")]
    assert pytest.main(options, plugins=[conftest, kept]) == 0
    assert kept.names == [
        "test_of_two[1-1]",
        "test_of_two[1-3]",
        "test_of_two[3-2]",
        "test_of_one[1]",
        "test_of_one[2]",
        "test_alone",
    ]
