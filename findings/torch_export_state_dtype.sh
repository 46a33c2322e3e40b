#!/usr/bin/env bash
# torch 2.13.0: an exported program guards shapes, and not every dtype.
#
# One step of an LSTM cell, exported with three float32 inputs. The program refuses x and h
# in another dtype, by the error of an operation. The cell state c, which only meets
# elementwise operations, passes in bfloat16, float16, float64 and int64, and the outputs
# are computed from it: c in int64 counts as its whole part, in float64 the new c is float64.
# A program that was saved and loaded again behaves in the same way.
#
# Output seen:
#   x: bfloat16 refused, float16 refused, float64 refused, int64 refused
#   h: bfloat16 refused, float16 refused, float64 refused, int64 refused
#   c: bfloat16 taken, float16 taken, float64 taken, int64 taken
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from torch import nn


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.on_input, self.on_state = nn.Linear(3, 20), nn.Linear(5, 20)

    def forward(self, x, h, c):
        i, f, g, o = (self.on_input(x) + self.on_state(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


torch.manual_seed(0)
example = {"x": torch.randn(2, 3), "h": torch.randn(2, 5), "c": 3 * torch.randn(2, 5)}
program = torch.export.export(Step(), tuple(example.values()))
torch.export.save(program, "step.pt2")
loaded = torch.export.load("step.pt2").module()
kinds = (torch.bfloat16, torch.float16, torch.float64, torch.int64)
for name in example:
    seen = []
    for kind in kinds:
        given = {**example, name: example[name].to(kind)}
        verdicts = []
        for step in (program.module(), loaded):
            try:
                _, c = step(*given.values())
            except RuntimeError:
                verdicts.append("refused")
            else:
                verdicts.append("taken")
        assert len(set(verdicts)) == 1, verdicts
        seen.append(f"{str(kind).removeprefix('torch.')} {verdicts[0]}")
    print(f"{name}:", ", ".join(seen))
    assert {text.split()[1] for text in seen} == {"taken" if name == "c" else "refused"}
_, c = loaded(*{**example, "c": example["c"].long()}.values())
_, expected = loaded(*{**example, "c": example["c"].trunc()}.values())
assert torch.equal(c, expected)
assert loaded(*{**example, "c": example["c"].double()}.values())[1].dtype == torch.float64
try:
    loaded(torch.randn(2, 4), example["h"], example["c"])
except Exception as error:  # the guard of a size
    assert "size" in str(error) or "shape" in str(error), error
else:
    raise AssertionError("another size was taken")
EOF
