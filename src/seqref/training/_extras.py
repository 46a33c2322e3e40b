r"""Packages of the extra `train`, imported where they are needed and not before."""

import importlib
from typing import Any


def extra(module: str, purpose: str) -> Any:
    r"""Import a module of the extra `train`.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RuntimeError(
            f"{purpose} needs {package}, which is not installed: "
            'pip install "seqref[train]"'
        ) from error
