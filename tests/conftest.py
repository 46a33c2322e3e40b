"""Seeds for every test, devices, and the reason why one is skipped without a GPU."""

import importlib.util
import os
import warnings
from itertools import groupby

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption(
        "--each-value",
        action="store_true",
        help="of each test few cases, in which each value of each parameter occurs",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Last: what marks leave out can stand for no value."""
    if not config.getoption("each_value"):
        return
    kept = []
    for _, group in groupby(items, lambda item: item.nodeid.partition("[")[0]):
        cases = list(group)
        specs = [getattr(case, "callspec", None) for case in cases]
        values = [spec.params.items() if spec else () for spec in specs]
        # Cases of one test share the objects that their parameters are.
        chosen = each_value([{name: id(v) for name, v in pairs} for pairs in values])
        kept += [cases[place] for place in chosen]
    config.hook.pytest_deselected(items=list(set(items) - set(kept)))
    items[:] = kept


def each_value(cases):
    r"""Places of cases that together have every value of every parameter.

    A case is a number for each parameter's value, by name. The next one taken is the
    first of those that have most that is new; of cases without parameters the first
    stands for all.
    """
    left = {pair for case in cases for pair in case.items()}
    taken = set()
    while left:
        most = max(range(len(cases)), key=lambda i: len(left & cases[i].items()))
        left -= cases[most].items()
        taken.add(most)
    return sorted(taken) or [0]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """A GPU where there is one, and always a CPU: no test is code that never ran."""
    return request.param


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none here")
    if item.get_closest_marker("triton"):
        if not importlib.util.find_spec("triton"):
            pytest.skip("Triton is not installed here: `nox -s kernels` runs it")
        if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
            pytest.skip("needs a CUDA device or TRITON_INTERPRET=1")


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras on torch, an extra judge."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        module = pytest.importorskip("keras", reason="Keras is an extra judge")
        if module.backend.backend() != "torch":
            pytest.skip("Keras was imported on another backend than torch")
        with module.device("cpu"):
            yield module
