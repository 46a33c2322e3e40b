r"""Parts of the experiment `first_model`: its data, its tables and its figure."""
