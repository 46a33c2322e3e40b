"""Tables that are declared."""

import pytest

from experiments import lab

ROWS = [
    {"kind": "b", "n": 10, "value": 1},
    {"kind": "a", "n": 10, "value": 2},
    {"kind": "b", "n": 5, "value": 3},
]


@pytest.mark.parametrize(
    "columns", [lambda n: f"n = {n}", {10: "n = 10", 5: "n = 5"}], ids=["made", "given"]
)
def test_a_pivot_has_a_line_a_kind_and_a_column_a_value(columns):
    pivot = lab.Pivot(
        {"kind": lambda row: row["kind"]}, "n", columns, lab.cell("value")
    )
    assert pivot.text({"series": {"rows": ROWS}}).splitlines() == [
        "| kind | n = 10 | n = 5 |",
        "| :-- | --: | --: |",
        "| b | 1 | 3 |",
        "| a | 2 |  |",
    ]


def test_a_spread_is_written_with_its_ends():
    row = {"error": {"median": 0.25, "low": 0.125, "high": 1.0}}
    assert lab.with_span("error")(row) == "0.250 (0.125 to 1.00)"
    assert lab.with_span("error", lab.number, 2)(row) == "0.25 (0.12 to 1.0)"
    row["error"]["mean"] = 0.3
    assert lab.with_span("error")(row).startswith("0.250 ")
    del row["error"]["median"]
    assert lab.with_span("error", "{:.1f}".format)(row) == "0.3 (0.1 to 1.0)"
    assert lab.span("error", 2)(row) == "0.12 to 1.0"


def test_a_spread_has_three_columns():
    cases = {"a": {"error": {"median": 2, "low": 1, "high": 3}}}
    made = lab.Table(lab.spread_columns("error"), labels={"a": "A"}, heading="case")
    assert made.text({"cases": cases}).splitlines() == [
        "| case | median | lowest | highest |",
        "| :-- | --: | --: | --: |",
        "| A | 2 | 1 | 3 |",
    ]


def test_columns_of_words_stand_to_the_left():
    columns = {"name": "name", "words": lab.cell("words", str), "count": "count"}
    made = lab.Table(rows="rows", columns=columns, words=("words",))
    text = made.text({"rows": [{"name": 1, "words": "a, b", "count": 2}]})
    assert text.splitlines()[1] == "| :-- | :-- | --: |"
    named = lab.Table(
        columns={"words": lab.cell("words", str)}, labels={"x": "x"}, words=("words",)
    )
    text = named.text({"cases": {"x": {"words": "a"}}})
    assert text.splitlines()[1] == "| :-- | :-- |"
