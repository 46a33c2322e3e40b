"""A small training run as a program, which can be told to die.

Arguments: the folder, the kind of run, the number of steps, and then either nothing or
a moment ("before-flush", "half-written", "before-move", "after-move", "before-delete")
and the number of the file at which the process kills itself at that moment.
"""

import os
import random
import signal
import sys
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn.functional import mse_loss

from seqref import LSTM
from seqref.models import LanguageModel
from seqref.training import Checkpoints, Documents, fit, seed_all, train


class Dropped(nn.Module):
    """An LSTM with dropout on its outputs: a causal layer."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.inner = LSTM(input_size, hidden_size)
        self.dropout = nn.Dropout(0.3)

    def initial_state(self, batch_size):
        return self.inner.initial_state(batch_size)

    def step(self, x_t, state):
        y_t, state = self.inner.step(x_t, state)
        return self.dropout(y_t), state

    def forward(self, x, state=None, lengths=None):
        y, state = self.inner(x, state, lengths)
        return self.dropout(y), state


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment, file):
    """Kill this process while the file of that number is written."""
    flush, move, unlink, files = os.fsync, os.replace, Path.unlink, [0]

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            return flush(handle)
        files[0] += 1
        if files[0] == file and moment == "half-written":
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            die()
        if files[0] == file and moment == "before-flush":
            die()
        return flush(handle)

    def replace(source, target):
        if files[0] == file and moment == "before-move":
            die()
        move(source, target)
        if files[0] == file and moment == "after-move":
            die()

    def delete(path, missing_ok=False):
        if files[0] >= file and moment == "before-delete":
            die()
        unlink(path, missing_ok=missing_ok)

    os.fsync, os.replace, Path.unlink = fsync, replace, delete


def random_points(model, loader):
    """Regression with shuffled data, dropout, and noise from three libraries."""

    def loss(model, batch, state):
        x, y = batch
        x = x + 0.01 * random.gauss(0, 1) + 0.01 * numpy.random.standard_normal()  # noqa: NPY002
        output, _ = model[0](x)
        return mse_loss(model[1](output), y), None

    return loss


def run_points(checkpoints, steps):
    model = nn.Sequential(Dropped(3, 8), nn.Linear(8, 1))
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(23, 6, 3, generator=generator)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, x.cumsum(1).sum(-1, keepdim=True)),
        batch_size=4,
        shuffle=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=500)
    loss = random_points(model, loader)
    options = {"scheduler": scheduler, "seed": 7, "checkpoints": checkpoints}
    last = fit(model, loader, optimizer, steps, loss, **options)
    return model, optimizer, last


def run_texts(checkpoints, steps):
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 40, (12,), generator=generator).tolist()
    texts = [torch.randint(0, 9, (n,), generator=generator) for n in lengths]
    model = LanguageModel(9, Dropped(4, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    last = train(
        model,
        Documents(texts, batch_size=3, horizon=7),
        optimizer,
        steps,
        scheduler=lambda made: 0.1 / (1 + made / 50),
        checkpoints=checkpoints,
    )
    return model, optimizer, last


KINDS = {"points": run_points, "texts": run_texts}


def run(folder, kind, steps, every=3):
    """Go on from what the folder holds, or begin."""
    seed_all(3)
    checkpoints = Checkpoints(folder, every=every, keep=2, resume=True)
    return KINDS[kind](checkpoints, steps)


if __name__ == "__main__":
    folder, kind, steps, *rest = sys.argv[1:]
    if rest:
        die_at(rest[0], int(rest[1]))
    run(folder, kind, int(steps))
