"""What a table says of a ratio, and of one that is not there."""

from experiments.lab import ratio_cells

ROW = {
    "peak": 200,
    "ratios": {
        "fast": {"median": 0.5, "low": 0.25, "high": 1.0, "peak": 100},
        "compiled": {"median": 12.345, "low": 12.0, "high": 13.0, "peak": None},
    },
}


def test_a_ratio_has_its_quartiles():
    assert ratio_cells.ratio("fast")(ROW) == "0.50 (0.25 to 1.00)"
    assert ratio_cells.ratio("compiled")(ROW) == "12.35 (12.00 to 13.00)"
    assert ratio_cells.ratio("absent")(ROW) == "none"


def test_memory_is_over_that_of_the_base():
    assert ratio_cells.memory("fast")(ROW) == "0.50"
    assert ratio_cells.memory("compiled")(ROW) == "none"
    assert ratio_cells.memory("absent")(ROW) == "none"
    assert ratio_cells.memory("fast")(ROW | {"peak": 0}) == "none"
    assert ratio_cells.memory("fast")(ROW | {"peak": None}) == "none"


def test_memory_over_several_rows():
    assert ratio_cells.memory_span([ROW, ROW | {"peak": 80}], "fast") == "0.50 to 1.25"
    assert ratio_cells.memory_span([ROW], "compiled") == "none"
