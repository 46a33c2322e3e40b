#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0, Linux: tensors that were read follow their file.
#
# A tensor from safe_open(path, framework="pt").get_tensor(name), and one from
# safetensors.torch.load_file(path), is a view of the file's pages. When another program
# writes over the file in place afterwards, the numbers of a tensor that was read before
# change. A new file moved into its place (os.replace) changes nothing, and neither do
# tensors from safetensors.torch.load(bytes). torch.load without mmap copies.
#
# Output seen:
#   safe_open: written over in place: changed; replaced by os.replace: as read
#   load_file: written over in place: changed; replaced by os.replace: as read
#   load(bytes): written over in place: as read; replaced by os.replace: as read
#   torch.load: written over in place: as read; replaced by os.replace: as read
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q numpy==2.4.6 safetensors==0.8.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'EOF'
import os
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file

PATH = pathlib.Path("model.file")
ONES = {"w": torch.ones(1_000_000)}


def by_safe_open():
    with safe_open(PATH, framework="pt") as file:
        return file.get_tensor("w")


WAYS = {
    "safe_open": (save_file, by_safe_open),
    "load_file": (save_file, lambda: load_file(PATH)["w"]),
    "load(bytes)": (save_file, lambda: load(PATH.read_bytes())["w"]),
    "torch.load": (torch.save, lambda: torch.load(PATH)["w"]),
}


def written_over():
    half = PATH.stat().st_size // 2
    with PATH.open("r+b") as file:
        file.seek(half)
        file.write(bytes(half - 4096))


def replaced():
    new = pathlib.Path("new.file")
    save_file({"w": torch.zeros(1_000_000)}, new)
    os.replace(new, PATH)


for name, (write, read) in WAYS.items():
    seen = []
    for change in (written_over, replaced):
        PATH.unlink(missing_ok=True)
        write(ONES, PATH)
        tensor = read()
        change()
        seen.append("as read" if tensor.eq(1).all() else "changed")
    print(f"{name}: written over in place: {seen[0]}; replaced by os.replace: {seen[1]}")
    first = "changed" if name in ("safe_open", "load_file") else "as read"
    assert seen == [first, "as read"], (name, seen)
EOF
