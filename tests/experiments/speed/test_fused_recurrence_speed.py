"""What is timed is the same work, and the ratios are of the right pairs."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.lab import timing
from experiments.lab.experiment import find, untracked
from experiments.lab.record import measure, rounded
from experiments.lab.timing import Contestant
from experiments.speed import _fused_contestants as parts
from experiments.speed import fused_recurrence_speed as experiment


@pytest.mark.parametrize("name", parts.KINDS)
def test_contestants_compute_the_same_gradients(name, monkeypatch):
    made = []
    grad = torch.autograd.grad

    def keep(*arguments):
        made.append(grad(*arguments))
        return made[-1]

    monkeypatch.setattr(torch.autograd, "grad", keep)
    runs = parts.contestants(parts.KINDS[name], (2, 5, 4), 0, train=True)
    for contestant in runs.values():
        contestant.run()
    assert len(made) == (2 if name == "ChoGRU" else 4)
    for other in made[1:]:
        for expected, got in zip(made[0], other, strict=True):
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
    for name in ("RNN", "LSTM"):
        for train in (False, True):
            counts = []
            runs = parts.contestants(parts.KINDS[name], (2, 5, 4), 0, train=train)
            for contestant in ("parallel", "products"):
                with Products() as mode:
                    runs[contestant].run()
                counts.append(mode.calls)
            assert counts[0] == counts[1]
            assert counts[0].total() == (14 if train else 6)


def test_the_two_loops_are_cut_alike():
    x = torch.randn(2, 3, 4)
    for mine, other in zip(parts.indexed(x), parts.unbound(x), strict=True):
        assert torch.equal(mine, other)


def test_a_loop_is_over_the_shortest_that_unbinds(monkeypatch, clock):
    seconds = {"indexed_3": 2, "unbound_3": 1, "indexed_12": 30, "unbound_12": 4}
    runs = {name: Contestant(clock.taking(took)) for name, took in seconds.items()}
    monkeypatch.setattr(experiment, "loops", lambda lengths: runs)
    with timing.setting():
        short, long = experiment.time_index((3, 12))
    assert (short["steps"], long["steps"]) == (3, 12)
    medians = [
        row["ratios"][cut]["median"] for row in (short, long) for cut in experiment.CUTS
    ]
    assert medians == [2, 1, 30, 4]


def test_a_target_is_reached_or_not():
    row = {"kind": "RNN", "size": [8, 256, 64], "train": True}
    for value, verdict in ((0.6, "reached"), (0.61, "not reached")):
        ratios = {"parallel": {"median": value, "low": 0.1, "high": 0.9}}
        rows = [row | {"ratios": ratios}]
        text = experiment.targets_table({"series": {"rows": rows}})
        assert text.splitlines()[-1].endswith(f"| {verdict} |")
        rows = [row | {"ratios": ratios, "train": False}]
        assert "RNN" not in experiment.targets_table({"series": {"rows": rows}})


def test_where_all_takes_equally_long_no_claim_stands():
    declared = find("fused_recurrence_speed")
    tiny = replace(declared.small, sizes=((2, 5, 4),), rounds=2, index_steps=(3, 12))
    record = measure(replace(declared, small=tiny))
    claims = record["claims"]
    assert set(claims) == {"C81", "C130", "C131"}
    assert claims["C81"]["control_holds"], "no slower, so no control"
    assert not claims["C130"]["holds"]
    assert not claims["C131"]["holds"]
    rows = record["series"]["rows"]
    assert len(rows) == 2 * 4
    ratios = [ratio for row in rows for ratio in row["ratios"].values()]
    assert len(ratios) == 2 * (3 * 5 + 2)
    assert all(r["low"] == r["median"] == r["high"] == 1 for r in ratios)
    assert declared.rendered(record)["index"].splitlines()[2].startswith("| 3 | 1.00")


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
    result = rounded(experiment.run(config, untracked), "on a device")
    tables = find("fused_recurrence_speed").rendered(result)
    text = f"{name}, torch {torch.__version__}\n\n" + "\n".join(
        f"{part}\n\n{tables[part]}" for part in ("training", "forward", "memory")
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
