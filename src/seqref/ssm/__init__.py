r"""State space models: linear in the state, so a scan or a convolution."""

from seqref.ssm.discretisation import bilinear, euler, zero_order_hold

__all__ = ["bilinear", "euler", "zero_order_hold"]
