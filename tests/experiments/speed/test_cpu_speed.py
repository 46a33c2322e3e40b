"""What is timed is what it is called, and equal where it is called equal."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.lab import timing
from experiments.lab.experiment import find
from experiments.lab.record import load, measure
from experiments.speed import cpu_speed as experiment
from experiments.speed._layers import lengths_of

SMALL = find("cpu_speed").small
DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_where_all_takes_equally_long_no_claim_on_time_stands():
    # The clock of the tests: what is timed may be small.
    small = replace(SMALL, sizes=((2, 3, 4), (2, 4, 4)), rounds=2)
    record = measure(replace(find("cpu_speed"), small=small))
    claims = [claim for claim in find("cpu_speed").claims if claim.timed]
    assert len(claims) == 3
    for claim in claims:
        judged = record["claims"][claim.id]
        assert not judged["holds"]
        assert judged["number"] == judged["control_number"] == 1


@pytest.mark.parametrize("width", [64, 256, 512])
def test_equal_parameters_are_equal_but_for_the_vectors(width):
    sizes = experiment.parameters(width)
    assert sizes["lstm"] == 8 * width**2 + 8 * width
    assert sizes["gru"] == 6 * width**2 + 6 * width
    assert sizes["transformer"] == 12 * width**2 + 13 * width
    assert sizes["transformer_equal"] == 8 * width**2 + 11 * width


def test_the_transformer_layer_looks_back_only_and_has_no_dropout():
    torch.manual_seed(0)
    layer = experiment.attention(64, 128).double()
    x = torch.randn(2, 6, 64, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)

    def call():
        return layer(x, src_mask=mask, is_causal=True)

    y = call()
    assert torch.equal(y, call())
    x[:, 4] += 1
    changed = (call() - y).abs().amax((0, 2)) > 0
    assert changed.tolist() == [False] * 4 + [True] * 2


@pytest.mark.parametrize("steps", [5, 40])
def test_multiply_adds_are_those_of_a_counter(steps):
    """The counter of torch counts two operations for a multiply-add."""
    width = 64
    x = torch.randn(1, steps, width)
    math = nn.attention.SDPBackend.MATH
    mask = nn.Transformer.generate_square_subsequent_mask(steps)
    counted = {}
    for name, module in experiment.modules(width).items():
        arguments = (x, mask)[: 2 if name == "transformer" else 1]
        if name in ("lstm", "transformer"):
            counter = FlopCounterMode(display=False)
            plain = timing.setting(onednn=False)
            with nn.attention.sdpa_kernel(math), plain, counter:
                module(*arguments)
            counted[name] = counter.get_total_flops() / 2
    assert counted == experiment.multiply_adds(steps, width)


def test_all_contestants_train_the_same_width(monkeypatch):
    made = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a: made.append(grad(*a)) or made[-1]
    )
    runs = experiment.contestants(SMALL, (2, 3, 4))
    assert list(runs) == ["padded", *experiment.ALL]
    for contestant in runs.values():
        contestant.run()
    counts = experiment.parameters(4)
    names = ["lstm", "gru", "lstm", "transformer", "transformer_equal"]
    for name, (x_bar, *others) in zip(names, made, strict=True):
        assert x_bar.shape == (2, 3, 4)
        assert sum(other.numel() for other in others) == counts[name]


def test_lines_that_sentences_quote_are_not_disturbed():
    """Of each setting the lowest and highest ratios, and the edges that are quoted."""
    record = load("cpu_speed", DOCS / "_data")
    for setting in timing.SETTINGS:
        here = experiment.part_of(record, setting)
        assert sum(experiment.disturbed(row) for row in here) <= 1
        for name in ("packed", "transformer", "transformer_equal", "again"):
            ranked = [row for row in here if name in row["ratios"]]
            ranked.sort(key=lambda row: row["ratios"][name]["median"])
            assert not experiment.disturbed(ranked[0]), (setting, name)
            assert not experiment.disturbed(ranked[-1]), (setting, name)
    edges = {tuple(row["size"]): row for row in experiment.part_of(record, "edges")}
    pattern = re.compile(r"cpu_speed\.numbers\.b(\d+)_t(\d+)_d(\d+)_")
    texts = [*DOCS.rglob("*.md"), *DOCS.rglob("*.yml")]
    sizes = {m for text in texts for m in pattern.findall(text.read_text("utf-8"))}
    assert len(sizes) >= 3
    for size in sizes:
        assert not experiment.disturbed(edges[tuple(map(int, size))]), size


def test_half_of_each_packed_batch_is_real():
    full = find("cpu_speed").full
    for batch, steps, _ in (*full.sizes, *full.edges, *full.more_sizes):
        lengths = lengths_of(full.share, batch, steps)
        real = lengths.double().mean().item() / steps
        assert real == (1 if batch == 1 else pytest.approx(0.5, abs=0.005))


def test_one_row_is_not_packed():
    runs = experiment.contestants(SMALL, (1, 3, 4))
    assert "packed" not in runs


def test_a_run_has_all_its_parts():
    tiny = replace(
        SMALL,
        sizes=((1, 4, 4), (2, 3, 4)),
        edges=((2, 2, 4),),
        more_sizes=((2, 3, 4),),
        rounds=2,
    )
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    record = measure(replace(find("cpu_speed"), small=tiny))
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before
    assert len(record["series"]["rows"]) == 4 + 2
    (edge,) = experiment.part_of(record, "edges")
    assert set(edge["ratios"]) == {timing.AGAIN, *experiment.ALL}
    assert {"threads_gru_low", "b2_t2_d4_packed"} <= set(record["numbers"])
    # By the clock of the tests all lines are quiet; one that is not:
    (noisy,) = experiment.part_of(record, "threads")
    noisy["ratios"]["again"] |= {"low": 0.9, "high": 1.1}
    noisy["ratios"]["packed"] |= {"low": 0.9, "high": 1.3}
    tables = find("cpu_speed").rendered(record)
    assert tables["as_it_comes"].count("\n") == 2 + 2
    assert tables["as_it_comes"].count("none") == 1
    assert tables["memory"].count("\n") == 2 + 2 + 1
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
        "memory",
        "parameters",
    }
