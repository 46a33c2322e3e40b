r"""Parts of the experiment `bidirectional`: what leaks, and what padding does."""
