"""Seeds for every test, devices, and the reason why one is skipped without a GPU."""

import importlib.util
import os
import warnings

import pytest
import torch


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
