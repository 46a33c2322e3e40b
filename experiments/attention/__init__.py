r"""Attention: what its scores cost, what they need, what they say."""
