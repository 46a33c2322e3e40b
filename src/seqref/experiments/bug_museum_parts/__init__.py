r"""Specimens of the bug museum: small models with one fault each, and their fixes."""
