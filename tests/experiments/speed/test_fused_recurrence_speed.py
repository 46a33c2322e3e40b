"""What is timed is the same work, and the ratios are of the right pairs."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed import _fused_indexing as indexing
from experiments.speed import _fused_tables as presentation
from experiments.speed import _fused_timing as timing
from experiments.speed import fused_recurrence_speed as experiment


@pytest.mark.parametrize("kind", timing.KINDS)
def test_contestants_compute_the_same_gradients(kind, monkeypatch):
    found = []
    grad = torch.autograd.grad

    def keep(*arguments):
        found.append(grad(*arguments))
        return found[-1]

    monkeypatch.setattr(torch.autograd, "grad", keep)
    runs = timing.contestants(kind, (2, 5, 4), 0, training=True)
    for name, run in runs.items():
        if name != "products":
            run()
    assert len(found) == (3 if kind == "ChoGRU" else 5)
    for other in found[1:]:
        for expected, got in zip(found[0], other, strict=True):
            torch.testing.assert_close(got, expected)


class Products(TorchDispatchMode):
    """Counts the matrix products by their sizes."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_"):
            a, b = args[-2:]
            self.calls[(*a.shape, b.shape[1])] += 1
        return function(*args, **(kwargs or {}))


def test_the_products_are_those_of_the_recurrence():
    """As many of each size as the form by hand makes, in both passes."""
    for kind in ("RNN", "LSTM"):
        for training in (False, True):
            counts = []
            runs = timing.contestants(kind, (2, 5, 4), 0, training=training)
            for name in ("parallel", "products"):
                with Products() as mode:
                    runs[name]()
                counts.append(mode.calls)
            assert counts[0] == counts[1]
            assert counts[0].total() == (14 if training else 6)


def test_ratio_is_time_over_that_of_the_base(clock):
    runs = {"torch.nn": clock.taking(9, 1, 2), "slow": clock.taking(9, 3, 8)}
    assert timing.ratios(runs, 2) == {"slow": [3.0, 4.0]}
    runs = {"torch.nn": clock.taking(1), "slow": clock.taking(4)}
    assert timing.ratios(runs, 2, "slow") == {"torch.nn": [0.25, 0.25]}


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with timing.threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_two_loops_are_cut_alike():
    x = torch.randn(2, 3, 4)
    for mine, other in zip(indexing.indexed(x), indexing.unbound(x), strict=True):
        assert torch.equal(mine, other)


def test_a_target_is_reached_or_not():
    row = {"kind": "RNN", "contestant": "parallel", "size": [8, 256, 64]}
    row |= {"training": True, "low": 0.1, "high": 0.9}
    for value, verdict in ((0.6, "reached"), (0.61, "not reached")):
        text = presentation.of_targets([row | {"median": value}])
        assert text.splitlines()[-1].endswith(f"| {verdict} |")
    assert "RNN" not in presentation.of_targets(
        [row | {"median": 1, "training": False}]
    )


def test_where_all_takes_equally_long_no_claim_stands():
    tiny = replace(experiment.SMALL, sizes=((2, 5, 4),), rounds=2, index_steps=(3, 12))
    record = measure(replace(find("fused_recurrence_speed"), small=tiny))
    claims = record["claims"]
    assert set(claims) == {"C81", "C130", "C131"}
    assert claims["C81"]["control_holds"], "no slower, so no control"
    assert not claims["C130"]["holds"]
    assert not claims["C131"]["holds"]
    rows = record["series"]["rows"]
    assert len(rows) == 2 * (3 * 5 + 2)
    assert all(row["low"] == row["median"] == row["high"] == 1 for row in rows)
    assert "training" in experiment.tables(record)


def test_on_a_device(device, tmp_path, monkeypatch, request):
    """On a GPU it writes its table to runs/experiments, for the page, by a real clock.

    On a CPU the same is done for one small size, elsewhere, and no ratio is judged.
    """
    config, name = experiment.GPU, "a CPU"
    if device == "cpu":
        monkeypatch.chdir(tmp_path)
        config = replace(config, device=device, sizes=((4, 6, 256),), rounds=2)
    else:
        request.getfixturevalue("real_clock")
        name = torch.cuda.get_device_name()
    result = experiment.run(config)
    tables = experiment.tables(result)
    text = f"{name}, torch {torch.__version__}\n\n" + "\n".join(
        f"{name}\n\n{tables[name]}" for name in ("training", "forward")
    )
    folder = Path("runs") / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "fused_recurrence_speed_gpu.md"
    file.write_text(text, encoding="utf-8")
    ratios = [result["cases"][backend]["LSTM"] for backend in ("torch", "reference")]
    assert min(ratios) > 0
    for size in config.sizes:
        assert " | ".join(map(str, size)) in file.read_text(encoding="utf-8")
    if device == "cuda":
        assert ratios[0] < 1.5 < ratios[1]
