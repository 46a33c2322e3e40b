r"""Is there a GPU, and which."""


def gpu_missing() -> str | None:
    r"""Why a `.gpu` block cannot run here, or `None` where it can."""
    try:
        import torch
    except ImportError:
        return "needs a GPU, and torch is not installed"
    if not torch.cuda.is_available():
        return "needs a GPU, and torch finds none"
    return None


def gpu_name() -> str:
    r"""The name of the GPU that a block ran on."""
    import torch

    return torch.cuda.get_device_name()


def torch_version() -> str:
    r"""torch's version, without what follows a plus sign."""
    import torch

    return torch.__version__.split("+")[0]
