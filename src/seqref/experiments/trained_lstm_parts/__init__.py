r"""Parts of `gradient_overflow`: clipping, and its tables and figure."""
