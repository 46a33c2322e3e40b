r"""Parts of `padding_cost`: what is timed, counted and compared."""
