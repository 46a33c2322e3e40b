"""The one timer: what is read when, in which order, and over what."""

import pytest
import torch
from torch import nn

from experiments.lab import timer, timing
from experiments.lab.timing import Contestant


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_setting_holds_inside_and_is_put_back(threads, onednn):
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    with timing.setting(threads, onednn):
        inside = torch.get_num_threads(), torch.backends.mkldnn.enabled
        assert inside == (threads, onednn)
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before


def test_a_setting_is_put_back_after_an_error():
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    with pytest.raises(KeyError), timing.setting(2, onednn=False):
        raise KeyError
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before


def test_a_gpu_has_no_onednn_to_switch_off():
    assert timing.settings_on("cpu") == ["as_it_comes", "without_onednn"]
    assert timing.settings_on("cuda") == ["as_it_comes"]


def test_a_pass_makes_all_gradients_or_none(monkeypatch):
    made = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a: made.append(grad(*a)) or made[-1]
    )
    layer, x = nn.GRU(4, 4), torch.randn(2, 3, 4, requires_grad=True)
    inputs, graphs = [x, *layer.parameters()], []

    def call():
        y = layer(x)[0]
        graphs.append(y.requires_grad)
        return y

    timing.passes(call, inputs, train=False).run()
    assert made == []
    timing.passes(call, inputs).run()
    assert graphs == [False, True]
    expected = grad(layer(x)[0].square().sum(), inputs)
    for mine, true in zip(made[0], expected, strict=True):
        torch.testing.assert_close(mine, true)


def test_a_pass_has_its_tensors_outside():
    x, weight, mask = torch.zeros(3).split(1)
    made = timing.passes(lambda: x * weight + mask, [x, weight], others=[mask])
    assert [id(tensor) for tensor in made.outside] == [id(x), id(weight), id(mask)]


def contestants(clock, **seconds):
    """Each by its times, call after call; the first call of each warms up."""
    return {name: Contestant(clock.taking(*took)) for name, took in seconds.items()}


def test_the_order_of_a_round_is_that_of_the_one_before_reversed():
    order = []
    runs = {n: Contestant(lambda n=n: order.append(n)) for n in ("a", "b", "c")}
    timing.rounds_of(runs, "b", 3)
    # Each once, then the base as the last of a round, or the first.
    assert "".join(order) == "abc" + "abcb" + "bcba" + "abcb"


def test_a_ratio_is_over_the_base_in_the_same_round(clock):
    # Base, slow, base again; base again, slow, base; base, slow, base again.
    runs = contestants(clock, base=(9, 1, 2, 8, 4, 5, 5), slow=(9, 3, 8, 25))
    times = timing.rounds_of(runs, "base", 3)
    assert times == {
        "base": [1, 4, 5],
        "slow": [3, 8, 25],
        timing.AGAIN: [2, 8, 5],
    }
    runs = contestants(clock, base=(9, 1, 2, 8, 4, 5, 5), slow=(9, 3, 8, 25))
    compared = timing.compare(runs, "base", 3)
    ratios = compared["ratios"]
    assert list(ratios) == ["slow", timing.AGAIN]
    assert ratios["slow"] == {"median": 3, "low": 2, "high": 5, "peak": 0}
    assert ratios[timing.AGAIN] == {"median": 2, "low": 1, "high": 2, "peak": 0}
    assert compared["seconds"] == 4


def test_time_is_that_of_one_unit(clock):
    one, ten = clock.taking(1.0), clock.taking(20.0)
    runs = {"one": Contestant(one), "ten": Contestant(ten, units=10)}
    compared = timing.compare(runs, "one", 2)
    assert compared["ratios"]["ten"]["median"] == 2
    compared = timing.compare(runs, "ten", 2)
    assert compared["ratios"]["one"]["median"] == 0.5
    assert compared["seconds"] == 2


@pytest.mark.parametrize(
    ("threads", "read", "other"), [(1, "processor", "wall"), (2, "wall", "processor")]
)
def test_the_clock_is_that_of_the_number_of_threads(
    monkeypatch, clock, threads, read, other
):
    monkeypatch.setattr(timer, read, clock)
    monkeypatch.setattr(timer, other, None)
    with timing.setting(threads):
        assert timing.seconds(clock.taking(3.0)) == 3


class Device:
    """A GPU that has work left when a call returns, and counts its memory."""

    def __init__(self, monkeypatch, clock):
        self.clock, self.left, self.now, self.peak = clock, 0.0, 100, 900
        monkeypatch.setattr(timer, "wall", clock)
        monkeypatch.setattr(timer, "processor", None)
        for name in (
            "synchronize",
            "reset_peak_memory_stats",
            "memory_allocated",
            "max_memory_allocated",
        ):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def run(self):
        self.left = 5.0
        self.peak = max(self.peak, self.now + 64)

    def synchronize(self):
        self.clock.now += self.left
        self.left = 0.0

    def reset_peak_memory_stats(self):
        self.peak = self.now

    def memory_allocated(self):
        return self.now

    def max_memory_allocated(self):
        return self.peak


def test_on_a_gpu_a_call_ends_when_the_device_has_ended(monkeypatch, clock):
    gpu = Device(monkeypatch, clock)
    gpu.left = 7.0
    assert timing.seconds(gpu.run, "cuda") == 5, "and begins when it is idle"


def test_on_a_gpu_memory_is_what_the_device_counts(monkeypatch, clock):
    gpu = Device(monkeypatch, clock)
    assert timing.peak_of(Contestant(gpu.run), "cuda") == 64


def test_memory_is_what_is_alive_at_one_time():
    x = torch.zeros(1000)

    def run():
        first = x[:500] + 1  # 2,000 bytes; the view of `x` is none of them
        second = torch.cat([first, first])  # 4,000
        del first
        return second * 2  # 4,000

    assert timing.peak_of(Contestant(run, [x])) == 8000
    assert timing.peak_of(Contestant(run)) == 12000, "and with it `x`"
    assert timing.peak_of(Contestant(run, counted=False)) is None


@pytest.mark.compile
def test_compiled_code_does_not_run_where_memory_is_counted():
    """Plain code runs in its place, so its peak would be that of plain code."""
    calls = []

    def backend(graph, inputs):
        def compiled(*arguments):
            calls.append(1)
            return graph(*arguments)

        return compiled

    x = torch.zeros(1000)
    step = torch.compile(lambda x: (x + 1) * 2, backend=backend)
    torch.testing.assert_close(step(x), 2 * x + 2)
    assert len(calls) == 1
    assert timing.peak_of(Contestant(lambda: step(x), [x])) == 8000
    assert len(calls) == 1


def test_rows_of_some_values_alone():
    one = {"place": "here", "ratios": {"a": {"median": 3}, "b": {"median": 9}}}
    two = {"place": "there", "ratios": {"a": {"median": 1}}}
    three = {"place": "here", "ratios": {"a": {"median": 2}}}
    rows = [one, two, three]
    assert timing.medians(rows, "a") == [3, 1, 2]
    assert timing.medians(rows, "b") == [9]
    assert timing.medians(rows, "a", place="here") == [3, 2]


def test_ranges_are_of_what_has_one_stem():
    rows = [
        {"place": "here", "ratios": {"a": {"median": 3}, "b": {"median": 9}}},
        {"place": "there", "ratios": {"a": {"median": 1}}},
        {"place": "here", "ratios": {"a": {"median": 2}}},
    ]
    ranges = timing.ranges(rows, lambda row, name: f"{name}_{row['place']}")
    assert ranges == {
        "a_here_low": 2,
        "a_here_high": 3,
        "a_there_low": 1,
        "a_there_high": 1,
        "b_here_low": 9,
        "b_here_high": 9,
    }
    ranges = timing.ranges(rows, lambda row, name: "of_a" if name == "a" else None)
    assert ranges == {"of_a_low": 1, "of_a_high": 3}


def test_on_a_device(device):
    """By the machine's own counter on a GPU; of the ratios only that they are there."""
    x = torch.zeros(2**20, device=device)
    runs = {
        "one": Contestant(lambda: x + 1, [x]),
        "two": Contestant(lambda: (x + 1, x + 2), [x]),
    }
    compared = timing.compare(runs, "one", 3, device)
    assert compared["peak"] == 2**22
    assert compared["ratios"]["two"]["peak"] == 2**23
    assert set(compared["ratios"]) == {"two", timing.AGAIN}
    assert compared["ratios"]["two"]["median"] > 0
