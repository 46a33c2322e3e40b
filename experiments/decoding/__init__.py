r"""What a search finds of what a model knows."""
