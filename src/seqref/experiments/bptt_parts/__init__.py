r"""Parts of the experiments on backpropagation through time."""
