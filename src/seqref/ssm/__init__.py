r"""State space models: linear in the state, so a scan or a convolution."""

from seqref.ssm.discretisation import bilinear, euler, zero_order_hold
from seqref.ssm.hippo import (
    hippo_legs,
    hippo_legt,
    legs_coefficients,
    legt_coefficients,
    reconstruct,
)
from seqref.ssm.linear_time_invariant import LTI, LTIState
from seqref.ssm.lru import LRU, LRUState
from seqref.ssm.mamba import Mamba, MambaState

__all__ = [
    "LRU",
    "LTI",
    "LRUState",
    "LTIState",
    "Mamba",
    "MambaState",
    "bilinear",
    "euler",
    "hippo_legs",
    "hippo_legt",
    "legs_coefficients",
    "legt_coefficients",
    "reconstruct",
    "zero_order_hold",
]
