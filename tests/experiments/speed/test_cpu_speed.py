"""What is timed is what it is called, and equal where it is called equal."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.lab.experiment import find
from experiments.lab.record import judgements, load, measure
from experiments.speed import _cpu_contestants as parts
from experiments.speed import cpu_speed as experiment
from experiments.speed import gru_speed
from experiments.speed._cpu_tables import disturbed
from experiments.speed._padding_packing import lengths_of

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def record():
    # The clock of the tests: what is timed may be small.
    small = replace(experiment.SMALL, sizes=((2, 3, 4), (2, 4, 4)), rounds=2)
    return measure(replace(find("cpu_speed"), small=small))


@pytest.mark.parametrize("claim", [c.id for c in experiment.CLAIMS if not c.timed])
def test_claim_holds_and_control_fails(record, claim):
    judged = record["claims"][claim]
    assert judged["holds"]
    assert not judged["control_holds"]
    assert judgements(find("cpu_speed"), record["cases"])[claim] == judged


def test_where_all_takes_equally_long_no_claim_on_time_stands(record):
    for claim in experiment.CLAIMS:
        if claim.timed:
            judged = record["claims"][claim.id]
            assert not judged["holds"]
            assert judged["number"] == judged["control_number"] == 1


def test_sizes_are_those_of_the_gru():
    assert experiment.FULL.sizes == gru_speed.FULL.sizes
    assert experiment.FULL.threads == gru_speed.FULL.threads


@pytest.mark.parametrize("width", [64, 256, 512])
def test_equal_parameters_are_equal_but_for_the_vectors(width):
    found = parts.parameters(width)
    assert found["lstm"] == 8 * width**2 + 8 * width
    assert found["gru"] == 6 * width**2 + 6 * width
    assert found["transformer"] == 12 * width**2 + 13 * width
    assert found["transformer_equal"] == 8 * width**2 + 11 * width


def test_the_transformer_layer_looks_back_only_and_has_no_dropout():
    torch.manual_seed(0)
    layer = parts.CausalLayer(64, 128).double()
    x = torch.randn(2, 6, 64, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    y = layer(x, mask)
    assert torch.equal(y, layer(x, mask))
    x[:, 4] += 1
    changed = (layer(x, mask) - y).abs().amax((0, 2)) > 0
    assert changed.tolist() == [False] * 4 + [True] * 2


@pytest.mark.parametrize("steps", [5, 40])
def test_multiply_adds_are_those_of_a_counter(steps):
    """The counter of torch counts two operations for a multiply-add."""
    width = 64
    x = torch.randn(1, steps, width)
    math = nn.attention.SDPBackend.MATH
    mask = nn.Transformer.generate_square_subsequent_mask(steps)
    found = {}
    for name, module in parts.modules(width, 0).items():
        arguments = (x, mask) if name == "transformer" else (x,)
        if name in ("lstm", "transformer"):
            counter = FlopCounterMode(display=False)
            plain = gru_speed.one_setting(1, onednn=False)
            with nn.attention.sdpa_kernel(math), plain, counter:
                module(*arguments)
            found[name] = counter.get_total_flops() / 2
    assert found == parts.multiply_adds(steps, width)


def test_all_contestants_train_the_same_width(monkeypatch):
    made = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a: made.append(grad(*a)) or made[-1]
    )
    runs = parts.contestants((2, 3, 4), 0.5, 0, "cpu", experiment.ALL)
    assert list(runs) == ["padded", "again", *experiment.ALL]
    for run in runs.values():
        run()
    counts = parts.parameters(4)
    names = ["lstm", "lstm", "gru", "lstm", "transformer", "transformer_equal"]
    for name, (x_bar, *others) in zip(names, made, strict=True):
        assert x_bar.shape == (2, 3, 4)
        assert sum(other.numel() for other in others) == counts[name]


def test_lines_that_sentences_quote_are_not_disturbed():
    """Of each setting the lowest and highest ratios, and the edges that are quoted."""
    series = load("cpu_speed", DOCS / "_data")["series"]
    for setting in {row["setting"] for row in series["rows"]}:
        here = [row for row in series["rows"] if row["setting"] == setting]
        assert sum(disturbed(row) for row in here) <= 1
        for name in ("packed", "transformer", "transformer_equal", "again"):
            found = [row for row in here if name in row["ratios"]]
            found.sort(key=lambda row: row["ratios"][name]["median"])
            assert not disturbed(found[0]), (setting, name)
            assert not disturbed(found[-1]), (setting, name)
    edges = {tuple(row["size"]): row for row in series["edges"]}
    pattern = re.compile(r"cpu_speed\.numbers\.b(\d+)_t(\d+)_d(\d+)_")
    texts = [*DOCS.rglob("*.md"), *DOCS.rglob("*.yml")]
    found = {m for text in texts for m in pattern.findall(text.read_text("utf-8"))}
    assert len(found) >= 3
    for size in found:
        assert not disturbed(edges[tuple(map(int, size))]), size


def test_half_of_each_packed_batch_is_real():
    full = experiment.FULL
    for batch, steps, _ in (*full.sizes, *full.edges, *full.more_sizes):
        lengths = lengths_of(full.share, batch, steps)
        real = lengths.double().mean().item() / steps
        assert real == (1 if batch == 1 else pytest.approx(0.5, abs=0.005))


def test_one_row_is_not_packed():
    runs = parts.contestants((1, 3, 4), 0.5, 0, "cpu", experiment.ALL)
    assert "packed" not in runs


def test_a_run_has_all_its_parts():
    tiny = replace(
        experiment.SMALL,
        sizes=((1, 4, 4), (2, 3, 4)),
        edges=((2, 2, 4),),
        more_sizes=((2, 3, 4),),
        rounds=2,
    )
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    found = experiment.run(tiny)
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before
    assert len(found["series"]["rows"]) == 4
    # The clock is no matter here: quiet lines, and one that is not.
    for row in found["series"]["rows"] + found["series"]["edges"]:
        for name in row["ratios"]:
            row["ratios"][name] = {"median": 1.0, "low": 0.9, "high": 1.2}
    noisy = found["series"]["threads"][0]["ratios"]
    noisy |= {"again": {"median": 1.0, "low": 0.9, "high": 1.1}}
    noisy |= {"packed": {"median": 1.0, "low": 0.9, "high": 1.3}}
    assert set(found["series"]["edges"][0]["ratios"]) == {"again", *experiment.ALL}
    assert {"threads_gru_low", "b2_t2_d4_packed"} <= set(found["numbers"])
    config = {"threads": 1, "more_threads": 2}
    run = {
        "config": config,
        "size": "small",
        "device": {"name": "x", "threads": 1},
        "versions": {"python": "3", "torch": "2"},
        "commit": None,
        "date": "2026-01-01",
    }
    tables = experiment.tables({**found, "run": run, "experiment": "cpu_speed"})
    assert tables["as_it_comes"].count("\n") == 2 + 2
    assert tables["as_it_comes"].count("none") == 1
    assert "2 threads" in tables["threads_run"]
    assert tables["threads"].count("disturbed") == len(experiment.ALL)
    assert "1.00 (0.90 to 1.10)" in tables["threads"]
    assert not any("disturbed" in tables[name] for name in ("as_it_comes", "edges"))
    assert set(tables) == {
        "as_it_comes",
        "without_onednn",
        "edges",
        "threads",
        "threads_run",
        "parameters",
    }
