r"""Parts of the experiment `stacked`."""
