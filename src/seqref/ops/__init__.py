r"""The mathematics without parameters: pure functions on tensors."""
