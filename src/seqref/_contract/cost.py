r"""A property of a model: its work grows with the number of steps, and no faster."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from seqref._contract.calls import plain_call
from seqref._contract.copies import converted
from seqref._contract.inputs import check_batch
from seqref._contract.outputs import with_graph
from seqref._contract.places import Call
from seqref._contract.probe import Probe
from seqref.errors import check_number

# Of 2, with room for pieces of which the last is not full.
AT_MOST = 2.5
# Between these lies what an operation adds that is quadratic; and the share of all from
# which on it counts.
QUADRATIC = 3.5, 5.0
SHARE = 0.01
# torch counts the products of these kernels on no CPU. Query, key, and what they take.
ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": (0, 1, 4),
    "_scaled_dot_product_flash_attention_for_cpu_backward": (1, 2, 10),
}

CAUSES = (
    "an index into a tensor that wants a gradient, as `x[:, t]`, or a write into one, "
    "as `y[:, t] = h`, in a loop over steps; `torch.cat` in such a loop; attention "
    "over all positions; or the steps of `x` are no multiple of the pieces that it is "
    "worked through in"
)


class Work(TorchDispatchMode):
    r"""Numbers that operations read and write, and products, inside a `with` block.

    By the name of the operation. Views read and write nothing. What a kernel of another
    library does inside is not seen, but for the products of matrices, of convolutions
    and of attention.

    Source:
        Products by `torch.utils.flop_counter`.
    """

    def __init__(self) -> None:
        super().__init__()
        # Products of matrices are of another order than numbers moved, and would
        # drown them.
        self.moved: Counter[str] = Counter()
        self.products: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = packet.__name__
        if not _is_view(func):
            leaves = tree_leaves((args, kwargs, result))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            self.moved[name] += sum(tensor.numel() for tensor in tensors)
        if name in ATTENTION:
            query, key, factor = ATTENTION[name]
            products = args[query].numel() * args[key].shape[-2]
            self.products[name] += factor * products
        elif packet in flop_registry:
            count = flop_registry[packet]
            self.products[name] += count(*args, **(kwargs or {}), out_val=result)
        return result


def _is_view(func: Any) -> bool:
    r"""Whether an operation returns what came in, unchanged."""
    returned = [value.alias_info for value in func._schema.returns]
    return bool(returned) and all(info and not info.is_write for info in returned)


def check_linear_cost(
    model: Call,
    x: Tensor,
    *,
    call: Call | None = None,
    at_most: float = AT_MOST,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a model to this: the work of training grows as the number of steps.

    A forward and a backward pass over `x`, and over `x` twice and four times, one after
    the other in time. What the second doubling adds over what the first adds is 2 where
    work is linear, whatever it costs besides, and 4 where it is quadratic. Nothing is
    timed: counted are, apart from each other, numbers that operations read and write,
    and products of matrices, of convolutions and of attention. It fails where either
    grows too fast, and where a single operation does whose share is above 1 in 100.
    What a kernel of another library does inside is not seen otherwise.

    `x` wants a gradient here, as the inputs of a layer inside a network do. Where yours
    are data that want none, hand on `x.detach()` in `call`: an index into it in a loop
    costs nothing then.

    Args:
        model: A module, of which a copy is run in the mode that it is in, a method of
            one, or another callable.
        x: Inputs; the model must be able to read four times their steps. The wider the
            model, the more steps it takes to show; where it works in pieces, a multiple
            of these.
        call: ``call(model, x)``. None is ``model(x)``.
        at_most: The largest ratio that counts as linear.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"linear cost"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...)
        - output: any; all tensors in it that have a gradient are summed

    Raises:
        AssertionError: work grows faster; or the property holds that was expected to
            fail.
        TypeError: an argument has the wrong kind.
        ValueError: `x` has the wrong shape, or no output has a gradient.
    """
    name = "linear cost"
    run = call or plain_call
    # A function is taken as it is; of a module the probe would run a copy in float64.
    as_it_is = partial(run, model) if callable(model) else model
    probe = Probe(name, as_it_is, run, None, None, expected_failures)
    check_batch(probe.where, "x", x, batch=1)
    check_number(probe.where, "at_most", at_most, above=2)
    with probe.expecting(), probe.quiet(x):
        once, twice, four = (
            _work(probe.where, model, run, x, times) for times in (1, 2, 4)
        )
        found = False
        for kind, name_of in (("moved", "numbers moved"), ("products", "products")):
            counters = [getattr(work, kind) for work in (once, twice, four)]
            found |= _judge(name, name_of, counters, x.shape[1], at_most)
        if not found:
            raise ValueError(
                f"{probe.where}: the work does not grow with the steps, so `call` does "
                "not hand its inputs on, or the model does all of it out of sight"
            )


def _judge(
    name: str, kind: str, counters: list[Counter[str]], steps: int, at_most: float
) -> bool:
    r"""Raise where work of one kind grows too fast; whether there is any that grows."""
    names = set().union(*counters)
    once, twice, four = counters
    first = {op: twice[op] - once[op] for op in names}
    second = {op: four[op] - twice[op] for op in names}
    total = sum(first.values())
    if total <= 0:
        return False
    ratio = sum(second.values()) / total
    low, high = QUADRATIC
    quadratic = [
        op
        for op in names
        if second[op] > SHARE * sum(second.values())
        and low * first[op] < second[op] < high * first[op]
    ]
    if ratio <= at_most and not quadratic:
        return True
    worst = quadratic or list(names)
    worst.sort(key=lambda op: 2 * first[op] - second[op])
    told = ", ".join(
        f"`{op}` ({second[op] / max(first[op], 1):.2f} times)" for op in worst[:3]
    )
    raise AssertionError(
        f"{name}: from {2 * steps} to {4 * steps} steps the {kind} of a training pass "
        f"grow by {ratio:.2f} times what they grow by from {steps} to {2 * steps}; 2 "
        f"is linear, 4 quadratic, allowed {at_most:g}.\nMost of it: {told}\n"
        f"Usual causes: {CAUSES}"
    )


def _work(
    where: str, model: Any, call: Callable[..., Any], x: Tensor, times: int
) -> Work:
    r"""That of a forward and a backward pass over the inputs so many times."""
    inputs = torch.cat([x.detach()] * times, dim=1)
    wanted: list[Tensor] = []
    owner = getattr(model, "__self__", model)
    if isinstance(owner, nn.Module):
        mine = converted(owner, None)
        model = mine if model is owner else MethodType(model.__func__, mine)
        wanted = [p for p in mine.parameters() if p.requires_grad]
    if inputs.is_floating_point() or inputs.is_complex():
        wanted.append(inputs.requires_grad_())
        # To a leaf a model could not write in place.
        inputs = inputs.clone()
    if not wanted:
        raise ValueError(
            f"{where}: there is nothing to take a gradient to: `x` holds integers, and "
            "the model is no module, nor a method of one, with parameters that want one"
        )
    with torch.enable_grad(), Work() as work:
        sums = [
            tensor.abs().sum()
            for leaf in tree_leaves(_called(where, call, model, inputs))
            for tensor in with_graph(leaf).values()
            if tensor.requires_grad
        ]
        if not sums:
            raise ValueError(f"{where}: no output of the model has a gradient")
        torch.autograd.grad(sums, wanted, allow_unused=True)
    return work


def _called(where: str, call: Call, model: Any, x: Tensor) -> Any:
    try:
        return call(model, x)
    except Exception as error:
        error.add_note(
            f"{where} called the model with inputs of shape {tuple(x.shape)}: `x` "
            "once, twice and four times in a row. Pass fewer steps where it cannot "
            "read so many."
        )
        raise
