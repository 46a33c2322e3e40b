"""What docs/start/deployment.md says, on harder cases than the page has room for."""

import contextlib
import copy
import io
import pathlib
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import seqref
from seqref.recurrence import grows
from tests.layers import LAYERS, UNCUT

# The server keeps one state for all its streams, and a cache would grow in all of them;
# and it reads in steps and bursts, so that results must not depend on the cuts.
FIXED = [name for name in UNCUT if not grows(LAYERS[name]().initial_state(1))]

PAGE = pathlib.Path(__file__).parents[1] / "docs/start/deployment.md"
# torch.compile reads .grad of tensors that are no leaves.
TORCH_OWN_WARNING = "ignore:The .grad attribute of a Tensor that is not a leaf"


def block_with(text):
    """The first Python block of the page that holds a text."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.S | re.M)
    return next(block for block in blocks if text in block)


@pytest.fixture(scope="module")
def server_class():
    names = {}
    exec(block_with("class StreamServer"), names)
    return names["StreamServer"]


def serve(server, sequences, draw):
    """Feed sequences at random moments; some are parked and come back elsewhere."""
    received = {name: [] for name in sequences}
    waiting, parked = list(sequences), {}
    while waiting or server.rows:
        while waiting and server.free:
            name = waiting.pop()
            server.join(name, parked.pop(name, None))
        senders = [name for name in server.rows if draw.random() < 0.6]
        if not senders:
            continue
        inputs = {name: sequences[name][len(received[name])] for name in senders}
        for name, y_t in server.step(inputs).items():
            received[name].append(y_t)
            if len(received[name]) == len(sequences[name]):
                server.leave(name)
            elif draw.random() < 0.2:
                parked[name] = server.leave(name)
                waiting.insert(0, name)
    return {name: torch.stack(rows) for name, rows in received.items()}


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_stream_gets_what_its_sequence_gives(server_class, name, seed):
    torch.manual_seed(seed)
    layer = LAYERS[name](dtype=torch.float64).eval()
    draw = random.Random(seed)
    sequences = {
        name: torch.randn(draw.randint(1, 12), 3, dtype=torch.float64)
        for name in "abcdefgh"
    }
    received = serve(server_class(layer, capacity=3), sequences, draw)
    for name, x in sequences.items():
        whole, _ = layer(x[None])
        torch.testing.assert_close(received[name], whole[0], atol=1e-10, rtol=0)


def test_a_row_that_was_used_starts_anew(server_class):
    layer = seqref.LSTM(3, 5, dtype=torch.float64).eval()
    server, x = server_class(layer, capacity=1), torch.randn(4, 3, dtype=torch.float64)
    for name in ("first", "second"):
        server.join(name)
        for x_t in x:
            y_t = server.step({name: x_t})[name]
        torch.testing.assert_close(y_t, layer(x[None])[0][0, -1], atol=1e-12, rtol=0)
        server.leave(name)


def test_a_full_server_and_a_name_twice_are_refused(server_class):
    server = server_class(seqref.GRU(3, 5).eval(), capacity=2)
    server.join("a")
    with pytest.raises(ValueError, match="'a' is here already"):
        server.join("a")
    server.join("b")
    with pytest.raises(ValueError, match="no row is free"):
        server.join("c")
    assert set(server.rows) == {"a", "b"}
    assert server.free == []


@pytest.mark.parametrize(
    ("saved", "error"),
    [
        (seqref.LSTMState(torch.zeros(1, 4), torch.zeros(1, 4)), ValueError),
        # Of one unit, or of as many rows as the server has: neither is spread silently.
        (seqref.LSTMState(torch.ones(1, 1), torch.ones(1, 1)), ValueError),
        (seqref.LSTMState(torch.ones(2, 5), torch.ones(2, 5)), ValueError),
        (seqref.LSTMState(*torch.zeros(2, 1, 5).double()), ValueError),
        ((torch.zeros(1, 5), torch.zeros(1, 5)), TypeError),
    ],
)
def test_a_saved_state_that_does_not_fit_takes_no_row(server_class, saved, error):
    server = server_class(seqref.LSTM(3, 5).eval(), capacity=2)
    server.join("a")
    server.step({"a": torch.randn(3)})
    server.leave("a")
    with pytest.raises(error):
        server.join("b", saved)
    assert server.rows == {}
    assert sorted(server.free) == [0, 1]


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (torch.tensor(1.0), r"got \(\) and torch.float32"),
        (torch.ones(1), r"got \(1,\) and"),
        (torch.ones(1, 3), r"got \(1, 3\) and"),
        (torch.ones(3, dtype=torch.float64), r"got \(3,\) and torch.float64"),
        (torch.ones(3, dtype=torch.int64), r"got \(3,\) and torch.int64"),
    ],
)
@pytest.mark.parametrize("names", ["a", "abc"])
def test_an_input_of_another_shape_reaches_no_stream(server_class, names, value, came):
    """An assignment to rows would spread it over features, or over streams."""
    server = server_class(seqref.GRU(3, 5).eval(), capacity=3)
    for name in "abc":
        server.join(name)
    server.step({name: torch.randn(3) for name in "abc"})
    before = server.state.h.clone()
    with pytest.raises(
        ValueError, match=rf"'{names[-1]}' must have shape .3,. .*{came}"
    ):
        server.step({n: value if n == names[-1] else torch.ones(3) for n in names})
    assert torch.equal(server.state.h, before)


def test_a_name_that_is_not_there_is_refused_before_anything_moves(server_class):
    server = server_class(seqref.GRU(3, 5).eval(), capacity=2)
    server.join("a")
    before = server.state.h.clone()
    with pytest.raises(ValueError, match="no stream here has the name 'b'"):
        server.step({"a": torch.randn(3), "b": torch.randn(3)})
    with pytest.raises(ValueError, match="no stream here has the name 'b'"):
        server.leave("b")
    with pytest.raises(ValueError, match="no stream here has the name 'b'"):
        server.burst("b", torch.randn(2, 3))
    assert torch.equal(server.state.h, before)
    assert server.step({}) == {}


def test_a_layer_in_training_is_refused_and_left_as_it_is(server_class):
    layer = seqref.Stacked([seqref.LSTM(3, 5)])
    with pytest.raises(ValueError, match=r"call `layer\.eval\(\)` first"):
        server_class(layer, capacity=2)
    assert all(module.training for module in layer.modules())
    layer.eval().layers[0].train()
    with pytest.raises(ValueError, match=r"call `layer\.eval\(\)` first"):
        server_class(layer, capacity=2)


def test_calls_from_two_threads_lose_no_state(server_class, monkeypatch):
    """A call is held where the old state is read and the new one not yet stored."""
    layer = seqref.LSTM(3, 5, dtype=torch.float64).eval()
    server, x = server_class(layer, capacity=2), torch.randn(3, dtype=torch.float64)
    for name in "ab":
        server.join(name)
    names = server_class.step.__wrapped__.__globals__
    # Without a lock the other call comes here too; with one this wait ends alone.
    meeting, reset_rows = threading.Barrier(2), names["reset_rows"]

    def held(*arguments):
        state = reset_rows(*arguments)
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=1)
        return state

    monkeypatch.setitem(names, "reset_rows", held)
    calls = [threading.Thread(target=server.step, args=({n: x},)) for n in "ab"]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    expected = layer.step(x.expand(2, 3))[1]
    torch.testing.assert_close(server.state, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", FIXED)
def test_bursts_and_steps_take_turns(server_class, name):
    layer = LAYERS[name](dtype=torch.float64).eval()
    server, x = server_class(layer, capacity=3), torch.randn(9, 3, dtype=torch.float64)
    for name in ("beside", "late"):
        server.join(name)
    received = [server.burst("late", x[:4]), server.step({"late": x[4]})["late"][None]]
    before = server.leave("beside")
    received += [server.burst("late", x[5:5]), server.burst("late", x[5:])]
    torch.testing.assert_close(
        torch.cat(received), layer(x[None])[0][0], atol=1e-10, rtol=0
    )
    torch.testing.assert_close(before, layer.initial_state(1), atol=0, rtol=0)
    with pytest.raises(ValueError, match="`x` must have shape"):
        server.burst("late", x[0])


@pytest.mark.compile
def test_one_request_warms_a_compiled_server_up(server_class):
    torch.compiler.reset()
    layer, graphs = seqref.LSTM(3, 5).eval(), []

    def counting(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    server = server_class(layer, capacity=4)
    layer.step = torch.compile(layer.step, backend=counting, fullgraph=True)
    server.join("a")
    server.step({"a": torch.randn(3)})
    assert len(graphs) == 1
    parked = server.leave("a")
    server.join("b")
    server.join("a", parked)
    server.burst("a", torch.randn(3, 3))
    for names in ("a", "ab", "b", "ab"):
        server.step({name: torch.randn(3) for name in names})
    assert len(graphs) == 1
    torch.compiler.reset()


def test_a_stack_is_served_too(server_class):
    layer = seqref.Stacked([seqref.LSTM(3, 5), seqref.GRU(5, 4)]).double().eval()
    sequences = {name: torch.randn(n, 3).double() for n, name in enumerate("abcde", 2)}
    received = serve(server_class(layer, capacity=2), sequences, random.Random(0))
    for name, x in sequences.items():
        whole, _ = layer(x[None])
        torch.testing.assert_close(received[name], whole[0], atol=1e-10, rtol=0)


def test_nan_stays_in_its_row_and_the_next_stream_there_is_clean(server_class):
    layer = seqref.LSTM(3, 5).eval()
    server, x = server_class(layer, capacity=2), torch.randn(2, 3)
    server.join("broken")
    server.join("sound")
    server.step({"broken": x[0] * torch.nan, "sound": x[0]})
    after = server.step({"broken": x[0], "sound": x[1]})
    assert after["broken"].isnan().all()
    torch.testing.assert_close(after["sound"], layer(x[None])[0][0, 1])
    server.leave("broken")
    server.join("next")
    first = server.step({"next": x[0]})["next"]
    torch.testing.assert_close(first, layer(x[None, :1])[0][0, 0])


@pytest.mark.parametrize(("kind", "floats"), [("RNN", 1), ("GRU", 1), ("LSTM", 2)])
def test_bytes_of_a_state(kind, floats):
    state = LAYERS[kind](7, 16).initial_state(1)
    assert sum(tensor.nbytes for tensor in state) == floats * 16 * 4


def test_a_state_is_saved_as_a_plain_tuple():
    state = seqref.LSTM(3, 5).initial_state(1)
    refused, accepted = io.BytesIO(), io.BytesIO()
    torch.save(state, refused)
    torch.save(tuple(state), accepted)
    for file in (refused, accepted):
        file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="LSTMState"):
        torch.load(refused)
    loaded = seqref.LSTMState(*torch.load(accepted))
    assert torch.equal(loaded.c, state.c)


# Export.


class Step(nn.Module):
    def __init__(self, layer, kind):
        super().__init__()
        self.layer, self.kind = layer, kind

    def forward(self, x_t, *fields):
        y_t, state = self.layer.step(x_t, self.kind(*fields))
        return y_t, *state


SERVE = """
import sys
sys.modules["seqref"] = None
import torch
step = torch.export.load("step.pt2").module()
torch.save([step(*request) for request in torch.load("requests.pt")], "answers.pt")
"""


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_an_exported_step_runs_without_seqref(name, tmp_path):
    layer = LAYERS[name](dtype=torch.float64).eval()
    step = Step(layer, type(layer.initial_state(1)))

    def request(rows):
        sizes = [3, *(5 for _ in layer.initial_state(1))]
        return tuple(torch.randn(rows, size, dtype=torch.float64) for size in sizes)

    example = request(2)
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    shapes = (batch, tuple(batch for _ in example[1:]))
    program = torch.export.export(step, example, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "step.pt2")
    requests = [request(rows) for rows in (1, 2, 7, 1024)]
    torch.save(requests, tmp_path / "requests.pt")
    subprocess.run([sys.executable, "-c", SERVE], cwd=tmp_path, check=True)
    answers = torch.load(tmp_path / "answers.pt")
    for given, answer in zip(requests, answers, strict=True):
        torch.testing.assert_close(tuple(answer), step(*given), atol=1e-12, rtol=0)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights")
@pytest.mark.parametrize("kind", [seqref.LSTM, seqref.GRU, seqref.RNN, nn.LSTM, nn.GRU])
def test_a_dynamic_time_is_refused_by_export(kind):
    options = {"batch_first": True} if kind.__module__.startswith("torch") else {}
    time = torch.export.Dim("time", min=2, max=1024)
    with pytest.raises(Exception, match="specialized it to be a constant"):
        torch.export.export(
            kind(3, 5, **options), (torch.randn(2, 6, 3),), dynamic_shapes=({1: time},)
        )


class WithLengths(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = seqref.GRU(3, 5)

    def forward(self, x, lengths):
        return self.layer(x, lengths=lengths)[0]


@pytest.mark.compile
@pytest.mark.slow
def test_an_exported_layer_refuses_no_length():
    arguments = (torch.randn(2, 6, 3), torch.tensor([6, 3]))
    program = torch.export.export(WithLengths(), arguments).module()
    result = program(arguments[0], torch.tensor([9, 3]))
    assert torch.equal(result, program(*arguments))


# Compilation.


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_the_default_compiler_streams_the_same_numbers():
    torch.compiler.reset()
    layer = seqref.LSTM(3, 5)
    step = torch.compile(layer.step, fullgraph=True)
    x = torch.randn(4, 6, 3)
    with torch.inference_mode():
        state = layer.initial_state(4)
        for x_t in x.unbind(1):
            y_t, state = step(x_t, state)
        y, expected = layer(x)
        torch.testing.assert_close(y_t, y[:, -1], atol=1e-6, rtol=0)
        torch.testing.assert_close(state, expected, atol=1e-6, rtol=0)
    torch.compiler.reset()


@pytest.mark.compile
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
def test_a_state_made_outside_inference_mode_counts_as_another():
    torch.compiler.reset()
    layer, graphs, counts = seqref.LSTM(3, 5), [], []

    def counting(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    step = torch.compile(layer.step, backend=counting, fullgraph=True)
    outside = layer.initial_state(4)
    with torch.inference_mode():
        x_t, inside = torch.randn(4, 3), layer.initial_state(4)
        for state in (outside, outside, inside, inside, outside):
            step(x_t, state)
            counts.append(len(graphs))
    assert counts == [1, 1, 2, 2, 2]
    torch.compiler.reset()


# Precision.


def test_gates_near_one_in_bfloat16():
    """The largest number below 1 is 1 − 2⁻⁸; from halfway on, 1 is nearer."""
    exact = torch.tensor([1 - 2**-8, 1 - 2**-9 - 1e-6, 1 - 2**-9], dtype=torch.float64)
    rounded = exact.bfloat16().double()
    assert rounded.tolist() == [1 - 2**-8, 1 - 2**-8, 1]
    assert (
        torch.tensor(1.0).bfloat16().nextafter(torch.zeros(()).bfloat16()) == rounded[0]
    )


def test_autocast_switched_off_inside_rounds_nothing():
    layer, x_t = seqref.LSTM(3, 5), torch.randn(2, 3)
    expected = layer.step(x_t)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer.step(x_t)
        with torch.autocast("cpu", enabled=False):
            inside = layer.step(x_t)
    assert torch.equal(inside[1].c, expected[1].c)
    assert not torch.equal(rounded[1].c, expected[1].c)


def test_a_converted_layer_converts_its_state():
    layer = copy.deepcopy(seqref.GRU(3, 5)).bfloat16()
    assert layer.initial_state(2).h.dtype == torch.bfloat16


# TF32: settings that can be read without a GPU.

FLAGS = """
import torch
flags = torch.backends
print(flags.cudnn.rnn.fp32_precision)
flags.fp32_precision = "ieee"
everything = flags.cudnn.rnn.fp32_precision
flags.fp32_precision = "none"
flags.cudnn.rnn.fp32_precision = "ieee"
print(flags.cudnn.rnn.fp32_precision)
try:
    flags.cudnn.allow_tf32
except RuntimeError:
    print("refused")
print(everything)
"""


AFTER_EXPORT = """
import torch
module = torch.nn.Linear(1, 1)
torch.export.export(module, (torch.ones(1, 1),))
torch.backends.fp32_precision = "ieee"
print(torch.backends.cudnn.rnn.fp32_precision)
"""
BY_HAND = """
import torch
torch.backends.cudnn.rnn.fp32_precision = "tf32"
torch.backends.fp32_precision = "ieee"
print(torch.backends.cudnn.rnn.fp32_precision)
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [AFTER_EXPORT, BY_HAND])
def test_the_flag_for_everything_need_not_reach_the_recurrences(before):
    if tuple(map(int, torch.__version__.split(".")[:2])) != (2, 13):
        pytest.skip("the page says so of torch 2.13")
    done = subprocess.run(
        [sys.executable, "-c", before], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["tf32"]


@pytest.mark.slow
def test_the_flags_of_tf32():
    """In a process of its own, since the flags are the whole process's."""
    done = subprocess.run(
        [sys.executable, "-c", FLAGS], capture_output=True, text=True, check=True
    )
    *always, everything = done.stdout.split()
    assert always == ["tf32", "ieee", "refused"]
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    # The flag for everything did not reach the recurrences in older releases.
    assert everything == "ieee" or version < (2, 13)
