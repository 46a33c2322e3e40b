r"""State space models: discretisation, kernels, what a linear state remembers."""
