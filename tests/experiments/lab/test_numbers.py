"""Numbers of each case, and of some of them."""

import pytest

from experiments import lab
from experiments.lab.numbers import numbers_of

CASES = {"a": {"x": 1, "of": {"y": 2}}, "b": {"x": 3}}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (lab.each("x"), {"a_x": 1, "b_x": 3}),
        (lab.each("of.y"), {"a_of_y": 2}),
        (lab.each("x", "word", str), {"a_word": "1", "b_word": "3"}),
        (lab.each("x", cases=["b", "c"]), {"b_x": 3}),
        (lab.each(lambda case: case["of"], "of", len, ["a"]), {"a_of": 1}),
        ({"y": "a.of.y"}, {"y": 2}),
    ],
)
def test_numbers_are_those_of_the_cases_that_are_asked(declared, expected):
    assert numbers_of([declared], CASES, {}) == expected
