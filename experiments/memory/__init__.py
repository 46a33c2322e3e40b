r"""Tasks that ask for something seen long ago."""
