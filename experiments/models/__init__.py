r"""Trained models, stacks, directions and variants."""
