#!/usr/bin/env bash
# onnxruntime 1.32.0 (onnx 1.23.2): quantize_dynamic of an ONNX LSTM and of a GRU.
#
# The LSTM becomes DynamicQuantizeLSTM. Its outputs of the first ten steps change when only
# later inputs change, a row changes when only other rows do, and a run step by step (the
# last output of each prefix) is not the run of the whole: the change has the size of the
# quantisation error itself, and is far larger when the later inputs are 50 times as large.
# With per_channel=True too. The GRU stays a float32 GRU, and nothing says so.
#
# Output seen (numbers differ a little between processors):
#   LSTM per_channel=False: error 0.0044, later inputs 0.0053, louder 0.1543, rows 0.0052, prefixes 0.0046
#   LSTM per_channel=True: error 0.0040, later inputs 0.0054, louder 0.1544, rows 0.0051, prefixes 0.0046
#   GRU per_channel=False: operators ['GRU'], equal to float32
#   GRU per_channel=True: operators ['GRU'], equal to float32
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.6 sympy==1.14.0 onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

logging.disable(logging.WARNING)
N_INPUTS, HIDDEN, STEPS, ROWS = 8, 16, 20, 4
draw = np.random.default_rng(0)


def write(operator, path):
    blocks = {"LSTM": 4, "GRU": 3}[operator]
    shapes = {
        "W": (1, blocks * HIDDEN, N_INPUTS),
        "R": (1, blocks * HIDDEN, HIDDEN),
        "B": (1, 2 * blocks * HIDDEN),
    }
    weights = [
        numpy_helper.from_array(draw.uniform(-0.25, 0.25, s).astype("f"), name)
        for name, s in shapes.items()
    ]
    node = helper.make_node(operator, ["X", *shapes], ["Y"], hidden_size=HIDDEN)
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["t", "b", N_INPUTS])
    y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "layer", [x], [y], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def runner(path):
    session = onnxruntime.InferenceSession(path)
    return lambda x: session.run(None, {"X": x})[0][:, 0]


x = draw.standard_normal((STEPS, ROWS, N_INPUTS)).astype("f")
later, louder, rows = x.copy(), x.copy(), x.copy()
later[10:] = draw.standard_normal((10, ROWS, N_INPUTS))
louder[10:] *= 50
rows[:, 1:] = draw.standard_normal((STEPS, ROWS - 1, N_INPUTS))
for operator in ("LSTM", "GRU"):
    write(operator, "plain.onnx")
    plain = runner("plain.onnx")
    assert not np.abs(plain(later)[:10] - plain(x)[:10]).max()
    for per_channel in (False, True):
        quantize_dynamic("plain.onnx", "quantised.onnx", per_channel=per_channel)
        operators = [node.op_type for node in onnx.load("quantised.onnx").graph.node]
        run = runner("quantised.onnx")
        y = run(x)
        error = np.abs(y - plain(x)).max()
        if operator == "GRU":
            assert operators == ["GRU"] and error == 0, (operators, error)
            print(f"GRU {per_channel=}: operators {operators}, equal to float32")
            continue
        assert operators == ["DynamicQuantizeLSTM"], operators
        prefixes = np.stack([run(x[: t + 1])[-1] for t in range(STEPS)])
        seen = {
            "error": error,
            "later inputs": np.abs(run(later)[:10] - y[:10]).max(),
            "louder": np.abs(run(louder)[:10] - y[:10]).max(),
            "rows": np.abs(run(rows)[:, 0] - y[:, 0]).max(),
            "prefixes": np.abs(prefixes - y).max(),
        }
        print(f"LSTM {per_channel=}:", ", ".join(f"{n} {v:.4f}" for n, v in seen.items()))
        assert min(seen.values()) > 1e-3, seen
        assert seen["louder"] > 10 * error, seen
EOF
