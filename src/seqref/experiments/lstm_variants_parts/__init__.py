r"""Parts of the experiment `lstm_variants`."""
