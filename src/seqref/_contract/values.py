r"""Properties that are seen without gradients: shapes, purity, state, rows, no time."""

from typing import Any

import torch
from torch import Tensor

from seqref._contract.subject import (
    Subject,
    Values,
    copy_state,
    flatten,
    is_smooth,
    named,
    rows_of,
)

# Where nn.Module itself keeps tensors; buffers are looked at one by one.
TORCH_DICTS = ("_parameters", "_buffers", "_modules")


def protocol(subject: Subject) -> None:
    name, layer = "protocol", subject.layer
    initial = layer.initial_state(subject.batch)
    y_t, after_step = layer.step(subject.x[:, 0], initial)
    y, after = layer(subject.x, layer.initial_state(subject.batch))
    batch, time = subject.batch, subject.time
    if y_t.shape[:1] != (batch,):
        raise AssertionError(
            f"{name}: step's output must have shape (batch={batch}, ...), "
            f"got {tuple(y_t.shape)}"
        )
    if y.shape != (batch, time, *y_t.shape[1:]):
        raise AssertionError(
            f"{name}: the output must have shape "
            f"{(batch, time, *y_t.shape[1:])}, got {tuple(y.shape)}"
        )
    for what, state in (("step", after_step), ("call", after)):
        _same_kind(name, what, initial, state)
    for what, value in (("step", y_t), ("call", y)):
        if value.dtype != subject.dtype:
            raise AssertionError(
                f"{name}: the output of the {what} must have dtype {subject.dtype}, "
                f"got {value.dtype}"
            )


def _same_kind(name: str, what: str, before: Any, after: Any) -> None:
    if type(before) is not type(after):
        raise AssertionError(
            f"{name}: the {what} must return a {type(before).__name__} as state, "
            f"got {type(after).__name__}"
        )
    old, new = flatten(before), flatten(after)
    if list(old) != list(new):
        raise AssertionError(
            f"{name}: the state of the {what} has {', '.join(new)}, "
            f"expected {', '.join(old)}"
        )
    for field, tensor in new.items():
        if tensor.dtype != old[field].dtype or tensor.shape[:1] != old[field].shape[:1]:
            raise AssertionError(
                f"{name}: `{field}` of the {what} must keep dtype {old[field].dtype} "
                f"and batch {old[field].shape[:1]}, got {tensor.dtype} and "
                f"{tensor.shape[:1]}"
            )


def arguments(subject: Subject) -> None:
    name, layer = "arguments", subject.layer
    x, state = subject.x, subject.state
    lengths = torch.full((subject.batch,), max(subject.time - 1, 0), device=x.device)
    given: Values = {"x": x, **flatten(state), "lengths": lengths}
    given |= {f"parameter `{n}`": p for n, p in layer.named_parameters()}
    calls = [
        ("call", lambda: layer(x, state)),
        ("step", lambda: layer.step(x[:, 0], state)),
    ]
    if subject.supports_lengths:
        calls.append(("call with lengths", lambda: layer(x, state, lengths)))
    for what, call in calls:
        copies = {n: t.detach().clone() for n, t in given.items()}
        versions = {n: t._version for n, t in given.items()}
        with torch.no_grad():
            call()
        for key, tensor in given.items():
            moved = tensor.shape != copies[key].shape
            if moved or not torch.equal(tensor, copies[key]):
                raise AssertionError(f"{name}: the {what} changed {key} in place")
            if tensor._version != versions[key]:
                raise AssertionError(
                    f"{name}: the {what} wrote to {key} in place (its values are the "
                    "same, its version counter is not)"
                )


def determinism(subject: Subject) -> None:
    name = "determinism"
    first = subject.values(subject.call, subject.x, subject.state)
    again = subject.values(subject.call, subject.x, subject.state)
    what = "a second call with the same arguments (dropout? call layer.eval() first)"
    subject.same(name, what, first, again)


def steps(subject: Subject) -> None:
    name, step = "steps", subject.layer.step
    state = subject.state
    x_t = subject.x[:, 0]
    other_x_t = subject.noise(x_t.shape, seed=30)
    with torch.no_grad():
        first = named(*step(x_t.clone(), state))
        kept = {n: t.clone() for n, t in first.items()}
        step(other_x_t, state)
        for key, value in first.items():
            if not torch.equal(value, kept[key]):
                raise AssertionError(
                    f"{name}: a second step from the same state changed {key} that "
                    "the first had returned"
                )
        again = named(*step(x_t.clone(), state))
    subject.same(name, "a step taken again from the same state", kept, again)


def module_state(subject: Subject) -> None:
    name, layer = "module state", subject.layer
    x, initial = subject.x, layer.initial_state(subject.batch)
    fresh = subject.values(subject.call, x, initial)
    with torch.no_grad():
        layer(subject.noise(x.shape, seed=31), subject.state)
        without = named(*layer(subject.x))
    what = "a call without a state, after other calls,"
    subject.same(name, what, fresh, without)
    with torch.no_grad():
        layer.step(subject.noise(x[:, 0].shape, seed=32), subject.state)
        state = subject.state
        y, after = layer(subject.x, state)
        y_t, after_step = layer.step(subject.x[:, 0], state)
    returned = [y, y_t, *flatten(after).values(), *flatten(after_step).values()]
    for prefix, module in layer.named_modules():
        own = {k: v for k, v in vars(module).items() if k not in TORCH_DICTS}
        for attribute, value in (own | module._buffers).items():
            for tensor in _tensors(value):
                if any(_overlap(tensor, result) for result in returned):
                    full = f"{prefix}.{attribute}" if prefix else attribute
                    raise AssertionError(
                        f"{name}: the module keeps a returned tensor in `{full}`"
                    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


def _overlap(one: Tensor, two: Tensor) -> bool:
    if one is two:
        return True
    pointer = one.untyped_storage().data_ptr()
    return pointer != 0 and pointer == two.untyped_storage().data_ptr()


def no_state(subject: Subject) -> None:
    r"""No state given means `initial_state`, with a gradient and with lengths too."""
    name, layer = "initial state", subject.layer
    full = torch.full((subject.batch,), subject.time, device=subject.x.device)
    for lengths in (None, full) if subject.supports_lengths else (None,):
        results = []
        for state in (layer.initial_state(subject.batch), None):
            x = subject.x.requires_grad_()
            parameters = dict(layer.named_parameters())
            leaves = {"x": x}
            leaves |= {n: p for n, p in parameters.items() if p.requires_grad}
            values = named(*subject.call(x, state, lengths))
            grads = torch.autograd.grad(
                subject.loss(values) + 0 * x.sum(),
                list(leaves.values()),
                allow_unused=True,
                materialize_grads=True,
            )
            of = {f"gradient of `{n}`": g for n, g in zip(leaves, grads, strict=True)}
            results.append({n: t.detach() for n, t in values.items()} | of)
        given = " with lengths" if lengths is not None else ""
        what = f"the call{given} without a state, beside one from `initial_state`,"
        subject.same(name, what, *results)


def initial_state(subject: Subject) -> None:
    name = "initial state"
    fields = [n for n, t in flatten(subject.state).items() if is_smooth(t)]
    if not fields:
        return
    one, two = flatten(subject.state), flatten(subject.other_state)
    if all(torch.equal(one[field], two[field]) for field in fields):
        raise AssertionError(
            f"{name}: steps over different inputs lead to the same state"
        )
    forms = (("call", subject.call), ("loop over `step`", subject.by_step))
    for what, form in forms:
        first = subject.values(form, subject.x, subject.state)["y"]
        second = subject.values(form, subject.x, subject.other_state)["y"]
        if torch.equal(first, second):
            raise AssertionError(
                f"{name}: the {what} gives the same output from two different states"
            )


def rows(subject: Subject) -> None:
    name = "rows"
    x, state = subject.x, subject.state
    forms = (("call", subject.call, x), ("step", subject.by_step, x[:, :1]))
    for what, form, inputs in forms:
        whole = subject.values(form, inputs, state)
        for row in range(subject.batch):
            alone = subject.values(
                form, inputs[row : row + 1], rows_of(state, row, row + 1)
            )
            part = {n: t[row : row + 1] for n, t in whole.items()}
            subject.same(name, f"row {row} in the batch, by {what},", alone, part)


def row_gradients(subject: Subject) -> None:
    name = "rows"
    for row in range(subject.batch):
        x = subject.x.requires_grad_()
        state = copy_state(subject.state)
        y, final = subject.layer(x, state)
        own = {n: t[row : row + 1] for n, t in named(y, final).items()}
        (gradient,) = torch.autograd.grad(
            subject.loss(own) + 0 * x.sum(), x, materialize_grads=True
        )
        gradient[row] = 0
        expected = {"gradient of `x`": torch.zeros_like(gradient)}
        got = {"gradient of `x`": gradient}
        subject.same(name, f"other rows, from the loss of row {row},", expected, got)


def empty(subject: Subject) -> None:
    name = "empty"
    x, state = subject.x[:, :0], subject.state
    y = subject.values(subject.call, subject.x, state)["y"]
    expected = named(y[:, :0], state)
    got = subject.values(subject.call, x, state)
    subject.same(name, "a call with time 0", expected, got)
