r"""Parts of `spectral_radius`: its fixed examples, and its tables and figure."""
