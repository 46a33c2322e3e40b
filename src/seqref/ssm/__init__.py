r"""State space models: linear in the state, so a scan or a convolution."""

from seqref.ssm.discretisation import bilinear, euler, zero_order_hold
from seqref.ssm.mamba import Mamba, MambaState

__all__ = ["Mamba", "MambaState", "bilinear", "euler", "zero_order_hold"]
