r"""Backpropagation through time: its sums, its memory, and what a cut costs."""
