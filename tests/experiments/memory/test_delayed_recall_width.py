"""Delayed recall over widths: the grid, its pools and its table."""

from dataclasses import replace

from experiments.lab.experiment import find

WIDE = find("delayed_recall_width")


def test_the_grid_is_wider_than_the_other_and_else_the_same():
    wide, other = WIDE.full, find("delayed_recall").full
    for name in ("updates", "batch_size", "tests", "seeds"):
        assert getattr(wide, name) == getattr(other, name)
    assert wide.lag in other.lags
    assert set(wide.hidden_sizes) & set(other.hidden_sizes)
    assert max(wide.hidden_sizes) > max(other.hidden_sizes)
    assert max(wide.learning_rates) > max(other.learning_rates)


def test_a_case_takes_the_rates_of_one_width_together():
    sizes = {"hidden_sizes": (4, 8), "learning_rates": (0.1, 0.2, 0.3)}
    config = replace(WIDE.small, lag=6, updates=1, seeds=(0, 1), **sizes)
    result = WIDE.result(config)
    rows = result["series"]["rows"]
    for row in rows:
        same = [
            other
            for other in rows
            if other["recipe"] == row["recipe"]
            and other["hidden_size"] == row["hidden_size"]
        ]
        assert len(same) == 3
        case = result["cases"][f"{row['recipe']}_{row['hidden_size']}"]
        assert case["good"] == sum(other["good"] for other in same)
        assert case["runs"] == 6
        assert (row["horizon"], row["lag"], row["updates"]) == (6, 6, 1)


def test_the_table_has_each_rate_and_all_together():
    rows = [
        {
            "recipe": recipe,
            "learning_rate": rate,
            "hidden_size": width,
            "scores": [0.5, 1.0],
            "made": [3, 2],
            "good": good,
        }
        for recipe, width, rate, good in (
            *(("lstm", 32, 0.01, 0), ("lstm", 32, 0.02, 1)),
            *(("lstm", 256, 0.01, 2), ("lstm", 256, 0.02, 1)),
            *(("gru", 32, 0.01, 2), ("gru", 32, 0.02, 2)),
        )
    ]
    text = WIDE.tables["solved"].text({"series": {"rows": rows}})
    lines = text.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[0].endswith("| learning rate | width 32 | width 256 |")
    assert lines[2:4] == [
        "| LSTM, default | 0.01 | 0 of 2 | 2 of 2 |",
        "| LSTM, default | 0.02 | 1 of 2 | 1 of 2 |",
    ]
    assert lines[4].startswith("| LSTM, default | all | 1 of 4<br>(")
    assert "| 3 of 4<br>(" in lines[4]
    assert lines[5] == "| GRU, default | 0.01 | 2 of 2 |  |"
    assert lines[7].startswith("| GRU, default | all | 4 of 4<br>(")
