"""Whole calls under autocast on a CPU, on processors with and without bfloat16."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from seqref import LSTM, Bidirectional, LSTMState, Stacked
from seqref.models import LanguageModel, SequenceClassifier
from tests.layers import LAYERS

BATCH, TIME, INPUT, HIDDEN = 3, 6, 4, 5
DTYPES = [torch.bfloat16, torch.float16]


def both_ways():
    return Bidirectional(LSTM(INPUT, HIDDEN), LSTM(INPUT, HIDDEN))


COMPOSITIONS = {
    "both": lambda: Stacked([both_ways(), LSTM(2 * HIDDEN, HIDDEN)]),
}


class Scores(nn.Module):
    """The scores of a language model over tokens, for continuous inputs of a test."""

    def __init__(self):
        super().__init__()
        self.model = LanguageModel(7, LSTM(7, 7))

    def forward(self, x):
        tokens = (x.detach()[..., 0] * 100).long() % 7
        return self.model(tokens)


MODELS = COMPOSITIONS | {
    "SequenceClassifier": lambda: SequenceClassifier(LSTM(INPUT, HIDDEN), 3),
    "LanguageModel": Scores,
}


def draw():
    return torch.randn(BATCH, TIME, INPUT, generator=torch.Generator().manual_seed(0))


def tensors_of(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in tensors_of(part)]


def assert_near(result, expected):
    pairs = zip(tensors_of(result), tensors_of(expected), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine.float(), theirs.float(), atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [*LAYERS, *MODELS])
def test_a_whole_call_is_near_the_call_in_float32(name, training, dtype):
    x, calls = draw(), [{}]
    model = LAYERS[name](INPUT, HIDDEN) if name in LAYERS else MODELS[name]()
    model.eval()
    if name != "LanguageModel":
        calls += [{"lengths": torch.tensor(one)} for one in ([TIME] * 3, [6, 2, 4])]
    for options in calls:
        with torch.set_grad_enabled(training):
            expected = model(x, **options)
            with torch.autocast("cpu", dtype):
                result = model(x, **options)
        assert_near(result, expected)
        if name in LAYERS or name in COMPOSITIONS:
            dtypes = {t.dtype for t in tensors_of(result)}
            # A cache counts its steps in whole numbers.
            assert dtypes - {torch.int64} == {torch.float32}
        if training:
            tensors_of(result)[0].float().square().mean().backward()
            assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_given_state_and_an_input_in_either_precision(dtype):
    layer, x = LSTM(INPUT, HIDDEN), draw()
    state = LSTMState(*torch.randn(2, BATCH, HIDDEN))
    expected = layer(x, state)
    for given in (x, x.bfloat16(), x.half()):
        with torch.autocast("cpu", dtype):
            result = layer(given, state)
        assert_near(result, expected)
        assert {t.dtype for t in tensors_of(result)} == {torch.float32}


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exported_call_is_one_for_every_processor(dtype):
    """No kernel of one processor in it."""

    class Low(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = LSTM(INPUT, HIDDEN)

        def forward(self, x):
            with torch.autocast("cpu", dtype):
                return self.layer(x)[0]

    model, x = Low(), draw()
    program = torch.export.export(model, (x,))
    assert "aten.lstm" not in str(program.graph)
    torch.testing.assert_close(
        program.module()(x), model.layer(x)[0], atol=0.05, rtol=0
    )


def test_the_same_where_onednn_has_no_bfloat16():
    """The tests above in a process whose oneDNN is told not to use AVX-512."""
    code = "import torch; print(torch.ops.mkldnn._is_mkldnn_bf16_supported())"
    again = ["pytest", "-q", "-p", "no:cacheprovider", "-k", "call or given", __file__]

    def python(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        )

    has_setting = platform.machine() in ("x86_64", "AMD64")
    if has_setting and torch.backends.mkldnn.is_available():
        assert python("-c", code).stdout == "False\n"
    done = python("-m", *again)
    assert done.returncode == 0, done.stdout
    assert f"{2 * 2 * len(LAYERS | MODELS) + 4} passed" in done.stdout
