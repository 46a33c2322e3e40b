r"""Parts of `gradient_products`: chains, single networks, tables and the figure."""
