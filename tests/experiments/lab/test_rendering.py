"""Tables, numbers and figures."""

import builtins
import importlib
import re
import sys
from dataclasses import dataclass

import pytest

from experiments.lab import drawing, rendering
from experiments.lab.experiment import Experiment
from experiments.lab.progress import bars
from experiments.lab.tables import caption, number, power_of_ten, table

NARROW = "\N{NO-BREAK SPACE}"


def test_table_needs_rows_of_one_width():
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| :-- | --: |\n| x | 1 |\n"
    with pytest.raises(ValueError, match="each row must have 2 cells"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1024, "1,024"),
        (-3, "−3"),
        (0.7310586, "0.731"),
        (0.99961, "1.00"),
        (103.16, "103"),
        (-0.2358, "−0.236"),
        (2.5e-14, f"2.5{NARROW}×{NARROW}10⁻¹⁴"),
        (-2.5e7, f"−2.5{NARROW}×{NARROW}10⁷"),
    ],
)
def test_numbers_read_as_they_are(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("logarithm", "text"),
    [
        (0.0, "1.0"),
        (-30.103, f"8{NARROW}×{NARROW}10⁻³¹"),
        (-5.01, f"1{NARROW}×{NARROW}10⁻⁵"),
        (2.0668, "117"),
        (-400.0, f"1{NARROW}×{NARROW}10⁻⁴⁰⁰"),
    ],
)
def test_powers_of_ten(logarithm, text):
    assert power_of_ten(logarithm) == text


def test_caption_says_what_a_reader_must_know():
    run = {
        "size": "full",
        "config": {"seeds": [0, 1]},
        "device": {"name": "A Processor", "threads": 1},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "commit": {"hash": "0123456789abcdef", "clean": False},
        "date": "2026-01-02",
    }
    text = caption({"experiment": "toy", "run": run})
    assert text == (
        "Measured by `python -m experiments run toy --full`; A Processor, 1 thread; "
        "Python 3.11.7, torch 2.13.0; 2 seeds; commit 0123456789, with changes not "
        "committed; 2026-01-02.\n"
    )


def line(figure, record, theme):
    axes = figure.subplots()
    axes.plot([0, 1], record["y"], color=theme.colours[0])
    axes.set_title("A line")


def test_figures_are_the_same_bytes_and_hold_no_date():
    pytest.importorskip("matplotlib")
    record = {"y": [0.0, 1.0]}
    first = drawing.draw(line, record, drawing.LIGHT)
    assert first == drawing.draw(line, record, drawing.LIGHT)
    assert first != drawing.draw(line, record, drawing.DARK)
    assert first != drawing.draw(line, {"y": [0.0, 2.0]}, drawing.LIGHT)
    assert 'width="510pt"' in first
    assert "<dc:date" not in first
    # Letters are paths, so the page needs no font of ours.
    assert "<text" not in first


def test_a_readers_own_settings_do_not_change_a_figure():
    matplotlib = pytest.importorskip("matplotlib")
    record = {"y": [0.0, 1.0]}
    expected = drawing.draw(line, record, drawing.LIGHT)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30}):
        assert drawing.draw(line, record, drawing.LIGHT) == expected
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([0.0, 5.0], [0.0, 5.0]),
        ([0.0, 0.0], [-0.5, 0.5]),
        ([0.0, 0.5, 1.0], [-0.5, 0.5, 1.5]),
        ([0.0, 0.0, 0.6, 9.0], [-0.8, 0.2, 1.2, 9.0]),
    ],
)
def test_names_of_lines_do_not_touch(values, places):
    assert drawing.spaced(values, 1.0) == pytest.approx(places)


def contrast(colour, background):
    def luminance(text):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(colour), luminance(background)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("theme", "background"), [(drawing.LIGHT, "#ffffff"), (drawing.DARK, "#1e2129")]
)
def test_every_colour_can_be_read_as_text(theme, background):
    for colour in (theme.ink, theme.muted, *theme.colours):
        assert contrast(colour, background) >= 4.5, colour


@dataclass(frozen=True)
class Nothing:
    pass


def test_rendering_removes_what_a_record_no_longer_gives(tmp_path):
    toy = Experiment(
        name="toy",
        title="A toy",
        small=Nothing(),
        run=lambda config, track: {},
        tables={"now": lambda record: "| a |\n"},
    )
    for name in ("toy.old.md", "toy.old.dark.svg", "other.old.md"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    run = {
        "size": "small",
        "config": {},
        "device": {"name": "p", "threads": 1},
        "versions": {"python": "3", "torch": "2"},
        "commit": None,
        "date": "2026-01-02",
    }
    rendering.render(toy, {"experiment": "toy", "run": run}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "other.old.md",
        "toy.now.md",
        "toy.run.md",
    ]


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        ("tqdm", lambda: bars([1], "x"), ".[train]"),
        ("matplotlib", drawing.load_matplotlib, ".[bench]"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, module, call, extra):
    original = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.split(".")[0] == module:
            raise ImportError(f"No module named {name!r}")
        return original(name, *arguments, **keywords)

    def refuse_import(name, package=None):
        return refuse(name)

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(importlib, "import_module", refuse_import)
    with pytest.raises(RuntimeError, match=re.escape(extra)):
        call()
