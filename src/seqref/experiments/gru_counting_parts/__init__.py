r"""Parts of the experiment `gru_counting`."""
